package repro

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vaultmesh/remembrancer/pkg/judge"
)

const (
	// maxExplained bounds the files that are read whole to name a difference,
	// in bytes. Larger ones are compared all the same; the difference is named
	// by its offset.
	maxExplained = 64 << 20
	// maxDigests bounds the digests listed as evidence.
	maxDigests = 100
)

// outputs are what one build made. Files are opened below root only: a link
// does not lead the comparison elsewhere.
type outputs struct {
	root  *os.Root
	paths []string // sorted
	files map[string]output
}

type output struct {
	link       string // where it leads; empty for a file
	executable bool
	size       int64
	sum        [sha256.Size]byte // right after the build: what changed since was not built
}

// collect finds the files and links that match the patterns.
func collect(dir string, patterns []string, commit []node, src Source) (_ *outputs, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	o := &outputs{root: root, files: map[string]output{}}
	defer func() {
		if err != nil {
			root.Close()
		}
	}()
	matched := make([]bool, len(patterns))
	err = fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return nil
		}
		found := false
		for i, pattern := range patterns {
			if matches(strings.Split(pattern, "/"), strings.Split(p, "/")) {
				found, matched[i] = true, true
			}
		}
		if !found {
			return nil
		}
		f, err := o.read(p, d.Type())
		if err != nil {
			return err
		}
		o.paths = append(o.paths, p)
		o.files[p] = f
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i, ok := range matched {
		if !ok {
			return nil, fmt.Errorf("it made nothing that matches %q: wanted a pattern of files, such as %q", patterns[i], path.Join(strings.TrimSuffix(patterns[i], "/**"), "**"))
		}
	}
	made, err := o.made(commit, src)
	if err != nil {
		return nil, err
	}
	if !made {
		return nil, fmt.Errorf("it made nothing: all that matches %s is in the commit already", strings.Join(patterns, ", "))
	}
	slices.Sort(o.paths)
	return o, nil
}

func (o *outputs) read(p string, kind fs.FileMode) (output, error) {
	switch {
	case kind&fs.ModeSymlink != 0:
		target, err := o.root.Readlink(p)
		if err != nil {
			return output{}, err
		}
		f := output{link: target}
		if filepath.IsAbs(target) {
			return f, nil // it is the same place for both builds, or the text differs
		}
		info, err := o.root.Stat(p)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && !info.Mode().IsRegular():
			return f, nil
		case err != nil:
			return output{}, fmt.Errorf("%s leads to %s, out of the checkout: what is there cannot be compared", show(p), show(target))
		}
		return o.sum(p, f)
	case kind.IsRegular():
		return o.sum(p, output{})
	}
	return output{}, fmt.Errorf("%s is a %s: wanted a file", show(p), kind)
}

func (o *outputs) sum(p string, f output) (output, error) {
	file, err := o.root.Open(p)
	if err != nil {
		return output{}, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return output{}, err
	}
	h := sha256.New()
	if f.size, err = io.Copy(h, file); err != nil {
		return output{}, err
	}
	h.Sum(f.sum[:0])
	f.executable = info.Mode()&0o100 != 0
	return f, nil
}

// made reports whether any output is not in the commit as it is.
func (o *outputs) made(commit []node, src Source) (bool, error) {
	was := map[string]fs.FileMode{}
	for _, n := range commit {
		was[n.path] = n.mode
	}
	for p, f := range o.files {
		mode, ok := was[p]
		if !ok || (mode&fs.ModeSymlink != 0) != (f.link != "") {
			return true, nil
		}
		if f.link != "" {
			continue
		}
		data, err := src.Blob(p)
		if err != nil {
			return false, err
		}
		if sha256.Sum256(data) != f.sum {
			return true, nil
		}
	}
	return false, nil
}

// matches matches a path with a pattern, both by elements. "a/**" matches "a"
// too: it may be a link in place of the folder.
func matches(pattern, elements []string) bool {
	switch {
	case len(pattern) == 0:
		return len(elements) == 0
	case pattern[0] == "**":
		return matches(pattern[1:], elements) || len(elements) > 0 && matches(pattern, elements[1:])
	case len(elements) == 0:
		return false
	}
	ok, err := path.Match(pattern[0], elements[0])
	return err == nil && ok && matches(pattern[1:], elements[1:])
}

// compare compares what the two builds made.
func compare(p Plan, a, b *side) (judge.Check, error) {
	paths := slices.Concat(a.outputs.paths, b.outputs.paths)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	var (
		findings []judge.Finding
		digests  []string
		all      = sha256.New()
		total    int64
	)
	for _, name := range paths {
		fa, inA := a.outputs.files[name]
		fb, inB := b.outputs.files[name]
		var f judge.Finding
		var err error
		switch {
		case !inB:
			f = judge.Finding{Message: show(name) + ": only the first build made it", Fix: fixes[causeUnknown]}
		case !inA:
			f = judge.Finding{Message: show(name) + ": only the second build made it", Fix: fixes[causeUnknown]}
		case fa.link != fb.link:
			w := newClues(a, b)
			c := w.of([]byte(fa.link), []byte(fb.link), firstOffset([]byte(fa.link), []byte(fb.link)))
			f = judge.Finding{Message: fmt.Sprintf("%s: leads to %s in the first build, to %s in the second%s", show(name), show(fa.link), show(fb.link), c.says()), Fix: fixes[c]}
			if fa.link == "" || fb.link == "" {
				f.Message = show(name) + ": a link in one build, a file in the other"
			}
		case fa.executable != fb.executable:
			which := a
			if fb.executable {
				which = b
			}
			f = judge.Finding{Message: fmt.Sprintf("%s: executable in the %s build only%s", show(name), which.name, causeUmask.says()), Fix: fixes[causeUmask]}
		default:
			var same bool
			same, f, err = compareFile(a, b, name)
			if err != nil {
				return judge.Check{}, err
			}
			if same {
				total += fa.size
				line := fmt.Sprintf("sha256:%s %s", hex.EncodeToString(fa.sum[:]), show(name))
				fmt.Fprintf(all, "%s\n", line)
				digests = append(digests, line)
				continue
			}
		}
		findings = append(findings, f)
	}
	if extra := len(findings) - maxFindings; extra > 0 {
		findings = append(findings[:maxFindings], judge.Finding{Message: fmt.Sprintf("and %d outputs more differ", extra)})
	}
	detail := fmt.Sprintf("%s, twice, with SOURCE_DATE_EPOCH=%d: %d outputs, %d bytes, equal; different were %s", p.Command.line(), p.Epoch.Unix(), len(paths), total, varied)
	if len(findings) > 0 {
		detail = fmt.Sprintf("%s, twice, with SOURCE_DATE_EPOCH=%d: %d of %d outputs are equal; different were %s", p.Command.line(), p.Epoch.Unix(), len(digests), len(paths), varied)
	}
	c := judge.Judged(buildID, buildClaim, detail, findings...)
	if len(findings) == 0 {
		if extra := len(digests) - maxDigests; extra > 0 {
			digests = append(digests[:maxDigests], fmt.Sprintf("and %d more; sha256:%s is of all these lines", extra, hex.EncodeToString(all.Sum(nil))))
		}
		c.Evidence = digests
	}
	return c, nil
}

// compareFile compares the bytes of an output that both builds made.
func compareFile(a, b *side, name string) (same bool, f judge.Finding, err error) {
	ra, err := a.outputs.root.Open(name)
	if err != nil {
		return false, f, err
	}
	defer ra.Close()
	rb, err := b.outputs.root.Open(name)
	if err != nil {
		return false, f, err
	}
	defer rb.Close()
	sumA, sumB := sha256.New(), sha256.New()
	ta, tb := io.TeeReader(ra, sumA), io.TeeReader(rb, sumB)
	at, same, err := firstDifference(ta, tb)
	if err != nil {
		return false, f, fmt.Errorf("%s: %w", show(name), err)
	}
	_, err1 := io.Copy(io.Discard, ta)
	_, err2 := io.Copy(io.Discard, tb)
	if err := errors.Join(err1, err2); err != nil {
		return false, f, fmt.Errorf("%s: %w", show(name), err)
	}
	for _, s := range []struct {
		*side
		sum []byte
	}{{a, sumA.Sum(nil)}, {b, sumB.Sum(nil)}} {
		if want := s.outputs.files[name].sum; !bytes.Equal(s.sum, want[:]) {
			return false, f, fmt.Errorf("%s: it changed after the %s build had ended", show(name), s.name)
		}
	}
	if same {
		return true, f, nil
	}
	fa, fb := a.outputs.files[name], b.outputs.files[name]
	var d difference
	if fa.size <= maxExplained && fb.size <= maxExplained {
		da, err1 := readAt(ra, 0, fa.size)
		db, err2 := readAt(rb, 0, fb.size)
		if err := errors.Join(err1, err2); err != nil {
			return false, f, fmt.Errorf("%s: %w", show(name), err)
		}
		d = newClues(a, b).explain(da, db)
	} else {
		from := max(0, at-around)
		da, err1 := readAt(ra, from, 2*around)
		db, err2 := readAt(rb, from, 2*around)
		if err := errors.Join(err1, err2); err != nil {
			return false, f, fmt.Errorf("%s: %w", show(name), err)
		}
		d = newClues(a, b).bytes(da, db, from)
	}
	return false, judge.Finding{Message: show(name) + ": " + d.String(), Fix: fixes[d.cause]}, nil
}

// readAt returns the n bytes at an offset, or as many as there are.
func readAt(f io.ReaderAt, from, n int64) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(f, from, n))
}

// firstDifference returns the offset of the first byte that differs, or at which
// one of the two ends, and whether there is none.
func firstDifference(a, b io.Reader) (at int64, same bool, err error) {
	ba, bb := bufio.NewReaderSize(a, 1<<16), bufio.NewReaderSize(b, 1<<16)
	for {
		pa, err := fill(ba)
		if err != nil {
			return at, false, err
		}
		pb, err := fill(bb)
		if err != nil {
			return at, false, err
		}
		n := min(len(pa), len(pb))
		i := firstOffset(pa[:n], pb[:n])
		switch {
		case i < n:
			return at + int64(i), false, nil
		case n == 0:
			return at, len(pa) == len(pb), nil
		}
		at += int64(n)
		_, _ = ba.Discard(n) // it is in the buffer
		_, _ = bb.Discard(n)
	}
}

// fill returns what is buffered, after reading if nothing is; nothing at the end.
func fill(r *bufio.Reader) ([]byte, error) {
	if _, err := r.Peek(1); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	p, _ := r.Peek(r.Buffered())
	return p, nil
}

// firstOffset is where two slices first differ, or where the shorter one ends.
func firstOffset(a, b []byte) int {
	n := min(len(a), len(b))
	// By blocks first: a byte at a time is slow where all is equal.
	const block = 4096
	i := 0
	for i+block <= n && bytes.Equal(a[i:i+block], b[i:i+block]) {
		i += block
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}
