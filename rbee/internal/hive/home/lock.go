package home

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// minLockWait is the shortest time that Lock waits, even if the caller asks for less.
const minLockWait = 50 * time.Millisecond

// lockInfo is the content of the lock file: it identifies the owner of the lock.
type lockInfo struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	PID   int       `json:"pid"`
}

// LockedError reports that another run holds the lock.
type LockedError struct{ By wire.Waiting }

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("locked by %s since %s", e.By.Holder, e.By.Since.Format(time.RFC3339))
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *LockedError) ErrorCode() string { return string(operations.ReasonLocked) }

// Lock acquires the lock of the home for owner, and waits for it at most for wait. If
// another process holds the lock, Lock calls waiting once, unless that is nil. The kernel
// releases the lock when the process exits. After wait, the error is a *[LockedError].
func (d *Dir) Lock(ctx context.Context, owner string, wait time.Duration, waiting func(wire.Waiting)) (io.Closer, error) {
	// A child process that the previous owner is starting holds the lock too, from fork
	// until exec, so wait for at least minLockWait.
	path := d.Path(wire.LockFile)
	l, err := filelock.Wait(ctx, path, 0o755, max(wait, minLockWait), func() {
		if waiting != nil {
			waiting(d.lockHolder()) // by now, the owner has written its name
		}
	})
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return nil, &LockedError{d.lockHolder()}
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("waiting for the lock: %w", err)
	case err != nil:
		return nil, fmt.Errorf("taking the lock: %w", err)
	}
	return l, writeHolder(path, owner)
}

// writeHolder writes the owner of the lock into the lock file. It overwrites the file in
// place, because the file itself is locked.
func writeHolder(path, owner string) error {
	body, err := json.Marshal(lockInfo{owner, time.Now().UTC(), os.Getpid()})
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o600)
}

// lockHolder returns the owner of the lock, as far as the lock file is readable.
func (d *Dir) lockHolder() wire.Waiting {
	var by lockInfo
	if err := atomicfile.ReadJSON(d.Path(wire.LockFile), &by); err != nil || by.Owner == "" {
		by.Owner = "an unknown process"
		if by.PID != 0 {
			by.Owner = fmt.Sprintf("process %d", by.PID)
		}
	}
	return wire.Waiting{Holder: by.Owner, Since: by.Since}
}
