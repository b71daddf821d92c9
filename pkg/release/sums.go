package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// SumsFile is the name of the list of what a release consists of.
const SumsFile = "SHA256SUMS"

// maxSums bounds a list of digests, in bytes.
const maxSums = 16 << 20

// Sum is the digest of one file.
type Sum struct {
	Name   string // relative, with slashes
	SHA256 [sha256.Size]byte
}

// Hex returns the digest as 64 small hex digits.
func (s Sum) Hex() string { return hex.EncodeToString(s.SHA256[:]) }

// Sums is a list of files and their digests, by name, each once, as sha256sum -c
// reads it:
//
//	<64 small hex digits><space><space><name><LF>
//
// sorted by the bytes of the names. A star in place of the second space, which
// says that a file was read as binary, is accepted and never written. Names are
// relative and have slashes, no "..", no backslash and no control characters,
// so that no program reads an escape in them. A list does not hold itself, nor
// its own signature or timestamps: they are made after it.
type Sums []Sum

// ParseSums reads a list. self is the name of the file that it is in.
func ParseSums(self string, text []byte) (Sums, error) {
	s, err := parseSums(self, text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", self, err)
	}
	return s, nil
}

func parseSums(self string, text []byte) (Sums, error) {
	switch {
	case len(text) > maxSums:
		return nil, fmt.Errorf("%d bytes, wanted at most %d", len(text), maxSums)
	case len(text) == 0:
		return nil, errors.New("found nothing, wanted a digest and a name")
	case !bytes.HasSuffix(text, []byte("\n")):
		return nil, errors.New("the last line does not end")
	}
	var s Sums
	for i, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		sum, err := parseSum(self, line)
		if err == nil && i > 0 && s[i-1].Name >= sum.Name {
			err = fmt.Errorf("%q after %q: wanted each name once, sorted", sum.Name, s[i-1].Name)
		}
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		s = append(s, sum)
	}
	return s, nil
}

func parseSum(self, line string) (s Sum, err error) {
	const digits = 2 * sha256.Size
	if len(line) < digits+3 || line[digits] != ' ' || line[digits+1] != ' ' && line[digits+1] != '*' {
		return s, fmt.Errorf("found %.100q, wanted 64 hex digits, two spaces and a name", line)
	}
	if s.SHA256, err = ParseSPKI(line[:digits]); err != nil {
		return s, fmt.Errorf("found %q, wanted 64 small hex digits", line[:digits])
	}
	s.Name = line[digits+2:]
	return s, checkSumName(self, s.Name)
}

func checkSumName(self, name string) error {
	switch {
	case !fs.ValidPath(name) || name == "." || !utf8.ValidString(name) || strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("name %.100q: wanted a relative path with slashes, without \"..\", backslashes and control characters", name)
	case name == self || name == self+".asc" || slices.Contains(TokenFiles(self, []string{name}), name) || slices.Contains(TokenFiles(self+".asc", []string{name}), name):
		return fmt.Errorf("name %q: a list cannot hold itself or what is made of it", name)
	}
	return nil
}

// Bytes returns the list as a file.
func (s Sums) Bytes() []byte {
	var b bytes.Buffer
	for _, e := range s {
		fmt.Fprintf(&b, "%s  %s\n", e.Hex(), e.Name)
	}
	return b.Bytes()
}

// Lookup returns the digest of a file of the list.
func (s Sums) Lookup(name string) (Sum, bool) {
	i, found := slices.BinarySearchFunc(s, name, func(e Sum, n string) int { return strings.Compare(e.Name, n) })
	if !found {
		return Sum{}, false
	}
	return s[i], true
}

// IsEvidence says whether a file is evidence of others, by its name: a signature,
// a token or request of a timestamp, a list of digests. Evidence is made after
// what it is about, and is no artifact.
func IsEvidence(name string) bool {
	switch path.Ext(name) {
	case ".asc", ".sig", ".tsr", ".tsq", ".sha256":
		return true
	}
	return path.Base(name) == SumsFile
}

// Artifacts returns the files that patterns name, sorted. A pattern has elements
// as [path.Match] knows them, and "**" for any number of them. Evidence is no
// artifact, and .git is not looked into. A pattern that names nothing is an
// error, and so is one that names a link or a device: what is signed must be the
// bytes of a file that is there.
func Artifacts(files fs.FS, patterns []string) ([]string, error) {
	if len(patterns) == 0 {
		return nil, errors.New("no artifacts are named: give release.artifacts in remembrancer.yaml, such as dist/*.tar.gz")
	}
	found := map[string]fs.FileMode{}
	if err := fs.WalkDir(files, ".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case !d.IsDir() && !IsEvidence(p):
			found[p] = d.Type()
		}
		return nil
	}); err != nil {
		return nil, err
	}
	chosen := map[string]bool{}
	for _, pattern := range patterns {
		matched := false
		for _, p := range slices.Sorted(maps.Keys(found)) {
			ok, err := matches(strings.Split(pattern, "/"), strings.Split(p, "/"))
			switch {
			case err != nil:
				return nil, fmt.Errorf("pattern %q: %w", pattern, err)
			case !ok:
				continue
			case found[p] != 0:
				return nil, fmt.Errorf("artifact %s: is not a regular file", p)
			}
			matched, chosen[p] = true, true
		}
		if !matched {
			return nil, fmt.Errorf("no artifact is named by %s: %w: build it first, or remove the pattern", pattern, fs.ErrNotExist)
		}
	}
	return slices.Sorted(maps.Keys(chosen)), nil
}

// matches compares a path with a pattern, both by elements.
func matches(pattern, elements []string) (bool, error) {
	switch {
	case len(pattern) == 0:
		return len(elements) == 0, nil
	case pattern[0] == "**":
		if ok, err := matches(pattern[1:], elements); ok || err != nil || len(elements) == 0 {
			return ok, err
		}
		return matches(pattern, elements[1:])
	case len(elements) == 0:
		return false, nil
	}
	ok, err := path.Match(pattern[0], elements[0])
	if !ok || err != nil {
		return false, err
	}
	return matches(pattern[1:], elements[1:])
}

// SumUp computes the list of these files, which will be in the file self.
func SumUp(self string, files fs.FS, names []string) (Sums, error) {
	var s Sums
	for _, name := range slices.Compact(slices.Sorted(slices.Values(names))) {
		if err := checkSumName(self, name); err != nil {
			return nil, err
		}
		sum, err := sumOf(files, name)
		if err != nil {
			return nil, err
		}
		s = append(s, sum)
	}
	if len(s) == 0 {
		return nil, errors.New("no files to list")
	}
	return s, nil
}

func sumOf(files fs.FS, name string) (Sum, error) {
	info, err := fs.Lstat(files, name)
	if err != nil {
		return Sum{}, err
	}
	if !info.Mode().IsRegular() {
		return Sum{}, fmt.Errorf("%s: is not a regular file", name)
	}
	f, err := files.Open(name)
	if err != nil {
		return Sum{}, err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return Sum{}, fmt.Errorf("%s: %w", name, err)
	}
	return Sum{Name: name, SHA256: [sha256.Size]byte(h.Sum(nil))}, nil
}

// Difference is how files differ from a list, each sorted.
type Difference struct {
	Missing   []string // listed, and not there
	Differing []string // there with other bytes, or no regular file
	Unlisted  []string // there, and not listed
}

// None reports whether there is no difference.
func (d Difference) None() bool {
	return len(d.Missing) == 0 && len(d.Differing) == 0 && len(d.Unlisted) == 0
}

// Verify compares the files of a folder with the list: all that are there,
// whatever their names. A file that cannot be read is an error, not a
// difference.
func (s Sums) Verify(files fs.FS) (d Difference, err error) {
	for _, want := range s {
		got, err := sumOf(files, want.Name)
		info, statErr := fs.Lstat(files, want.Name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			d.Missing = append(d.Missing, want.Name)
		case err != nil && statErr == nil && !info.Mode().IsRegular(), err == nil && got != want:
			d.Differing = append(d.Differing, want.Name)
		case err != nil:
			return Difference{}, err
		}
	}
	err = fs.WalkDir(files, ".", func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		if _, listed := s.Lookup(p); !listed {
			d.Unlisted = append(d.Unlisted, p)
		}
		return nil
	})
	slices.Sort(d.Unlisted)
	return d, err
}
