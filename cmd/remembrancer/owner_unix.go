//go:build unix

package main

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// giveToOwnerOf makes the owner of one directory the owner of a file. Without
// the right to do so, or without the directory, the file stays as it is.
func giveToOwnerOf(dir, file string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if err := os.Lchown(file, int(owner.Uid), int(owner.Gid)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
