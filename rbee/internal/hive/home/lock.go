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

// minLockWait is the minimum time for which Lock waits, even if the caller sets a shorter
// one.
const minLockWait = 50 * time.Millisecond

// lockInfo is the content of the lock file: it identifies the holder of the lock.
type lockInfo struct {
	Owner string    `json:"owner"`
	Since time.Time `json:"since"`
	PID   int       `json:"pid"`
}

// LockedError reports that another process holds the lock.
type LockedError struct{ By wire.LockInfo }

// Error implements error.
func (e *LockedError) Error() string {
	return fmt.Sprintf("locked by %s since %s", e.By.Holder, e.By.Since.Format(time.RFC3339))
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *LockedError) ErrorCode() string { return string(operations.ReasonLocked) }

// Lock acquires the lock of the rbee directory for owner. If another process holds the lock,
// Lock calls onWait once, unless onWait is nil, and waits at most for the duration wait. If
// the lock is still not free, the error is a *[LockedError]. The kernel releases the lock
// when the process exits.
func (d *Dir) Lock(ctx context.Context, owner string, wait time.Duration, onWait func(wire.LockInfo)) (io.Closer, error) {
	// A child process of the previous holder also holds the lock between fork and exec, so
	// wait for at least minLockWait.
	path := d.Path(wire.LockFile)
	l, err := filelock.Wait(ctx, path, 0o755, max(wait, minLockWait), func() {
		if onWait != nil {
			onWait(d.lockHolder()) // the holder has already written the lock file
		}
	})
	switch {
	case errors.Is(err, filelock.ErrLocked):
		return nil, &LockedError{d.lockHolder()}
	case err != nil:
		return nil, fmt.Errorf("cannot acquire the lock: %w", err)
	}
	return l, writeHolder(path, owner)
}

// writeHolder writes the holder of the lock into the lock file. It overwrites the file in
// place, because the file itself is locked.
func writeHolder(path, owner string) error {
	body, err := json.Marshal(lockInfo{owner, time.Now().UTC(), os.Getpid()})
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o600)
}

// lockHolder returns the holder of the lock according to the lock file. If the file contains
// no owner, lockHolder returns the PID, or "an unknown process", as the owner.
func (d *Dir) lockHolder() wire.LockInfo {
	var info lockInfo
	if err := atomicfile.ReadJSON(d.Path(wire.LockFile), &info); err != nil || info.Owner == "" {
		info.Owner = "an unknown process"
		if info.PID != 0 {
			info.Owner = fmt.Sprintf("process %d", info.PID)
		}
	}
	return wire.LockInfo{Holder: info.Owner, Since: info.Since}
}
