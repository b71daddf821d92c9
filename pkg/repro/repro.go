// Package repro judges whether what a commit builds can be built again: the
// covenant of reproducibility. It has three checks.
//
// # reproducibility/build
//
// [Build] runs the configured build twice and compares the outputs byte for
// byte. Each build starts in a clean checkout of the commit's tree, and nearly
// all that may differ between two machines does differ:
//
//	                 first build        second build
//	path             short              longer
//	HOME, TMPDIR     empty folders of its own
//	umask            022                077
//	TZ               12 hours behind    14 hours ahead of UTC
//	LC_ALL, LANG     C                  a UTF-8 locale, another language
//	order of files   by name            by name, backwards
//	clock            2.1 s from the first build's end to the second's start, so
//	                 that even the two-second steps of a zip file's dates differ
//
// SOURCE_DATE_EPOCH is the commit's time in both: a build that needs a date
// takes that one. The rest of the environment is the caller's, and must hold no
// key: the build is the change's own code. Variables that would lead a build
// out of its surroundings (GIT_DIR and its like, XDG_CACHE_HOME and its like)
// are dropped. A checkout is written with exact modes, whatever the umask:
// 0755 for folders and executables, 0644 for files. It has no .git, and git is
// kept from finding an outer repository. A submodule is an empty folder, as
// after a plain git clone. Links are written as they are; a link that leaves
// the tree is refused.
//
// Not varied: the user, the host name, the kernel, the processors, the tools,
// and all that lies outside the two folders, such as /tmp or a cache that the
// environment names. A build that means to deceive can: this finds accidents.
//
// Outputs are found by patterns. Files and links are compared: a file by its
// bytes and by whether it may be executed (not by the other bits, which are
// the umask's), a link by where it leads and, where that is a file of the
// checkout, as that file. Every pattern must match something, and something
// must be there that the commit does not hold already: what was not built
// cannot be reproduced.
//
// For each output that differs the first difference is named: the offset and
// the bytes around it, or in an archive (tar, zip, ar, each plain or in gzip,
// one archive deep in another) the member and what of it differs: content,
// date, mode, owner, order or name. The cause is guessed from the bytes: a path,
// a date, a time zone, a locale, a umask.
//
// # reproducibility/base-images
//
// [Images] wants every image that a Dockerfile takes pinned by digest.
//
// # reproducibility/lock-files
//
// [Locks] wants the lock file of every manifest, and looks into those of Go and
// npm.
//
// Images and Locks read the tree only. They leave aside what lies below a
// folder named testdata, vendor or node_modules, or below archive/ at the
// root, and name what they left aside.
package repro

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vaultmesh/remembrancer/pkg/judge"
	"github.com/vaultmesh/remembrancer/pkg/process"
)

const (
	buildID    = "reproducibility/build"
	buildClaim = "two builds in unlike surroundings make the same bytes"

	// apart is the least time from the end of the first build to the start of
	// the second: a warm second build may come to a date much sooner than the
	// first did. Dates in zip files count in steps of two seconds.
	apart = 2100 * time.Millisecond
	// maxFindings bounds the outputs that are explained.
	maxFindings = 20
	// maxTail bounds what is kept of a build's output, in bytes.
	maxTail = 4 << 10
)

// Source is a commit's tree that can be checked out.
type Source interface {
	judge.Tree
	// Link returns where a symbolic link leads, as git stores it.
	Link(path string) (string, error)
}

// Command is what to run: exactly one of Argv and Shell.
type Command struct {
	Argv  []string
	Shell string // one line for bash -c, or sh -c where there is no bash
}

// String returns the command as a person would type it.
func (c Command) String() string {
	if c.Shell != "" {
		return c.Shell
	}
	words := make([]string, len(c.Argv))
	for i, w := range c.Argv {
		words[i] = w
		if w == "" || strings.Trim(w, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:=,@%+-") != "" {
			words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
	}
	return strings.Join(words, " ")
}

// line is the command on one line, for a sentence.
func (c Command) line() string {
	if first, _, more := strings.Cut(strings.TrimSpace(c.String()), "\n"); more {
		return first + " ..."
	}
	return strings.TrimSpace(c.String())
}

// Plan is the build that is claimed.
type Plan struct {
	Command Command // run at the top of the checkout
	// Outputs are patterns of what the build makes, relative to the checkout:
	// each element is a [path.Match] pattern, and the element ** stands for any
	// number of elements.
	Outputs []string
	Timeout time.Duration // of each of the two builds; must be positive
	Epoch   time.Time     // the commit's time
	Env     []string      // NAME=VALUE; without keys
}

// Options are the optional parts of a build.
type Options struct {
	TempDir string           // where the checkouts are made and removed; "" is the system's
	Log     io.Writer        // receives what the builds print; nil drops it
	Now     func() time.Time // nil is time.Now
}

// Build builds a commit twice and compares the outputs. It fails when they
// differ or when the build does. It is an error when it could not be run to its
// end: no time left, no shell, a tool or a blob that is not there. A plan
// without command and outputs claims nothing.
func Build(ctx context.Context, src Source, p Plan, o Options) judge.Check {
	if len(p.Command.Argv) == 0 && p.Command.Shell == "" && len(p.Outputs) == 0 {
		return judge.NotClaimed(buildID, buildClaim, "no build is configured: covenants.build.run and covenants.build.outputs claim one")
	}
	c, err := build(ctx, src, p, o)
	if err != nil {
		return judge.Unjudged(buildID, buildClaim, err)
	}
	return c
}

// checkPlan refuses what cannot be run before anything is written.
func checkPlan(p Plan) error {
	switch {
	case len(p.Command.Argv) == 0 && strings.TrimSpace(p.Command.Shell) == "":
		return errors.New("build command is empty: wanted a list of words or one shell line")
	case len(p.Command.Argv) > 0 && p.Command.Shell != "":
		return errors.New("build command is given twice: wanted a list of words or one shell line")
	case len(p.Command.Argv) > 0 && p.Command.Argv[0] == "":
		return errors.New("build command begins with an empty word")
	case len(p.Outputs) == 0:
		return errors.New(`no outputs are named: wanted patterns of what the build makes, such as "bin/**"`)
	case p.Timeout <= 0:
		return fmt.Errorf("build timeout is %s: wanted more than 0", p.Timeout)
	case p.Epoch.Unix() <= 0:
		return errors.New("the commit has no time: wanted one for SOURCE_DATE_EPOCH")
	}
	for _, pattern := range p.Outputs {
		for element := range strings.SplitSeq(pattern, "/") {
			if _, err := path.Match(element, ""); err != nil || element == "" || element == "." || element == ".." {
				return fmt.Errorf(`%q is not a pattern of outputs: wanted one such as "bin/**", relative to the checkout`, pattern)
			}
		}
	}
	return nil
}

func build(ctx context.Context, src Source, p Plan, o Options) (judge.Check, error) {
	if err := checkPlan(p); err != nil {
		return judge.Check{}, err
	}
	if runtime.GOOS == "windows" {
		return judge.Check{}, errors.New("this system has no umask to vary: wanted Linux, macOS or another Unix")
	}
	log, now := o.Log, o.Now
	if log == nil {
		log = io.Discard
	}
	if now == nil {
		now = time.Now
	}
	temp, err := os.MkdirTemp(o.TempDir, "repro-")
	if err != nil {
		return judge.Check{}, err
	}
	defer func() {
		if err := remove(temp); err != nil {
			fmt.Fprintf(log, "remembrancer: %v\n", err)
		}
	}()
	// The build sees its path absolute and resolved, and that is the one to
	// look for.
	base, err := filepath.Abs(temp)
	if err == nil {
		base, err = filepath.EvalSymlinks(base)
	}
	if err != nil {
		return judge.Check{}, err
	}

	sides := surroundings(base)
	for i := range sides {
		s := &sides[i]
		if i > 0 {
			if err := sleep(ctx, apart-now().Sub(sides[i-1].ended)); err != nil {
				return judge.Check{}, err
			}
		}
		// The checkout is made right before its build: its files' dates are
		// those of the clock, as in any clone.
		s.started = now()
		tree, err := checkout(src, s.src(), i > 0)
		if err != nil {
			return judge.Check{}, fmt.Errorf("checkout: %w", err)
		}
		for _, dir := range []string{s.home(), s.tmp()} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return judge.Check{}, err
			}
		}
		fmt.Fprintf(log, "remembrancer: build %d of %d: %s\n", i+1, len(sides), p.Command.line())
		tail := &tailWriter{out: log}
		code, err := run(ctx, s, p, s.env(base, p), tail)
		s.ended = now()
		if err != nil {
			return judge.Check{}, fmt.Errorf("the %s build, %s: %w%s", s.name, p.Command.line(), err, tail.said())
		}
		if code != 0 {
			f := judge.Finding{Message: fmt.Sprintf("the %s build exited with status %d", s.name, code), Fix: p.Command.line()}
			if i > 0 {
				f.Message += " where the first succeeded: it needs what differs between them, " + varied
			}
			c := judge.Judged(buildID, buildClaim, p.Command.line(), f)
			c.Evidence = tail.lines()
			return c, nil
		}
		if s.outputs, err = collect(s.src(), p.Outputs, tree, src); err != nil {
			return judge.Check{}, fmt.Errorf("the %s build, %s: %w", s.name, p.Command.line(), err)
		}
		defer s.outputs.root.Close()
	}
	return compare(p, &sides[0], &sides[1])
}

// varied is what differs between the builds, for people.
const varied = "path, HOME, TMPDIR, umask, time zone, locale, order of files, clock"

// side is one of the two builds.
type side struct {
	name           string // first or second
	top            string // absolute; all that the build is given lies below
	umask          string
	tz, lc, lang   string
	zone           time.Duration // east of UTC
	started, ended time.Time
	outputs        *outputs
}

func surroundings(base string) [2]side {
	// The names of POSIX need no data files, but Go and Java know only names
	// that have one.
	west, east := "AAA12", "BBB-14"
	if _, err := os.Stat("/usr/share/zoneinfo/Etc/GMT+12"); err == nil {
		west, east = "Etc/GMT+12", "Etc/GMT-14"
	}
	utf8 := "C.UTF-8"
	if runtime.GOOS == "darwin" {
		utf8 = "en_US.UTF-8" // it has no C.UTF-8
	}
	return [2]side{
		{name: "first", top: filepath.Join(base, "1"), umask: "022", tz: west, lc: "C", lang: "C", zone: -12 * time.Hour},
		{name: "second", top: filepath.Join(base, "second-build", "of-this-commit"), umask: "077", tz: east, lc: utf8, lang: "fr_CH.UTF-8", zone: 14 * time.Hour},
	}
}

func (s *side) src() string  { return filepath.Join(s.top, "src") }
func (s *side) home() string { return filepath.Join(s.top, "home") }
func (s *side) tmp() string  { return filepath.Join(s.top, "tmp") }

// dropped would lead a build to another repository, or to what the other build
// left there.
var dropped = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_PREFIX",
	"XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
	"TEMP", "TMP", "OLDPWD", "LANGUAGE",
}

func (s *side) env(base string, p Plan) []string {
	own := []string{
		"HOME=" + s.home(),
		"TMPDIR=" + s.tmp(),
		"PWD=" + s.src(),
		"TZ=" + s.tz,
		"LC_ALL=" + s.lc,
		"LANG=" + s.lang,
		"SOURCE_DATE_EPOCH=" + strconv.FormatInt(p.Epoch.Unix(), 10),
		"GIT_CEILING_DIRECTORIES=" + base,
	}
	env := []string{}
	for _, v := range p.Env {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains(dropped, name) || slices.ContainsFunc(own, func(o string) bool { return strings.HasPrefix(o, name+"=") }) {
			continue
		}
		env = append(env, v)
	}
	return append(env, own...)
}

// run runs one build. One that did not come to its own end is an error.
func run(ctx context.Context, s *side, p Plan, env []string, out io.Writer) (code int, err error) {
	// The umask belongs to a process, so a shell sets it and becomes the build.
	argv := append([]string{"sh", "-c", "umask " + s.umask + ` && exec "$@"`, "sh"}, p.Command.Argv...)
	if p.Command.Shell != "" {
		argv = []string{"sh", "-c", "umask " + s.umask + ` && if command -v bash > /dev/null; then exec bash -c "$1"; else exec sh -c "$1"; fi`, "sh", p.Command.Shell}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.Timeout, fmt.Errorf("timed out after %s", p.Timeout))
	defer cancel()
	code, err = process.Run(ctx, process.Command{Argv: argv, Dir: s.src(), Env: env, Stdout: out, Stderr: out})
	if err == nil && (code == 126 || code == 127) {
		// What a shell says when there is nothing to run.
		return code, fmt.Errorf("exit status %d: a tool is missing", code)
	}
	return code, err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(min(d, apart))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// node is an entry of the commit's tree.
type node struct {
	path string
	mode fs.FileMode
}

// checkout writes the tree into a new folder and returns what it wrote.
func checkout(src Source, dir string, backwards bool) ([]node, error) {
	var tree []node
	err := src.Walk("", func(p string, mode fs.FileMode, _ string) error {
		if !fs.ValidPath(p) || p == "." || !filepath.IsLocal(filepath.FromSlash(p)) ||
			slices.ContainsFunc(strings.Split(p, "/"), func(e string) bool { return strings.EqualFold(e, ".git") }) {
			return fmt.Errorf("%q is not a path that a checkout may have", p)
		}
		tree = append(tree, node{p, mode})
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(tree) == 0 {
		return nil, errors.New("the commit has no files")
	}
	// Some file systems list a folder in the order its files were made.
	slices.SortFunc(tree, func(a, b node) int { return cmp.Compare(a.path, b.path) })
	if backwards {
		slices.Reverse(tree)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	if err := root.Chmod(".", 0o755); err != nil {
		return nil, err
	}
	made := map[string]bool{".": true}
	var folder func(string) error
	folder = func(p string) error {
		if made[p] {
			return nil
		}
		if err := folder(path.Dir(p)); err != nil {
			return err
		}
		made[p] = true
		if err := root.Mkdir(p, 0o755); err != nil {
			return err
		}
		return root.Chmod(p, 0o755) // our own umask may have taken bits away
	}
	var links []string
	for _, n := range tree {
		if err := folder(path.Dir(n.path)); err != nil {
			return nil, err
		}
		switch {
		case n.mode&fs.ModeSymlink != 0:
			target, err := src.Link(n.path)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", n.path, err)
			}
			if err := root.Symlink(target, n.path); err != nil {
				return nil, err
			}
			links = append(links, n.path)
		case n.mode.IsRegular():
			if err := writeFile(root, src, n); err != nil {
				return nil, err
			}
		default:
			if err := folder(n.path); err != nil {
				return nil, err
			}
		}
	}
	// Only when all are there can it be seen where a link of links leads. That
	// it leads nowhere is the build's business; that it leads out is ours.
	for _, p := range links {
		if _, err := root.Stat(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("a link of the commit leaves its tree, or goes round: %w", err)
		}
	}
	return tree, nil
}

func writeFile(root *os.Root, src Source, n node) error {
	data, err := src.Blob(n.path)
	if err != nil {
		return fmt.Errorf("%s: %w", n.path, err)
	}
	mode := fs.FileMode(0o644)
	if n.mode&0o111 != 0 {
		mode = 0o755
	}
	// O_EXCL: two names that this file system takes for one must not become
	// one file.
	f, err := root.OpenFile(n.path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

// remove removes a folder even where a build took away the right to: module
// caches are read-only.
func remove(dir string) error {
	if root, err := os.OpenRoot(dir); err == nil {
		_ = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				_ = root.Chmod(p, 0o700) // what stays shut is reported by RemoveAll
			}
			return nil
		})
		root.Close()
	}
	return os.RemoveAll(dir)
}

// tailWriter keeps the end of what it passes on. A write error of out does not
// stop a build: losing the live view must not lose the verdict.
type tailWriter struct {
	out  io.Writer
	kept []byte
}

func (t *tailWriter) Write(p []byte) (int, error) {
	_, _ = t.out.Write(p)
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - maxTail; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

func (t *tailWriter) lines() []string {
	text := strings.TrimSpace(strings.ToValidUTF8(string(t.kept), "?"))
	if text == "" {
		return nil
	}
	lines := strings.Split(text, "\n")
	return lines[max(0, len(lines)-20):]
}

// said is the last line, for an error.
func (t *tailWriter) said() string {
	if lines := t.lines(); len(lines) > 0 {
		return ": it said last: " + lines[len(lines)-1]
	}
	return ""
}

// show quotes a name that would not stand for itself in a line of text.
func show(s string) string {
	if q := strconv.Quote(s); q != `"`+s+`"` || s == "" {
		return q
	}
	return s
}
