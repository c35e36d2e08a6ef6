package home

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

const (
	MaxLogSize       = 10 << 20    // in bytes; RotateLog rotates a larger log
	LogCheckInterval = time.Minute // time between two checks of the log size
)

// RotateLogs calls [Dir.RotateLog] at each interval, until ctx ends.
func (d *Dir) RotateLogs(ctx context.Context, interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := d.RotateLog(); err != nil {
			log.Warn("cannot rotate log", "error", err)
		}
	}
}

// RotateLog copies a log larger than [MaxLogSize] to hive.log.1 and truncates the log. It
// does not rename the log, because the service manager keeps the file open for the output of
// the daemon. Lines that are written between the copy and the truncation are lost.
func (d *Dir) RotateLog() error {
	log, old := d.Path(LogFile), d.Path(OldLogFile)
	info, err := os.Stat(log)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() <= MaxLogSize) {
		return nil
	}
	if err == nil {
		atomicfile.RemoveTemp(old) // left by a daemon that was killed during the copy
		err = ReplaceWithCopy(log, old, 0o600)
	}
	if err == nil {
		err = os.Truncate(log, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot rotate the log: %w", err)
	}
	return nil
}

// LogTail returns the last lines of the log after the first size bytes, at most 10.
func (d *Dir) LogTail(size int64) string {
	data, err := os.ReadFile(d.Path(LogFile))
	if err != nil {
		return ""
	}
	if int64(len(data)) < size {
		size = 0 // the log was rotated
	}
	lines := strings.Split(strings.TrimSpace(string(data[size:])), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
