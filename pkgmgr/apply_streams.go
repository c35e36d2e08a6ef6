package pkgmgr

import (
	"bytes"
	"io"
	"time"
)

// counted reports how much of r was read, a few times a second.
func (s *session) counted(i int, r io.Reader, total int64) io.Reader {
	return &countingReader{r: r, report: func(n int64) { s.progress(i, n, total) }, total: total}
}

type countingReader struct {
	r      io.Reader
	n      int64
	total  int64
	last   time.Time
	report func(int64)
}

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

type failingReader struct{ err error }

func (f failingReader) Read([]byte) (int, error) { return 0, f.err }

// tailWriter keeps the end of what is written to it.
type tailWriter struct{ buf []byte }

const tailSize = 4 << 10

func (t *tailWriter) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > tailSize {
		t.buf = append([]byte(nil), t.buf[len(t.buf)-tailSize:]...)
	}
	return len(p), nil
}

// String must only be called once the writer is no longer written to.
func (t *tailWriter) String() string { return string(bytes.TrimSpace(t.buf)) }
