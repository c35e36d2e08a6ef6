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
	tailLines    = 20       // lines of the log in reports on failed workers
	maxLog       = 5 << 20  // bytes at which a log is rotated; one old file is kept
	tailBytes    = 64 << 10 // bytes read from the end of a log for reports
	defaultLines = 100      // lines of the log if the request sets no number
	logChunk     = 32 << 10 // maximum bytes of one log event

	// logCheckInterval is the time between checks of a log's size. It is short, because
	// a worker that writes continuously fills a disk quickly.
	logCheckInterval = time.Second
)

// openLog opens a worker's log for its process, in append mode so that the file can be
// truncated while the process writes.
func (m *Manager) openLog(id string) (*os.File, error) {
	if err := os.MkdirAll(m.o.Logs, 0o700); err != nil {
		return nil, err
	}
	return os.OpenFile(m.logPath(id), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}

// rotateLog moves the content of a log that exceeds the limit to the old log file. The
// process keeps the log open, so the file is copied and truncated. Lines written in
// between are lost. If the log has more than twice the limit, its first bytes are lost.
func (m *Manager) rotateLog(id string) {
	path := m.logPath(id)
	info, err := os.Stat(path)
	if err != nil || info.Size() <= m.maxLog {
		return
	}
	if err := moveLog(path, m.oldLogPath(id), max(0, info.Size()-2*m.maxLog), info.Size()); err != nil {
		m.log.Warn("cannot rotate worker log", "file", path, "error", err)
	}
}

// moveLog moves the bytes from start to end of a file to another file and truncates the
// first one. Unlike package atomicfile it does not flush the copy to disk.
func moveLog(from, to string, start, end int64) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	temp := to + ".new"
	dst, err := os.OpenFile(temp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, io.NewSectionReader(src, start, end-start)) // limited, because the file may still grow
	if err = errors.Join(err, dst.Close()); err != nil {
		_ = os.Remove(temp)
		return err
	}
	if err := os.Rename(temp, to); err != nil {
		return err
	}
	return os.Truncate(from, 0)
}

// logTail returns the last lines of a worker's log, cleaned for reports.
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
		all = all[1:] // the first line may be incomplete
	}
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		// Carriage returns overwrite a line, as progress bars do: keep the last version.
		line = strings.TrimRight(line, "\r")
		all[i] = line[strings.LastIndexByte(line, '\r')+1:]
	}
	return all
}

// Logs sends the last lines of a worker's log as events. With op.Follow it continues with
// new lines until the worker is in a final state or ctx ends.
func (m *Manager) Logs(ctx context.Context, op operations.WorkerProcessLogs, events operations.Handler) (*operations.WorkerLogsReport, error) {
	w, err := m.find(op.WorkerRef)
	if err != nil {
		return nil, err
	}
	if events == nil {
		events = func(operations.Event) {}
	}
	id := w.record().ID
	emit := func(text []byte) {
		events(operations.Event{
			Time: time.Now(), Type: operations.EventLog, Hive: op.HiveID, Text: strings.ToValidUTF8(string(text), "?"),
		})
	}
	report := func() *operations.WorkerLogsReport {
		return &operations.WorkerLogsReport{ID: id, Path: m.logPath(id), State: w.record().State}
	}
	at, err := m.emitLastLines(id, op.Lines, emit)
	if err != nil || !op.Follow {
		return report(), err
	}
	for {
		r := w.record() // read before the log, so that the last lines are not missed
		if at, err = m.emitNew(id, at, emit); err != nil {
			return report(), err
		}
		if r.isTerminal() {
			return report(), nil
		}
		select {
		case <-ctx.Done():
			return report(), nil
		case <-m.ctx.Done():
			return report(), failure(operations.ReasonStopping, id, "the hive daemon is stopping; request the log of %s again", id)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// emitLastLines passes the last lines of the old and the current log file to emit, and
// returns the size of the current file. It buffers at most logChunk bytes.
func (m *Manager) emitLastLines(id string, lines int, emit func([]byte)) (end int64, err error) {
	now, end, err := openLogFile(m.logPath(id))
	if err != nil {
		return 0, err
	}
	defer now.Close()
	old, oldEnd, err := openLogFile(m.oldLogPath(id))
	if err != nil {
		return 0, err
	}
	defer old.Close()
	var from, oldFrom int64 // by default the complete files
	if lines == 0 {
		lines = defaultLines
	}
	if lines > 0 {
		var missing int
		if from, missing, err = lastLineStart(now, end, lines); err != nil {
			return 0, err
		}
		if oldFrom, _, err = lastLineStart(old, oldEnd, missing); err != nil {
			return 0, err
		}
	}
	if _, err := emitRange(old, oldFrom, oldEnd, emit); err != nil {
		return 0, err
	}
	_, err = emitRange(now, from, end, emit)
	return end, err
}

// lastLineStart returns the offset of the last lines of a text of size bytes, and how many
// of the requested lines the text does not have. A newline at the end of the text does not
// start another line.
func lastLineStart(text io.ReaderAt, size int64, lines int) (start int64, missing int, err error) {
	if lines == 0 {
		return size, 0, nil
	}
	buf := make([]byte, logChunk)
	for offset := size; offset > 0; {
		chunk := buf[:min(offset, logChunk)]
		offset -= int64(len(chunk))
		switch n, err := text.ReadAt(chunk, offset); {
		case n == len(chunk):
		case errors.Is(err, io.EOF):
			return 0, 0, nil // the file was truncated
		default:
			return 0, 0, err
		}
		for i := len(chunk) - 1; i >= 0; i-- {
			at := offset + int64(i)
			if chunk[i] != '\n' || at == size-1 {
				continue
			}
			if lines--; lines == 0 {
				return at + 1, 0, nil
			}
		}
	}
	if size > 0 {
		lines-- // the first line has no newline before it
	}
	return 0, lines, nil
}

// emitRange passes a part of a text to emit in chunks, which end at a newline if they
// contain one. It returns the offset after the last chunk, which is less than end if the
// file was truncated.
func emitRange(text io.ReaderAt, start, end int64, emit func([]byte)) (at int64, err error) {
	buf := make([]byte, min(logChunk, max(0, end-start)))
	for at = start; at < end; {
		n, err := text.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
		if n == 0 {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return at, err
		}
		if line := bytes.LastIndexByte(buf[:n], '\n'); line >= 0 {
			n = line + 1
		}
		emit(buf[:n])
		at += int64(n)
	}
	return at, nil
}

// logFile is an open log file. File is nil if the log file does not exist.
type logFile struct{ *os.File }

func openLogFile(path string) (f logFile, size int64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return logFile{}, 0, nil
	}
	if err != nil {
		return logFile{}, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return logFile{}, 0, err
	}
	return logFile{file}, info.Size(), nil
}

// Close closes the file, if any.
func (f logFile) Close() {
	if f.File != nil {
		_ = f.File.Close() // read-only
	}
}

// emitNew passes the content of a log after the offset at to emit, and returns the new
// offset.
func (m *Manager) emitNew(id string, at int64, emit func([]byte)) (int64, error) {
	f, size, err := openLogFile(m.logPath(id))
	if err != nil {
		return at, err
	}
	defer f.Close()
	if size < at {
		at = 0 // the log was rotated
	}
	return emitRange(f, at, size, emit)
}
