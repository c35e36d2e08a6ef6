package service

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// fileManager is a manager that runs what a file describes.
type fileManager interface {
	Manager

	// start is Start with the content of the service's file.
	start(ctx context.Context, text string, auto bool) error
}

// Install starts the daemon with the service manager m, also at each start of the
// machine, in the place of the same service if there is one. If that fails, the service
// that was there before is restored and started again; where there was none, nothing is
// left.
func (s *Service) Install(ctx context.Context, m Manager) error {
	previous, err := readServiceFile(m)
	if err != nil {
		return err
	}
	stopped := m.Stop(ctx)
	if ctx.Err() != nil {
		return errors.Join(stopped, context.Cause(ctx))
	}
	_, err = m.Start(ctx, true)
	if err == nil {
		return nil
	}
	ctx = context.WithoutCancel(ctx)
	if fm, ok := m.(fileManager); ok && previous != "" {
		if restoreErr := fm.start(ctx, previous, true); restoreErr != nil {
			restoreErr = fmt.Errorf("cannot start the previous service again: %w", restoreErr)
			return errors.Join(err, stopped, restoreErr)
		}
		return errors.Join(err, stopped)
	}
	return errors.Join(err, stopped, m.Remove(ctx))
}

// readServiceFile returns the content of the service's file; empty if there is none.
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
