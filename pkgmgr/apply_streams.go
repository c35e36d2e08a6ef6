package pkgmgr

import (
	"bytes"
	"io"
	"time"
)

// countSent returns a reader that reads from r and emits the progress of step i, at most
// once per progressInterval. total is the size of r in bytes.
func (s *stepRunner) countSent(i int, r io.Reader, total int64) io.Reader {
	return &countingReader{r: r, report: func(n int64) { s.emitSent(i, n, total) }, total: total}
}

// countingReader reports the number of bytes read.
type countingReader struct {
	r      io.Reader
	n      int64
	total  int64
	last   time.Time
	report func(int64)
}

// progressInterval is the minimum time between two reports of a countingReader.
const progressInterval = 100 * time.Millisecond

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if now := time.Now(); n > 0 && (c.n == c.total || now.Sub(c.last) >= progressInterval) {
		c.last = now
		c.report(c.n)
	}
	return n, err
}

// failingReader is a reader that returns err.
type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// tailWriter keeps the last tailSize bytes that were written to it.
type tailWriter struct{ buf []byte }

// tailSize is the number of bytes that a tailWriter keeps.
const tailSize = 4 << 10

func (t *tailWriter) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > tailSize {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

// String returns the kept bytes. It must not be called concurrently with Write.
func (t *tailWriter) String() string { return string(bytes.TrimSpace(t.buf)) }
