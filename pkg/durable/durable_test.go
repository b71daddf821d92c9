package durable

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"gotest.tools/v3/assert"
)

// The test binary is also the other process: with DURABLE_TEST_CHILD set it
// locks or writes a directory instead of running tests.
func TestMain(m *testing.M) {
	if role, dir, ok := strings.Cut(os.Getenv("DURABLE_TEST_CHILD"), "="); ok {
		child(role, dir)
		return
	}
	os.Exit(m.Run())
}

func child(role, path string) {
	d, err := OpenDir(path)
	if err != nil {
		panic(err)
	}
	switch role {
	case "lock":
		if _, err := d.Lock(context.Background()); err != nil {
			panic(err)
		}
		fmt.Println("locked")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	case "write":
		for i := 0; ; i++ {
			if err := d.Put("a/state", state(i)); err != nil {
				panic(err)
			}
			if i == 5 {
				fmt.Println("writing")
			}
		}
	}
}

// state is a recognisable file body that is wrong if any part is missing.
func state(i int) []byte {
	return bytes.Repeat([]byte{byte('a' + i%26)}, 100_000)
}

func whole(data []byte) bool {
	return len(data) == 100_000 && bytes.Count(data, data[:1]) == len(data)
}

func startChild(t *testing.T, role, dir string) (*exec.Cmd, func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "DURABLE_TEST_CHILD="+role+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	assert.NilError(t, err)
	out, err := cmd.StdoutPipe()
	assert.NilError(t, err)
	assert.NilError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	assert.NilError(t, err)
	kill := sync.OnceFunc(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = in.Close()
	})
	t.Cleanup(kill)
	return cmd, kill
}

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := OpenDir(path)
	assert.NilError(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// tree lists every file below dir with its content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	assert.NilError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(p)
		files[filepath.ToSlash(name)] = string(data)
		return err
	}))
	return files
}

func TestPutReplacesWholeFilesAndLeavesNothingElse(t *testing.T) {
	root := t.TempDir()
	name := filepath.Join(root, "a", "b", "file")
	assert.NilError(t, Put(name, []byte("one"), 0o600))
	assert.NilError(t, Put(name, []byte("two"), 0o600))
	assert.NilError(t, Put(name, nil, 0o600))
	assert.NilError(t, Put(name, []byte("three"), 0o600))
	assert.DeepEqual(t, tree(t, root), map[string]string{"a/b/file": "three"})
	if runtime.GOOS != "windows" {
		info, err := os.Stat(name)
		assert.NilError(t, err)
		assert.Equal(t, info.Mode(), fs.FileMode(0o600))
	}
}

func TestPutTakesARelativeNameInTheWorkingDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	assert.NilError(t, Put("file", []byte("x"), 0o644))
	assert.NilError(t, Put("sub/file", []byte("y"), 0o644))
	assert.DeepEqual(t, tree(t, "."), map[string]string{"file": "x", "sub/file": "y"})
}

func TestPutRefusesWhatIsNotARegularFile(t *testing.T) {
	root := t.TempDir()
	target := filepath.Join(root, "target")
	assert.NilError(t, os.WriteFile(target, []byte("precious"), 0o644))
	link := filepath.Join(root, "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	dangling := filepath.Join(root, "dangling")
	assert.NilError(t, os.Symlink("nowhere", dangling))
	dir := filepath.Join(root, "dir")
	assert.NilError(t, os.Mkdir(dir, 0o755))

	assert.ErrorContains(t, Put(link, []byte("x"), 0o644), "link is a symbolic link, wanted a regular file")
	assert.ErrorContains(t, Put(dangling, []byte("x"), 0o644), "dangling is a symbolic link, wanted a regular file")
	assert.ErrorContains(t, Put(dir, []byte("x"), 0o644), "dir is a directory, wanted a regular file")
	assert.ErrorContains(t, Put(dir+string(filepath.Separator), []byte("x"), 0o644), "not the name of a file")
	assert.ErrorContains(t, Put(filepath.Join(target, "below"), []byte("x"), 0o644), "target is not a directory")

	data, err := os.ReadFile(target)
	assert.NilError(t, err)
	assert.Equal(t, string(data), "precious")
	entries, err := os.ReadDir(root)
	assert.NilError(t, err)
	assert.Equal(t, len(entries), 4)
}

func TestAFailedPutLeavesNoTemporary(t *testing.T) {
	root := t.TempDir()
	parent, err := os.OpenRoot(root)
	assert.NilError(t, err)
	defer parent.Close()
	// The name is too long for the file system, its shortened temporary is
	// not: everything up to the rename succeeds.
	long := strings.Repeat("n", 300)
	temp, err := writeTemp(parent, long, []byte("x"), 0o644)
	assert.NilError(t, err)
	assert.NilError(t, parent.Remove(temp))

	err = Put(filepath.Join(root, "dir", long), []byte("x"), 0o644)
	assert.Assert(t, err != nil)
	assert.DeepEqual(t, tree(t, root), map[string]string{})

	// A directory in the way appears after the check: only rename can tell.
	temp, err = writeTemp(parent, "busy", []byte("x"), 0o644)
	assert.NilError(t, err)
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "busy", "child"), 0o755))
	assert.Assert(t, show(parent, temp, "busy") != nil)
	assert.DeepEqual(t, tree(t, root), map[string]string{})
}

func TestDirKeepsToItsNames(t *testing.T) {
	root := t.TempDir()
	d := open(t, root)
	for _, name := range []string{
		"", ".", "..", "/etc/passwd", "../x", "a/../../x", "a/../x", "./a", "a//b", "a/", "a/./b",
		`a\b`, "a\x00b", "a\nb", LockName, ".x.1.durable-tmp", "a/.x.durable-tmp", "\xff",
	} {
		assert.Assert(t, d.Put(name, []byte("x")) != nil, "put %q", name)
		_, err := d.Get(name)
		assert.Assert(t, err != nil, "get %q", name)
		assert.Assert(t, d.Remove(name) != nil, "remove %q", name)
	}
	assert.DeepEqual(t, tree(t, root), map[string]string{})

	for _, name := range []string{"a", "log/00/01/02.jsonl", "deploy-1.receipt.AB.asc", ".hidden", "ünï"} {
		assert.NilError(t, d.Put(name, []byte(name)))
		data, err := d.Get(name)
		assert.NilError(t, err)
		assert.Equal(t, string(data), name)
	}
}

func TestDirRefusesSymbolicLinksOnTheWay(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	assert.NilError(t, os.WriteFile(filepath.Join(outside, "secret"), []byte("precious"), 0o644))
	assert.NilError(t, os.MkdirAll(filepath.Join(root, "real"), 0o755))
	assert.NilError(t, os.WriteFile(filepath.Join(root, "real", "file"), []byte("inside"), 0o644))
	assert.NilError(t, os.Symlink(outside, filepath.Join(root, "out")))
	assert.NilError(t, os.Symlink("real", filepath.Join(root, "in")))
	assert.NilError(t, os.Symlink("real/file", filepath.Join(root, "alias")))

	d := open(t, root)
	for _, name := range []string{"out/secret", "in/file"} {
		want := name[:strings.Index(name, "/")] + " is a symbolic link, wanted a directory"
		assert.ErrorContains(t, d.Put(name, []byte("x")), want)
		_, err := d.Get(name)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, d.Remove(name), want)
	}
	assert.ErrorContains(t, d.Put("alias", []byte("x")), "alias is a symbolic link, wanted a regular file")
	_, err := d.Get("alias")
	assert.ErrorContains(t, err, "alias is a symbolic link, wanted a regular file")
	assert.ErrorContains(t, d.Put("real/file/below", nil), "real/file is a file, wanted a directory")

	assert.DeepEqual(t, tree(t, outside), map[string]string{"secret": "precious"})
	assert.DeepEqual(t, tree(t, filepath.Join(root, "real")), map[string]string{"file": "inside"})

	assert.NilError(t, os.Symlink("real/file", filepath.Join(root, LockName)))
	_, err = d.Lock(t.Context())
	assert.ErrorContains(t, err, "is a symbolic link, wanted a regular file")
}

func TestGetAndRemoveSayWhatIsMissing(t *testing.T) {
	d := open(t, t.TempDir())
	_, err := d.Get("a/b")
	assert.ErrorIs(t, err, fs.ErrNotExist)
	_, err = d.Get("b")
	assert.ErrorIs(t, err, fs.ErrNotExist)
	assert.ErrorIs(t, d.Remove("b"), fs.ErrNotExist)

	assert.NilError(t, d.Put("b", []byte("x")))
	assert.NilError(t, d.Remove("b"))
	_, err = d.Get("b")
	assert.ErrorIs(t, err, fs.ErrNotExist)

	_, err = OpenDir(filepath.Join(t.TempDir(), "absent"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
	created, err := CreateDir(filepath.Join(t.TempDir(), "p", "q"))
	assert.NilError(t, err)
	assert.NilError(t, created.Put("x", nil))
	assert.NilError(t, created.Close())
}

func TestEachFaultLeavesOldOrNewAndARetryMendsIt(t *testing.T) {
	cases := []struct {
		fault Fault
		want  error
		after string // what the next process reads
		torn  bool   // whether a stray temporary is left
	}{
		{NoFault, nil, "new", false},
		{FailBefore, ErrInjected, "old", false},
		{FailAfter, ErrInjected, "new", false},
		{KillBefore, ErrKilled, "old", true},
		{KillAfter, ErrKilled, "new", false},
	}
	for _, c := range cases {
		t.Run(fmt.Sprint(int(c.fault)), func(t *testing.T) {
			root := t.TempDir()
			d := open(t, root)
			assert.NilError(t, d.Put("a/file", []byte("old")))
			armed := true
			d.Fault = func(op, name string) Fault {
				if !armed || op != "put" || name != "a/file" {
					return NoFault
				}
				armed = false
				return c.fault
			}
			_, err := d.Lock(t.Context())
			assert.NilError(t, err)

			err = d.Put("a/file", []byte("new"))
			if c.want == nil {
				assert.NilError(t, err)
			} else {
				assert.ErrorIs(t, err, c.want)
			}
			if errors.Is(c.want, ErrKilled) {
				_, err = d.Get("a/file")
				assert.ErrorIs(t, err, ErrKilled)
				assert.ErrorIs(t, d.Put("other", nil), ErrKilled)
				_, err = d.Lock(t.Context())
				assert.ErrorIs(t, err, ErrKilled)
				_, err = d.Sweep()
				assert.ErrorIs(t, err, ErrKilled)
			}
			assert.NilError(t, d.Close())

			next := open(t, root)
			unlock, err := next.Lock(t.Context())
			assert.NilError(t, err)
			defer unlock()
			data, err := next.Get("a/file")
			assert.NilError(t, err)
			assert.Equal(t, string(data), c.after)
			swept, err := next.Sweep()
			assert.NilError(t, err)
			assert.Equal(t, len(swept) == 1, c.torn, "swept %q", swept)
			assert.NilError(t, next.Put("a/file", []byte("new")))
			files := tree(t, root)
			delete(files, LockName)
			assert.DeepEqual(t, files, map[string]string{"a/file": "new"})
		})
	}
}

func TestFaultsReachEveryOperation(t *testing.T) {
	root := t.TempDir()
	for _, c := range []struct {
		op, name string
		call     func(d *Dir) error
	}{
		{"get", "f", func(d *Dir) error { _, err := d.Get("f"); return err }},
		{"remove", "f", func(d *Dir) error { return d.Remove("f") }},
		{"lock", LockName, func(d *Dir) error { _, err := d.Lock(t.Context()); return err }},
	} {
		for fault, want := range map[Fault]error{
			FailBefore: ErrInjected, FailAfter: ErrInjected, KillBefore: ErrKilled, KillAfter: ErrKilled,
		} {
			assert.NilError(t, Put(filepath.Join(root, "f"), nil, 0o644))
			d := open(t, root)
			d.Fault = func(op, name string) Fault {
				assert.Equal(t, op, c.op)
				assert.Equal(t, name, c.name)
				return fault
			}
			assert.ErrorIs(t, c.call(d), want)
			_, err := os.Stat(filepath.Join(root, "f"))
			gone := c.op == "remove" && (fault == FailAfter || fault == KillAfter)
			assert.Equal(t, err != nil, gone, "%s %d", c.op, fault)

			// Whatever happened, the lock is free again.
			next := open(t, root)
			unlock, err := next.Lock(t.Context())
			assert.NilError(t, err)
			unlock()
		}
	}
}

func TestLockExcludesAndNamesTheHolder(t *testing.T) {
	root := t.TempDir()
	first, second := open(t, root), open(t, root)
	unlock, err := first.Lock(t.Context())
	assert.NilError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = second.Lock(ctx)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	assert.ErrorContains(t, err, filepath.ToSlash(filepath.Join(root, LockName)))
	assert.ErrorContains(t, err, fmt.Sprintf("held by process %d on ", os.Getpid()))
	_, err = first.Lock(ctx)
	assert.ErrorIs(t, err, context.DeadlineExceeded)

	unlock()
	again, err := second.Lock(t.Context())
	assert.NilError(t, err)
	unlock() // the first holder's second call must not free the second's lock
	ctx2, cancel2 := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel2()
	_, err = first.Lock(ctx2)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	again()

	// The same holds for two locks of one Dir.
	one, err := first.Lock(t.Context())
	assert.NilError(t, err)
	one()
	two, err := first.Lock(t.Context())
	assert.NilError(t, err)
	one()
	ctx3, cancel3 := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel3()
	_, err = second.Lock(ctx3)
	assert.ErrorIs(t, err, context.DeadlineExceeded)
	two()
}

func TestLockIsTakenFromADeadProcess(t *testing.T) {
	root := t.TempDir()
	cmd, kill := startChild(t, "lock", root)
	d := open(t, root)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := d.Lock(ctx)
	assert.ErrorContains(t, err, fmt.Sprintf("held by process %d on ", cmd.Process.Pid))

	kill()
	unlock, err := d.Lock(t.Context())
	assert.NilError(t, err)
	unlock()
}

func TestAKilledWriterLeavesAWholeFile(t *testing.T) {
	for range 3 {
		root := t.TempDir()
		_, kill := startChild(t, "write", root)
		d := open(t, root)
		for range 500 {
			data, err := d.Get("a/state")
			assert.NilError(t, err)
			assert.Assert(t, whole(data))
		}
		kill()
		data, err := d.Get("a/state")
		assert.NilError(t, err)
		assert.Assert(t, whole(data))
		_, err = d.Sweep()
		assert.NilError(t, err)
		assert.DeepEqual(t, tree(t, root), map[string]string{"a/state": string(data)})
	}
}

func TestLockSerialisesReadModifyWrite(t *testing.T) {
	root := t.TempDir()
	var wg sync.WaitGroup
	for range 8 {
		d := open(t, root)
		wg.Go(func() {
			for range 5 {
				unlock, err := d.Lock(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				data, err := d.Get("count")
				if err != nil && len(data) != 0 {
					t.Error(err)
				}
				if err := d.Put("count", append(data, 'x')); err != nil {
					t.Error(err)
				}
				unlock()
			}
		})
	}
	wg.Wait()
	d := open(t, root)
	data, err := d.Get("count")
	assert.NilError(t, err)
	assert.Equal(t, string(data), strings.Repeat("x", 40))
}

// FuzzNames holds the law that no name reaches outside the root or changes
// anything but the file it names.
func FuzzNames(f *testing.F) {
	for _, s := range []string{"a", "a/b", "../a", "/a", "a/../../b", `..\a`, "a\x00", ".durable-lock", "CON", "a:b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		base := t.TempDir()
		root := filepath.Join(base, "root")
		assert.NilError(t, os.Mkdir(root, 0o755))
		d, err := OpenDir(root)
		assert.NilError(t, err)
		defer d.Close()
		if err := d.Put(name, []byte("x")); err != nil {
			files := tree(t, base)
			assert.DeepEqual(t, files, map[string]string{})
			return
		}
		assert.DeepEqual(t, tree(t, base), map[string]string{"root/" + name: "x"})
		data, err := d.Get(name)
		assert.NilError(t, err)
		assert.Equal(t, string(data), "x")
		assert.Assert(t, !slices.Contains(strings.Split(name, "/"), ".."))
	})
}

func BenchmarkPut(b *testing.B) {
	d, err := OpenDir(b.TempDir())
	assert.NilError(b, err)
	data := make([]byte, 4096)
	for b.Loop() {
		assert.NilError(b, d.Put("log/00/00/01.jsonl", data))
	}
}
