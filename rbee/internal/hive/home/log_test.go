package home

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

func TestRotateLogs(t *testing.T) {
	t.Parallel()
	h := &Dir{Root: t.TempDir()}
	content := bytes.Repeat([]byte("a line\n"), MaxLogSize/7+1)
	if err := errors.Join(os.Mkdir(h.Path(wire.LogsDir), 0o700), os.WriteFile(h.Path(LogFile), content, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); h.RotateLogs(ctx, time.Millisecond, slog.New(slog.DiscardHandler)) }()
	waittest.Until(t, "RotateLogs() has rotated "+LogFile, func() bool {
		info, err := os.Stat(h.Path(LogFile))
		return err == nil && info.Size() < MaxLogSize
	})
	cancel()
	<-done
	old, err := os.Stat(h.Path(OldLogFile))
	if err != nil {
		t.Fatal(err)
	}
	if old.Size() < MaxLogSize {
		t.Errorf("after RotateLogs(), %s has %d bytes, want at least %d", OldLogFile, old.Size(), MaxLogSize)
	}
}
