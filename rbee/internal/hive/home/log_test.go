package home

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// A daemon that runs for long does not fill the disk with its log.
func TestLogRotatesWhileItRuns(t *testing.T) {
	t.Parallel()
	h := &Dir{Root: t.TempDir()}
	grown := bytes.Repeat([]byte("a line\n"), MaxLog/7+1)
	if err := errors.Join(os.Mkdir(h.Path(wire.LogsDir), 0o700), os.WriteFile(h.Path(LogFile), grown, 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); h.RotateLogs(ctx, time.Millisecond, slog.New(slog.DiscardHandler)) }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if info, err := os.Stat(h.Path(LogFile)); err == nil && info.Size() < MaxLog {
			break
		}
		if time.Now().After(end) {
			t.Fatal("a new log: it did not happen")
		}
	}
	cancel()
	<-ended
	if kept, err := os.Stat(h.Path(OldLogFile)); err != nil || kept.Size() < MaxLog {
		t.Errorf("the old one: %+v, %v", kept, err)
	}
}
