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

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *LockedError) ErrorCode() string { return string(operations.ReasonLocked) }

// Lock takes the home's lock for owner, waiting no longer than wait. waiting, if
// not nil, is called once when another has it. The kernel frees the lock when
// the process ends, however it ends. The error is an *[LockedError] when time is up.
func (d *Dir) Lock(ctx context.Context, owner string, wait time.Duration, waiting func(wire.Waiting)) (io.Closer, error) {
	// A process that is just being made by one that let go of the lock holds it
	// for another moment, until it becomes a program of its own.
	path := d.Path(wire.LockFile)
	l, err := filelock.Wait(ctx, path, 0o755, max(wait, lockSettle), func() {
		if waiting != nil {
			waiting(d.holder()) // who has surely written by now who it is
		}
	})
	switch {
	case errors.Is(err, filelock.ErrHeld):
		return nil, &LockedError{d.holder()}
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("waiting for the lock: %w", err)
	case err != nil:
		return nil, fmt.Errorf("taking the lock: %w", err)
	}
	return l, writeHolder(path, owner)
}

// writeHolder writes who has the lock into its file, in place: the file is what is locked.
func writeHolder(path, owner string) error {
	body, err := json.Marshal(holder{owner, time.Now().UTC(), os.Getpid()})
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(body, '\n'), 0o600)
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
