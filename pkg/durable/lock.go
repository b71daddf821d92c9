package durable

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// lockPoll bounds how often a waiting Lock looks again. The kernels' own
// blocking calls cannot be interrupted by a context.
const (
	lockPollFirst = time.Millisecond
	lockPollMost  = 50 * time.Millisecond
)

// Lock waits until this Dir alone holds the directory, among all processes and
// all Dirs of this one, or until ctx is done. The error then wraps ctx.Err()
// and names the holder as far as the lock file tells. The returned function
// gives the lock back; calling it again does nothing.
//
// Lock is advisory: Put and Remove do not ask for it.
func (d *Dir) Lock(ctx context.Context) (unlock func(), err error) {
	wrap := func(err error) error {
		return fmt.Errorf("lock %s/%s: %w", d.root.Name(), LockName, err)
	}
	if err := d.alive(); err != nil {
		return nil, wrap(err)
	}
	fault := d.fault("lock", LockName)
	switch fault {
	case FailBefore:
		return nil, wrap(ErrInjected)
	case KillBefore:
		return nil, wrap(d.kill())
	}
	wait := lockPollFirst
	for {
		f, held, err := d.tryLock()
		if err != nil {
			return nil, wrap(err)
		}
		if !held {
			return d.locked(f, fault, wrap)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, wrap(fmt.Errorf("held by %s: %w", d.holder(), ctx.Err()))
		case <-timer.C:
			wait = min(2*wait, lockPollMost)
		}
	}
}

// locked notes the new holder, in the file for people and in d for kill.
func (d *Dir) locked(f *os.File, fault Fault, wrap func(error) error) (func(), error) {
	// The note is for the error message of those who wait; it is not synced
	// and nothing depends on it.
	host, err := os.Hostname()
	if err != nil {
		host = "unknown host"
	}
	if err := f.Truncate(0); err == nil {
		_, _ = f.WriteAt(fmt.Appendf(nil, "process %d on %s\n", os.Getpid(), host), 0)
	}
	d.mu.Lock()
	d.held = f
	d.mu.Unlock()
	unlock := func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.held == io.Closer(f) {
			d.releaseLocked()
		}
	}
	switch fault {
	case FailAfter:
		unlock()
		return nil, wrap(ErrInjected)
	case KillAfter:
		return nil, wrap(d.kill())
	}
	return unlock, nil
}

// tryLock opens and locks the file, or reports that somebody else holds it.
func (d *Dir) tryLock() (f *os.File, held bool, err error) {
	if info, err := d.root.Lstat(LockName); err == nil && info.Mode()&fs.ModeType != 0 {
		return nil, false, fmt.Errorf("is a %s, wanted a regular file", kind(info.Mode()))
	}
	return lockFile(d.root)
}

// holder reads who wrote the lock file last.
func (d *Dir) holder() string {
	f, err := d.root.Open(LockName)
	if err != nil {
		return "another process"
	}
	defer f.Close()
	buf := make([]byte, 256)
	n, _ := f.Read(buf)
	line, _, _ := strings.Cut(string(buf[:n]), "\n")
	if line == "" {
		return "another process"
	}
	return line
}
