// Package filelock locks files between processes with flock(2). The kernel releases a
// lock when the process ends, however it ends, so that no lock is ever stale.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// Limits of the time between two tries of [Wait]. Locks that are held for a moment are
// tried again soon, so that a waiter is not passed by processes that come later.
const (
	shortPoll = 5 * time.Millisecond  // in the first shortTime
	longPoll  = 50 * time.Millisecond // afterwards
	shortTime = 2 * time.Second
)

// NoLimit makes [Wait] wait until its context ends.
const NoLimit time.Duration = -1

// ErrHeld is returned for a file that another process has locked.
var ErrHeld = errors.New("locked by another process")

// Lock is a locked file.
type Lock struct{ file *flock.Flock }

// Try locks the file at path exclusively, or returns [ErrHeld]. It creates the file, and
// its directory with dirMode, where they are missing.
func Try(path string, dirMode fs.FileMode) (*Lock, error) {
	return lock(path, dirMode, (*flock.Flock).TryLock)
}

// block is [Try] that waits in the kernel until the file is unlocked.
func block(path string, dirMode fs.FileMode) (*Lock, error) {
	return lock(path, dirMode, func(file *flock.Flock) (bool, error) {
		err := file.Lock()
		return err == nil, err
	})
}

// lock locks the file at path with a call of take, or returns [ErrHeld] if that reports
// false.
func lock(path string, dirMode fs.FileMode, take func(*flock.Flock) (bool, error)) (*Lock, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
			return nil, err
		}
		file := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
		locked, err := take(file)
		switch {
		case errors.Is(err, syscall.EINTR), errors.Is(err, fs.ErrNotExist) && isMissing(filepath.Dir(path)): // its holder removed the directory too
			continue
		case err != nil:
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		case !locked:
			return nil, ErrHeld
		}
		// The process that held it may have removed the file: a lock on a file without
		// a name excludes nobody.
		mine, err := file.Stat()
		if err == nil {
			if named, err := os.Stat(path); err == nil && os.SameFile(mine, named) {
				return &Lock{file}, nil
			}
		}
		_ = file.Close()
	}
}

func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Wait is [Try] that waits until the file is unlocked, but no longer than limit; then it
// returns [ErrHeld]. If ctx ends first, it returns the cause. waiting, if not nil, is
// called once, a moment after the first try failed.
func Wait(ctx context.Context, path string, dirMode fs.FileMode, limit time.Duration, waiting func()) (*Lock, error) {
	start := time.Now()
	for tries := 0; ; tries++ {
		l, err := Try(path, dirMode)
		if !errors.Is(err, ErrHeld) {
			return l, err
		}
		if tries == 1 && waiting != nil {
			waiting()
		}
		if ctx.Done() == nil && limit < 0 && (tries > 0 || waiting == nil) {
			return block(path, dirMode)
		}
		pause := pollPause(time.Since(start))
		if limit >= 0 {
			left := limit - time.Since(start)
			if left <= 0 {
				return nil, err
			}
			pause = min(pause, left)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// pollPause returns a random time until the next try, so that several waiters do not try
// at the same time.
func pollPause(waited time.Duration) time.Duration {
	longest := shortPoll
	if waited > shortTime {
		longest = longPoll
	}
	return longest/2 + rand.N(longest/2) //nolint:gosec // no secret
}

// Held reports whether another process has locked the file at path, exclusively. It
// creates nothing.
func Held(path string) bool {
	file := flock.New(path, flock.SetFlag(os.O_RDONLY))
	locked, err := file.TryRLock()
	_ = file.Close()
	return err == nil && !locked
}

// Close unlocks the file.
func (l *Lock) Close() error { return l.file.Close() }

// Remove removes the file and unlocks it. The file is removed first, so that the file of
// another process is never removed.
func (l *Lock) Remove() error { return errors.Join(os.Remove(l.file.Path()), l.file.Close()) }

// Unsupported reports whether err is a failure to lock because the file system has no
// locks, as some that are mounted over a network.
func Unsupported(err error) bool {
	return errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}
