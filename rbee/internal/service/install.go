package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// fileManager is a [Manager] with a service file.
type fileManager interface {
	Manager

	// start does the same as Start, but uses text as the content of the service file.
	start(ctx context.Context, text string, auto bool) error
}

// Install starts the daemon with the service manager m, now and at each boot. It replaces
// an existing service of the same name. If Install fails, it restores and starts the
// previous service. Without a previous service, it removes the new one.
func (s *Service) Install(ctx context.Context, m Manager) error {
	previous, err := readServiceFile(m)
	if err != nil {
		return err
	}
	stopErr := m.Stop(ctx)
	if ctx.Err() != nil {
		return errors.Join(stopErr, context.Cause(ctx))
	}
	_, err = m.Start(ctx, true)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if fm, ok := m.(fileManager); ok && previous != "" {
		if restoreErr := fm.start(ctx, previous, true); restoreErr != nil {
			restoreErr = fmt.Errorf("cannot restart the previous service: %w", restoreErr)
			return errors.Join(err, stopErr, restoreErr)
		}
		return errors.Join(err, stopErr)
	}
	return errors.Join(err, stopErr, m.Remove(ctx))
}

// readServiceFile returns the content of the service file; empty if it does not exist.
func readServiceFile(m Manager) (string, error) {
	path, err := m.File()
	if err != nil || path == "" {
		return "", err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return string(text), err
}
