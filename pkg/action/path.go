package action

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// ResolvePath returns the absolute path, free of symbolic links, of p inside
// workspace. A workflow may name only files of its workspace: p is relative to
// it, or absolute and below it. Refused are paths that leave the workspace by
// "..", by being absolute, or through a symbolic link, and links that lead
// nowhere, because writing through one creates a file where it points. What p
// names need not exist.
//
// The answer holds for as long as nobody else changes the tree: it is a guard
// against what a checkout contains, not against a process running beside.
func ResolvePath(workspace, p string) (string, error) {
	if workspace == "" {
		return "", errors.New("GITHUB_WORKSPACE is not set, wanted the directory of the checkout")
	}
	if p == "" || strings.ContainsRune(p, 0) {
		return "", fmt.Errorf("found %q, wanted a path inside the workspace", p)
	}
	given, err := filepath.Abs(workspace)
	if err != nil {
		return "", fmt.Errorf("workspace: %w", err)
	}
	root, err := filepath.EvalSymlinks(given)
	if err != nil {
		return "", fmt.Errorf("workspace: %w", err)
	}
	rel := filepath.Clean(filepath.FromSlash(p))
	if filepath.IsAbs(rel) {
		// The workspace may be reached through a link (on macOS all of /tmp
		// is), and the caller may know it by either name.
		inside := false
		for _, base := range []string{given, root} {
			if r, err := filepath.Rel(base, rel); err == nil && filepath.IsLocal(r) {
				rel, inside = r, true
				break
			}
		}
		if !inside {
			return "", fmt.Errorf("%q is outside the workspace, wanted a path relative to it", p)
		}
	} else if !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%q leaves the workspace, wanted a path inside it", p)
	}

	cur := root
	parts := strings.Split(rel, string(filepath.Separator))
	for i, part := range parts {
		next := filepath.Join(cur, part)
		info, err := os.Lstat(next)
		if errors.Is(err, fs.ErrNotExist) {
			return filepath.Join(append([]string{cur}, parts[i:]...)...), nil
		}
		if err != nil {
			return "", fmt.Errorf("%q: %w", p, err)
		}
		// Mode bits besides these (devices, pipes) are the opener's business;
		// on Windows a junction is irregular rather than a symbolic link.
		if info.Mode()&(fs.ModeSymlink|fs.ModeIrregular) != 0 {
			target, err := filepath.EvalSymlinks(next)
			if err != nil {
				return "", fmt.Errorf("%q: the link %s leads nowhere: %w", p, part, err)
			}
			r, err := filepath.Rel(root, target)
			if err != nil || !filepath.IsLocal(r) {
				return "", fmt.Errorf("%q leaves the workspace through the link %s", p, part)
			}
			next = target
		}
		cur = next
	}
	return cur, nil
}
