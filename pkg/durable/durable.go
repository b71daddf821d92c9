// Package durable writes files that survive a crash whole or not at all, and
// locks a directory between processes.
//
// # What Put promises
//
// When Put returns nil, the new bytes and the name that leads to them are on
// stable storage: the data was synced before the name pointed at it, and the
// directory that holds the name was synced afterwards. A reader at any moment,
// in this process, another one or after a crash, sees the old bytes or the new
// bytes, never a mixture and never an empty file. When Put returns an error the
// file holds the old bytes or the new bytes and the caller does not know which:
// it must read again, or Put again; Put is idempotent.
//
// The steps, and what a crash right after each one leaves:
//
//	create temporary   a stray temporary file, empty; the name is untouched
//	write              a stray temporary file, perhaps torn; the name is untouched
//	sync file          a stray temporary file, whole; the name is untouched
//	rename             the name shows the new bytes; after a power cut, old or new
//	sync directory     the name shows the new bytes, for good
//
// Nothing else touches the disk: one write, one sync of the file, one rename,
// one sync of the directory. Only when a directory has to be created, and the
// first time a Dir writes into a directory, are the directories above it synced
// as well, since a durable file under an unrecorded directory is not durable.
//
// A stray temporary is never read and never in the way. Its name starts with a
// dot and ends with ".durable-tmp"; after an error (as opposed to a crash) Put
// removes it. Dir.Sweep removes those a crash left.
//
// # Names
//
// A Dir takes slash-separated names below its root. It refuses absolute names,
// "..", empty elements, backslashes, control characters, and any name that
// passes through a symbolic link: neither the file nor a directory on the way
// to it may be one, checked on the opened directory and not only on its name,
// so exchanging a directory for a link at the wrong moment gains nothing.
//
// # Locks
//
// Dir.Lock takes an advisory lock (flock, or an exclusively opened file on
// Windows) on the file LockName in the root. The kernel drops it when the
// process ends, however it ends; the file itself stays, because removing a lock
// file lets two processes lock two different files of the same name. Locks are
// only as good as the file system: on network mounts ask its manual.
//
// # Platforms
//
// On macOS, Sync asks the drive to empty its own cache (F_FULLFSYNC). Windows
// cannot sync a directory; there the last step is the file system's business
// (NTFS journals renames), so after a power cut a completed Put may show the
// old bytes, though never torn ones.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// tempSuffix ends the name of every temporary file this package makes.
const tempSuffix = ".durable-tmp"

// LockName is the file in the root of a Dir that Lock locks.
const LockName = ".durable-lock"

// ErrInjected is returned when a Dir's Fault hook asks for a failure.
var ErrInjected = errors.New("injected fault")

// ErrKilled is returned when a Dir's Fault hook simulates the death of the
// process, and by every later call on the same Dir: the dead do not write. A
// test then opens the directory again, as the next process would.
var ErrKilled = errors.New("injected kill")

// A Fault says how one operation of a Dir goes wrong.
type Fault int

const (
	// NoFault lets the operation run.
	NoFault Fault = iota
	// FailBefore reports failure without having changed anything.
	FailBefore
	// FailAfter completes the operation durably, then reports failure.
	FailAfter
	// KillBefore stops as if the process died during the operation: nothing is
	// renamed or removed, and Put leaves a torn temporary file behind.
	KillBefore
	// KillAfter stops as if the process died right after the operation
	// completed, before it could tell anyone.
	KillAfter
)

// Put writes data to the file at path, as the package comment promises. A new
// file gets perm (before umask); an existing file is replaced by one with perm.
// Missing directories are created with 0o755 and recorded durably. The path may
// lead through symbolic links but must not end in one, nor in anything else
// that is not a regular file.
func Put(path string, data []byte, perm fs.FileMode) error {
	dir, base := filepath.Split(path)
	if base == "" || base == "." || base == ".." {
		return fmt.Errorf("put %q: not the name of a file", path)
	}
	if dir == "" {
		dir = "."
	}
	if err := makeDirs(filepath.Clean(dir)); err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	parent, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	defer parent.Close()
	if err := replace(parent, base, data, perm); err != nil {
		return fmt.Errorf("put %s: %w", path, err)
	}
	return nil
}

// makeDirs creates dir and what is missing above it, from the top down. Each
// new name is synced before anything is put below it, so a crash leaves a
// shorter path and never a path with a hole.
func makeDirs(dir string) error {
	info, err := os.Stat(dir)
	if err == nil {
		if !info.IsDir() {
			return fmt.Errorf("%s is not a directory", dir)
		}
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	up := filepath.Dir(dir)
	if up == dir {
		return err
	}
	if err := makeDirs(up); err != nil {
		return err
	}
	parent, err := os.OpenRoot(up)
	if err != nil {
		return err
	}
	defer parent.Close()
	return makeDir(parent, filepath.Base(dir))
}

// makeDir creates one directory and records it. If recording fails the
// directory is taken away again, for otherwise a retry would find it, take it
// for durable and promise what nobody kept.
func makeDir(parent *os.Root, base string) error {
	made := parent.Mkdir(base, 0o755)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return made
	}
	if err := syncDir(parent); err != nil {
		if made == nil {
			_ = parent.Remove(base)
		}
		return err
	}
	return nil
}

// replace is the sequence of the package comment, inside one directory.
func replace(parent *os.Root, base string, data []byte, perm fs.FileMode) error {
	if err := refuseSpecial(parent, base); err != nil {
		return err
	}
	temp, err := writeTemp(parent, base, data, perm)
	if err != nil {
		return err
	}
	return show(parent, temp, base)
}

// show gives a whole temporary file its name. A rename replaces a link rather
// than following it, so a link that appears after refuseSpecial has looked is
// lost, not obeyed.
func show(parent *os.Root, temp, base string) error {
	if err := parent.Rename(temp, base); err != nil {
		_ = parent.Remove(temp)
		return err
	}
	return syncDir(parent)
}

// writeTemp writes a whole, synced temporary file and returns its name. On
// failure no file is left.
func writeTemp(parent *os.Root, base string, data []byte, perm fs.FileMode) (name string, err error) {
	f, name, err := createTemp(parent, base, perm)
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = parent.Remove(name)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return "", err
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return name, f.Close()
}

func createTemp(parent *os.Root, base string, perm fs.FileMode) (*os.File, string, error) {
	// Long names are shortened: the temporary must not be the one that is
	// longer than the file system's 255 bytes. macOS wants valid UTF-8.
	stem := strings.ToValidUTF8(base[:min(len(base), 128)], "")
	for range 100 {
		name := fmt.Sprintf(".%s.%016x%s", stem, rand.Uint64(), tempSuffix)
		f, err := parent.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		return f, name, err
	}
	return nil, "", errors.New("no free name for a temporary file after 100 tries")
}

// refuseSpecial allows base to be absent or a regular file.
func refuseSpecial(parent *os.Root, base string) error {
	info, err := parent.Lstat(base)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is a %s, wanted a regular file", base, kind(info.Mode()))
	}
	return nil
}

// openRegular opens a file and makes sure that what it opened is the regular
// file it looked at. It looks first because opening a named pipe would wait for
// a writer, and again when a Put in between has replaced the file, which is no
// error of the reader's.
func openRegular(parent *os.Root, base string) (*os.File, error) {
	for range 100 {
		named, err := parent.Lstat(base)
		if err != nil {
			return nil, err
		}
		if !named.Mode().IsRegular() {
			return nil, fmt.Errorf("%s is a %s, wanted a regular file", base, kind(named.Mode()))
		}
		f, err := parent.Open(base)
		if err != nil {
			return nil, err
		}
		opened, err := f.Stat()
		if err == nil && os.SameFile(named, opened) {
			return f, nil
		}
		_ = f.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%s changed 100 times while it was opened", base)
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeSymlink != 0:
		return "symbolic link"
	case mode.IsDir():
		return "directory"
	case mode.IsRegular():
		return "file"
	default:
		return "special file"
	}
}

// A Dir is a directory of durable files. Its methods may be called from
// several goroutines; Puts of one name by several writers leave the bytes of
// one of them. Use Lock where more than that is needed.
type Dir struct {
	// Fault, when not nil, is asked before every operation what is to go wrong.
	// The operations are "put", "get", "remove" and "lock"; name is as the
	// caller gave it, or LockName. Only tests set it, before the first call.
	Fault func(op, name string) Fault

	root *os.Root

	// mu guards what follows.
	mu sync.Mutex
	// recorded holds the directories whose names this Dir knows to be on
	// stable storage, so that only the first Put below one pays for it.
	recorded map[string]bool
	held     io.Closer // the lock file, while locked
	dead     bool      // a simulated kill happened
}

// OpenDir opens an existing directory. The path itself may be or pass through
// a symbolic link: the caller chose it.
func OpenDir(path string) (*Dir, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, err
	}
	return &Dir{root: root, recorded: map[string]bool{".": true}}, nil
}

// CreateDir is OpenDir for a directory that may not exist yet: it is created,
// with what is missing above it, durably.
func CreateDir(path string) (*Dir, error) {
	if err := makeDirs(filepath.Clean(path)); err != nil {
		return nil, fmt.Errorf("create directory %s: %w", path, err)
	}
	return OpenDir(path)
}

// Close releases the directory and, if this Dir holds it, the lock.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.releaseLocked()
	return d.root.Close()
}

// Put writes a file with mode 0o644 (before umask), as the package comment
// promises. Missing directories are created.
func (d *Dir) Put(name string, data []byte) error {
	return d.do("put", name, func(parent *os.Root, base string) error {
		return replace(parent, base, data, 0o644)
	}, func(parent *os.Root, base string) {
		// What a process that died in the middle of its write leaves.
		if f, _, err := createTemp(parent, base, 0o644); err == nil {
			_, _ = f.Write(data[:len(data)/2])
			_ = f.Close()
		}
	})
}

// Get reads a file. A missing file is fs.ErrNotExist.
func (d *Dir) Get(name string) ([]byte, error) {
	var data []byte
	err := d.do("get", name, func(parent *os.Root, base string) error {
		f, err := openRegular(parent, base)
		if err != nil {
			return err
		}
		defer f.Close()
		data, err = io.ReadAll(f)
		return err
	}, nil)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// Remove deletes a file, durably. A missing file is fs.ErrNotExist. The
// directories above it stay.
func (d *Dir) Remove(name string) error {
	return d.do("remove", name, func(parent *os.Root, base string) error {
		if err := refuseSpecial(parent, base); err != nil {
			return err
		}
		// A crash between these two lines may bring the file back after a
		// power cut; once the directory is synced it is gone for good.
		if err := parent.Remove(base); err != nil {
			return err
		}
		return syncDir(parent)
	}, nil)
}

// Sweep removes the temporary files that crashed writers left anywhere below
// the root and returns their names. Call it only while holding the lock, and
// only if all writers hold it too: a temporary of a live writer looks the same.
func (d *Dir) Sweep() (removed []string, err error) {
	if err := d.alive(); err != nil {
		return nil, fmt.Errorf("sweep %s: %w", d.root.Name(), err)
	}
	err = fs.WalkDir(d.root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if !entry.Type().IsRegular() || !isTemp(entry.Name()) {
			return nil
		}
		if err := d.root.Remove(filepath.FromSlash(name)); err != nil {
			return err
		}
		removed = append(removed, name)
		return nil
	})
	if err != nil {
		return removed, fmt.Errorf("sweep %s: %w", d.root.Name(), err)
	}
	return removed, nil
}

func isTemp(base string) bool {
	return strings.HasPrefix(base, ".") && strings.HasSuffix(base, tempSuffix)
}

// do runs one operation in the directory that holds name, with the faults the
// hook asks for. torn makes the mess of a writer killed half-way.
func (d *Dir) do(op, name string, act func(parent *os.Root, base string) error, torn func(parent *os.Root, base string)) error {
	err := func() error {
		if err := d.alive(); err != nil {
			return err
		}
		elements, err := split(name)
		if err != nil {
			return err
		}
		fault := d.fault(op, name)
		if fault == FailBefore {
			return ErrInjected
		}
		parent, err := d.descend(elements[:len(elements)-1], op == "put")
		if err != nil {
			return err
		}
		defer parent.Close()
		base := elements[len(elements)-1]
		if fault == KillBefore {
			if torn != nil {
				torn(parent, base)
			}
			return d.kill()
		}
		if err := act(parent, base); err != nil {
			return err
		}
		switch fault {
		case FailAfter:
			return ErrInjected
		case KillAfter:
			return d.kill()
		}
		return nil
	}()
	if err != nil {
		return fmt.Errorf("%s %s in %s: %w", op, name, d.root.Name(), err)
	}
	return nil
}

// split checks a name and cuts it into its elements.
func split(name string) ([]string, error) {
	if !fs.ValidPath(name) || name == "." {
		return nil, fmt.Errorf("%q is not a clean relative slash path below the root", name)
	}
	for _, r := range name {
		if r == '\\' || r < ' ' || r == 0x7f {
			return nil, fmt.Errorf("%q holds %q, which names here may not", name, r)
		}
	}
	if _, err := filepath.Localize(name); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	if base := path.Base(name); name == LockName || isTemp(base) {
		return nil, fmt.Errorf("%q is reserved", name)
	}
	return strings.Split(name, "/"), nil
}

// descend opens the directory that elements name, one step at a time. Each
// step must be a real directory: what was looked at must be what was opened.
func (d *Dir) descend(elements []string, create bool) (*os.Root, error) {
	current, err := d.root.OpenRoot(".")
	if err != nil {
		return nil, err
	}
	for i, element := range elements {
		here := strings.Join(elements[:i+1], "/")
		next, err := d.step(current, element, here, create)
		_ = current.Close()
		if err != nil {
			return nil, err
		}
		current = next
	}
	return current, nil
}

func (d *Dir) step(current *os.Root, element, here string, create bool) (*os.Root, error) {
	info, err := current.Lstat(element)
	if errors.Is(err, fs.ErrNotExist) && create {
		if err := makeDir(current, element); err != nil {
			return nil, err
		}
		d.record(here)
		info, err = current.Lstat(element)
	}
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is a %s, wanted a directory", here, kind(info.Mode()))
	}
	next, err := current.OpenRoot(element)
	if err != nil {
		return nil, err
	}
	opened, err := next.Stat(".")
	if err == nil && !os.SameFile(info, opened) {
		err = fmt.Errorf("%s changed while it was opened", here)
	}
	// Another process may have made this directory and died before recording
	// it, so the first Put through it records it again.
	if err == nil && create && !d.isRecorded(here) {
		if err = syncDir(current); err == nil {
			d.record(here)
		}
	}
	if err != nil {
		_ = next.Close()
		return nil, err
	}
	return next, nil
}

func (d *Dir) record(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recorded[name] = true
}

func (d *Dir) isRecorded(name string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.recorded[name]
}

func (d *Dir) fault(op, name string) Fault {
	if d.Fault == nil {
		return NoFault
	}
	return d.Fault(op, name)
}

func (d *Dir) alive() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dead {
		return ErrKilled
	}
	return nil
}

// kill makes the Dir dead. The lock goes, as the kernel would take it.
func (d *Dir) kill() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dead = true
	d.releaseLocked()
	return ErrKilled
}

// releaseLocked drops the lock if this Dir holds it. The caller holds mu.
func (d *Dir) releaseLocked() {
	if d.held != nil {
		_ = d.held.Close()
		d.held = nil
	}
}
