// Package filelock locks files between processes with flock(2). The kernel releases a lock
// when its process exits for any reason, so locks cannot become stale.
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

// Maximum intervals at which [Wait] polls a lock. The interval is short at first, so that a
// process that started to wait later rarely acquires a briefly held lock first.
const (
	shortPollInterval = 5 * time.Millisecond  // during shortPollTime
	longPollInterval  = 50 * time.Millisecond // after shortPollTime
	shortPollTime     = 2 * time.Second       // counted from the start of Wait
)

// NoLimit makes [Wait] wait without a time limit.
const NoLimit time.Duration = -1

// ErrLocked reports that another process has locked a file.
var ErrLocked = errors.New("locked by another process")

// Lock is a locked file.
type Lock struct{ file *flock.Flock }

// Try locks the file at path exclusively. If another process has locked the file, Try returns
// [ErrLocked]. It creates the file and missing directories; dirMode is their mode.
func Try(path string, dirMode fs.FileMode) (*Lock, error) {
	return lock(path, dirMode, (*flock.Flock).TryLock)
}

// tryBlocking works like [Try], but waits in the kernel until the file is unlocked.
func tryBlocking(path string, dirMode fs.FileMode) (*Lock, error) {
	return lock(path, dirMode, func(file *flock.Flock) (bool, error) {
		err := file.Lock()
		return err == nil, err
	})
}

// lock locks the file at path with the function acquire. If acquire returns false, lock returns
// [ErrLocked].
func lock(path string, dirMode fs.FileMode, acquire func(*flock.Flock) (bool, error)) (*Lock, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(path), dirMode); err != nil {
			return nil, err
		}
		file := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
		locked, err := acquire(file)
		switch {
		case errors.Is(err, syscall.EINTR), errors.Is(err, fs.ErrNotExist) && isMissing(filepath.Dir(path)):
			continue // interrupted by a signal, or another process removed the directory
		case err != nil:
			return nil, fmt.Errorf("cannot lock %s: %w", path, err)
		case !locked:
			return nil, ErrLocked
		}
		// The previous holder may have removed the file. A lock on a removed file has no
		// effect on other processes.
		lockedInfo, err := file.Stat()
		if err == nil {
			if info, err := os.Stat(path); err == nil && os.SameFile(lockedInfo, info) {
				return &Lock{file}, nil
			}
		}
		_ = file.Close()
	}
}

// isMissing reports whether path does not exist.
func isMissing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// Wait works like [Try], but waits until the file is unlocked. It returns [ErrLocked] after limit,
// and the cause of ctx if ctx is done earlier. If Wait has to wait, it calls onWait once,
// unless onWait is nil.
func Wait(ctx context.Context, path string, dirMode fs.FileMode, limit time.Duration, onWait func()) (*Lock, error) {
	start := time.Now()
	for attempts := 0; ; attempts++ {
		l, err := Try(path, dirMode)
		if !errors.Is(err, ErrLocked) {
			return l, err
		}
		if attempts == 1 && onWait != nil { // the second attempt: a briefly held lock is not reported
			onWait()
		}
		if ctx.Done() == nil && limit < 0 && (attempts > 0 || onWait == nil) {
			return tryBlocking(path, dirMode)
		}
		pause := pollPause(time.Since(start))
		if limit >= 0 {
			remaining := limit - time.Since(start)
			if remaining <= 0 {
				return nil, err
			}
			pause = min(pause, remaining)
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// pollPause returns the pause before the next attempt. elapsed is the time since the start of
// [Wait]. The pause is random, which prevents simultaneous attempts of several processes.
func pollPause(elapsed time.Duration) time.Duration {
	interval := shortPollInterval
	if elapsed > shortPollTime {
		interval = longPollInterval
	}
	return interval/2 + rand.N(interval/2) //nolint:gosec // not a secret
}

// IsLocked reports whether another process has locked the file at path exclusively. It does not
// create the file.
func IsLocked(path string) bool {
	file := flock.New(path, flock.SetFlag(os.O_RDONLY))
	locked, err := file.TryRLock()
	_ = file.Close()
	return err == nil && !locked
}

// Close unlocks the file.
func (l *Lock) Close() error { return l.file.Close() }

// Remove removes the file and then unlocks it. In the opposite order, Remove could remove a
// file that another process has locked in the meantime.
func (l *Lock) Remove() error { return errors.Join(os.Remove(l.file.Path()), l.file.Close()) }

// Unsupported reports whether err is the error of a file system that does not support locks,
// such as some network file systems.
func Unsupported(err error) bool {
	return errors.Is(err, syscall.ENOLCK) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EOPNOTSUPP) || errors.Is(err, syscall.ENOSYS)
}
