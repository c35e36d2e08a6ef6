package workers

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

const (
	tailLines    = 20       // of a log, in reports on workers that failed
	maxLog       = 5 << 20  // bytes, beyond which a log is begun anew; the old one is kept once
	tailBytes    = 64 << 10 // of a log are looked at for its last lines in reports
	defaultLines = 100      // of a log, where none are asked for
	logChunk     = 32 << 10 // bytes in one event
)

// openLog opens a worker's log for its process, which appends: that makes it
// possible to cut the file while it writes.
func (m *Manager) openLog(id string) (*os.File, error) {
	if err := os.MkdirAll(m.o.Logs, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(m.logPath(id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// rotateLog moves what a large log holds to a second file. Its process has the
// file open, so the content goes and the file stays; lines that are written in
// between are lost.
func (m *Manager) rotateLog(id string) {
	path := m.logPath(id)
	info, err := os.Stat(path)
	if err != nil || info.Size() <= maxLog {
		return
	}
	if err := moveLog(path, m.oldLogPath(id)); err != nil {
		m.log.Warn("a worker's log cannot be rotated", "file", path, "error", err)
	}
}

func moveLog(from, to string) (err error) {
	src, err := os.Open(from) //nolint:gosec // a worker's log
	if err != nil {
		return err
	}
	defer src.Close()
	temp := to + ".new"
	dst, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600) //nolint:gosec // beside a worker's log
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	if err = errors.Join(err, dst.Close()); err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		return err
	}
	return os.Truncate(from, 0)
}

// logTail is the last lines of a worker's log, cleaned for reports.
func (m *Manager) logTail(id string, lines int) []string {
	f, err := os.Open(m.logPath(id))
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(0, info.Size()-tailBytes)
	data, err := io.ReadAll(io.NewSectionReader(f, from, tailBytes))
	if err != nil {
		return nil
	}
	text := strings.TrimRight(strings.ToValidUTF8(string(data), "?"), "\n")
	if text == "" {
		return nil
	}
	all := strings.Split(text, "\n")
	if from > 0 && len(all) > 1 {
		all = all[1:] // it may be half a line
	}
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		// A line that draws a progress bar over itself counts as it ends.
		line = strings.TrimRight(line, "\r")
		all[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}
	return all
}

// Logs gives the last lines of a worker's log in events, and with follow what is
// written from then on, until the worker has ended or ctx does.
func (m *Manager) Logs(ctx context.Context, op operations.WorkerProcessLogs, events operations.Handler) (*operations.WorkerLogsReport, error) {
	w, err := m.find(op.WorkerRef)
	if err != nil {
		return nil, err
	}
	if events == nil {
		events = func(operations.Event) {}
	}
	id := w.record().ID
	tell := func(text []byte) {
		for len(text) > 0 {
			n := min(len(text), logChunk)
			events(operations.Event{
				Time: time.Now(), Type: operations.EventLog, Hive: op.HiveID, Text: strings.ToValidUTF8(string(text[:n]), "?"),
			})
			text = text[n:]
		}
	}
	report := func() *operations.WorkerLogsReport {
		return &operations.WorkerLogsReport{ID: id, Path: m.logPath(id), State: w.record().State}
	}
	at, err := m.lastLines(id, op.Lines, tell)
	if err != nil || !op.Follow {
		return report(), err
	}
	for {
		r := w.record() // before the log: what it wrote last must not be missed
		if at, err = m.since(id, at, tell); err != nil {
			return report(), err
		}
		if r.ended() {
			return report(), nil
		}
		select {
		case <-ctx.Done():
			return report(), nil
		case <-m.ctx.Done():
			return report(), failure("the hive is stopping; ask again for the log of %s", id)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lastLines gives the last lines of both files of a log, and where the newer one ends.
func (m *Manager) lastLines(id string, lines int, tell func([]byte)) (end int64, err error) {
	now, err := readLog(m.logPath(id))
	if err != nil {
		return 0, err
	}
	end = int64(len(now))
	if lines == 0 {
		lines = defaultLines
	}
	data := now
	if lines < 0 || bytes.Count(now, []byte{'\n'}) < lines {
		old, err := readLog(m.oldLogPath(id))
		if err != nil {
			return 0, err
		}
		data = append(old, now...)
	}
	if lines > 0 {
		data = data[lastLineStart(data, lines):]
	}
	tell(data)
	return end, nil
}

// lastLineStart is where the last lines of data begin. An end of line at the very
// end begins no other line.
func lastLineStart(data []byte, lines int) int {
	at := len(bytes.TrimSuffix(data, []byte{'\n'}))
	for range lines {
		at = bytes.LastIndexByte(data[:at], '\n')
		if at < 0 {
			return 0
		}
	}
	return at + 1
}

func readLog(path string) ([]byte, error) {
	data, err := os.ReadFile(path) //nolint:gosec // a worker's log
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// since gives what a log has gained since it had at bytes.
func (m *Manager) since(id string, at int64, tell func([]byte)) (int64, error) {
	f, err := os.Open(m.logPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return at, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return at, err
	}
	if info.Size() < at {
		at = 0 // it was begun anew
	}
	data, err := io.ReadAll(io.NewSectionReader(f, at, info.Size()-at))
	tell(data)
	return at + int64(len(data)), err
}
