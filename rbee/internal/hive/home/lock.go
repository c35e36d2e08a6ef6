package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// LockPoll is how often a held lock is tried again.
const LockPoll = 100 * time.Millisecond

// lockSettle is how long a lock is tried even if nobody wants to wait.
const lockSettle = 50 * time.Millisecond

// holder is what the one who holds the lock writes into its file.
type holder struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	PID   int       `json:"pid"`
}

// LockedError carries who has the lock that was not had in time.
type LockedError struct{ By wire.Waiting }

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("locked by %s since %s", e.By.Holder, e.By.Since.Format(time.RFC3339))
}

// WithLock does something while it holds the lock, as a request does.
func (d *Dir) WithLock(ctx context.Context, do func(context.Context) (note string, err error)) (note string, err error) {
	if err := d.Check(); err != nil {
		return "", err
	}
	lock, err := d.Lock(ctx, fmt.Sprintf("process %d on this machine", os.Getpid()), 30*time.Second, nil)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	return do(ctx)
}

// Lock takes the home's lock for owner, waiting no longer than wait. waiting, if
// not nil, is called once when another has it. The kernel frees the lock when
// the process ends, however it ends. The error is an *errLocked when time is up.
func (d *Dir) Lock(ctx context.Context, owner string, wait time.Duration, waiting func(wire.Waiting)) (io.Closer, error) {
	// A process that is just being made by one that let go of the lock holds it
	// for another moment, until it becomes a program of its own.
	deadline := time.Now().Add(max(wait, lockSettle))
	for tries := 0; ; tries++ {
		f, err := TryLock(d.Path(wire.LockFile))
		if err != nil {
			return nil, fmt.Errorf("taking the lock: %w", err)
		}
		if f != nil {
			return f, writeHolder(f, owner)
		}
		if tries == 1 && waiting != nil { // by now the holder has surely written who it is
			waiting(d.holder())
		}
		left := time.Until(deadline)
		if left <= 0 {
			return nil, &LockedError{d.holder()}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock: %w", context.Cause(ctx))
		case <-time.After(min(LockPoll, left)):
		}
	}
}

// TryLock returns the locked file, or nil when another process has it.
func TryLock(path string) (*os.File, error) {
	for {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // as other programs make theirs
			return nil, err
		}
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600) //nolint:gosec // the home's own file
		if err != nil {
			return nil, err
		}
		if err := flock(f); err != nil {
			_ = f.Close()
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, nil
			}
			return nil, err
		}
		// An uninstall removes the file while others wait for it. A lock on a
		// file without a name protects nothing.
		mine, err := f.Stat()
		if err == nil {
			if named, err := os.Stat(path); err == nil && os.SameFile(mine, named) {
				return f, nil
			}
		}
		_ = f.Close()
	}
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) //nolint:gosec // a descriptor fits
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func writeHolder(f *os.File, owner string) error {
	body, err := json.Marshal(holder{owner, time.Now().UTC(), os.Getpid()})
	if err != nil {
		return err
	}
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt(append(body, '\n'), 0)
	return err
}

// holder is who has the lock, as far as it can be read.
func (d *Dir) holder() wire.Waiting {
	var by holder
	if err := atomicfile.ReadJSON(d.Path(wire.LockFile), &by); err != nil || by.Owner == "" {
		by.Owner = "a process that did not say who it is"
		if by.PID != 0 {
			by.Owner = fmt.Sprintf("process %d", by.PID)
		}
	}
	return wire.Waiting{Holder: by.Owner, Since: by.Since}
}
