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

	// logEvery is how often a log's size is looked at: one that is written to
	// without a pause fills a disk quickly.
	logEvery = time.Second
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
// between are lost, and so is the beginning of what grew to more than twice the
// limit.
func (m *Manager) rotateLog(id string) {
	path := m.logPath(id)
	info, err := os.Stat(path)
	if err != nil || info.Size() <= m.maxLog {
		return
	}
	if err := moveLog(path, m.oldLogPath(id), max(0, info.Size()-2*m.maxLog), info.Size()); err != nil {
		m.log.Warn("a worker's log cannot be rotated", "file", path, "error", err)
	}
}

// moveLog moves the bytes of a file between begin and end to another, and empties it. The
// copy is not flushed to disk, as package atomicfile does: the lines that are written
// meanwhile are lost.
func moveLog(from, to string, begin, end int64) (err error) {
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
	_, err = io.Copy(dst, io.NewSectionReader(src, begin, end-begin)) // it may grow faster than it is read
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
		events(operations.Event{
			Time: time.Now(), Type: operations.EventLog, Hive: op.HiveID, Text: strings.ToValidUTF8(string(text), "?"),
		})
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
			return report(), failure(operations.ReasonStopping, id, "the hive is stopping; ask again for the log of %s", id)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// lastLines gives the last lines of both files of a log, and where the newer one
// ends. No more of them is in memory at once than one piece.
func (m *Manager) lastLines(id string, lines int, tell func([]byte)) (end int64, err error) {
	now, end, err := openKept(m.logPath(id))
	if err != nil {
		return 0, err
	}
	defer now.Close()
	old, oldEnd, err := openKept(m.oldLogPath(id))
	if err != nil {
		return 0, err
	}
	defer old.Close()
	var from, oldFrom int64 // all that is kept
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
	if _, err := tellPart(old, oldFrom, oldEnd, tell); err != nil {
		return 0, err
	}
	_, err = tellPart(now, from, end, tell)
	return end, err
}

// lastLineStart is where the last lines of a text of size bytes begin, and how many
// of them it has not got. An end of line at the very end begins no other line.
func lastLineStart(text io.ReaderAt, size int64, lines int) (start int64, missing int, err error) {
	if lines == 0 {
		return size, 0, nil
	}
	buf := make([]byte, logChunk)
	for begin := size; begin > 0; {
		piece := buf[:min(begin, logChunk)]
		begin -= int64(len(piece))
		switch n, err := text.ReadAt(piece, begin); {
		case n == len(piece):
		case errors.Is(err, io.EOF):
			return 0, 0, nil // it was begun anew just now
		default:
			return 0, 0, err
		}
		for i := len(piece) - 1; i >= 0; i-- {
			at := begin + int64(i)
			if piece[i] != '\n' || at == size-1 {
				continue
			}
			if lines--; lines == 0 {
				return at + 1, 0, nil
			}
		}
	}
	if size > 0 {
		lines-- // the first one has no end of line before it
	}
	return 0, lines, nil
}

// tellPart gives a part of a text in pieces, cut at ends of lines where there are
// any, and tells how far it came: a file may have been cut in the meantime.
func tellPart(text io.ReaderAt, begin, end int64, tell func([]byte)) (at int64, err error) {
	buf := make([]byte, min(logChunk, max(0, end-begin)))
	for at = begin; at < end; {
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
		tell(buf[:n])
		at += int64(n)
	}
	return at, nil
}

// kept is a file of a log; one that is not there is an empty one.
type kept struct{ *os.File }

func openKept(path string) (f kept, size int64, err error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return kept{}, 0, nil
	}
	if err != nil {
		return kept{}, 0, err
	}
	info, err := file.Stat()
	if err != nil {
		_ = file.Close()
		return kept{}, 0, err
	}
	return kept{file}, info.Size(), nil
}

// Close closes the file, if there is one.
func (f kept) Close() {
	if f.File != nil {
		_ = f.File.Close() // it was only read
	}
}

// since gives what a log has gained since it had at bytes.
func (m *Manager) since(id string, at int64, tell func([]byte)) (int64, error) {
	f, size, err := openKept(m.logPath(id))
	if err != nil {
		return at, err
	}
	defer f.Close()
	if size < at {
		at = 0 // it was begun anew
	}
	return tellPart(f, at, size, tell)
}
