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
	MaxLog   = 10 << 20    // the size in bytes beyond which a daemon begins a new log
	LogEvery = time.Minute // between two looks at its size
)

// RotateLogs begins a new log whenever the old one has become large, until ctx ends.
func (d *Dir) RotateLogs(ctx context.Context, every time.Duration, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if err := d.RotateLog(); err != nil {
			log.Warn("the log stays as it is", "error", err)
		}
	}
}

// RotateLog moves what a large log holds to hive.log.1. The file itself stays:
// whoever started this process opened it, to append, as its output. Lines that are
// written in the moment between are lost.
func (d *Dir) RotateLog() error {
	log, old := d.Path(LogFile), d.Path(OldLogFile)
	info, err := os.Stat(log)
	if errors.Is(err, fs.ErrNotExist) || (err == nil && info.Size() <= MaxLog) {
		return nil
	}
	if err == nil {
		atomicfile.RemoveTemp(old) // of a daemon that was killed here
		err = ReplaceWithCopy(log, old, 0o600)
	}
	if err == nil {
		err = os.Truncate(log, 0)
	}
	if err != nil {
		return fmt.Errorf("beginning a new log: %w", err)
	}
	return nil
}

// LogTail is the end of what the log has gained since it had size bytes.
func (d *Dir) LogTail(size int64) string {
	data, err := os.ReadFile(d.Path(LogFile))
	if err != nil {
		return ""
	}
	if int64(len(data)) < size {
		size = 0 // a new log was begun
	}
	lines := strings.Split(strings.TrimSpace(string(data[size:])), "\n")
	return strings.Join(lines[max(0, len(lines)-10):], "\n")
}
