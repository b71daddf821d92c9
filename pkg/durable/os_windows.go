package durable

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// errorSharingViolation is ERROR_SHARING_VIOLATION: somebody has the file open
// in a way that excludes ours.
const errorSharingViolation syscall.Errno = 32

// lockFile opens the lock file for writing while allowing others only to read
// it. A second opening for writing fails until the first handle is closed, by
// its owner or by the kernel.
func lockFile(root *os.Root) (f *os.File, held bool, err error) {
	name := filepath.Join(root.Name(), LockName)
	p, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, false, err
	}
	h, err := syscall.CreateFile(p, syscall.GENERIC_READ|syscall.GENERIC_WRITE,
		syscall.FILE_SHARE_READ, nil, syscall.OPEN_ALWAYS, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	if errors.Is(err, errorSharingViolation) {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(h), name), false, nil
}

// syncDir does nothing: Windows has no call for it.
func syncDir(*os.Root) error { return nil }
