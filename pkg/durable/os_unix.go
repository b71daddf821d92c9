//go:build unix && !solaris && !aix

package durable

import (
	"errors"
	"os"
	"syscall"
)

// lockFile takes an exclusive flock on the lock file without waiting. flock
// belongs to the open file, so two Dirs of one process exclude each other too.
func lockFile(root *os.Root) (f *os.File, held bool, err error) {
	f, err = root.OpenFile(LockName, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, false, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, false, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, true, nil
	}
	return nil, false, err
}

// syncDir makes the names in a directory durable.
func syncDir(dir *os.Root) error {
	f, err := dir.Open(".")
	if err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}
