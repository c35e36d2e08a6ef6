package pkgmgr

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// pipeBuffer is a pipe whose writer never waits for the reader. It prevents a deadlock
// while both sides of a connection write. It holds the messages of `rbee hive apply`, which
// are few and short.
type pipeBuffer struct {
	mu         sync.Mutex
	cond       sync.Cond
	buf        bytes.Buffer
	closed     bool
	discarding bool // the reader has stopped
}

// maxPipeBuffer limits the size of the unread output, in bytes.
const maxPipeBuffer = 64 << 20

func newPipeBuffer() *pipeBuffer {
	m := &pipeBuffer{}
	m.cond.L = &m.mu
	return m
}

// Write implements [io.Writer]. It fails if the unread output exceeds maxPipeBuffer.
func (m *pipeBuffer) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.discarding:
		return len(p), nil
	case m.buf.Len()+len(p) > maxPipeBuffer:
		return 0, fmt.Errorf("the unread output of the machine exceeds %s", bytesize.Format(maxPipeBuffer))
	}
	m.cond.Signal()
	return m.buf.Write(p)
}

// Read implements [io.Reader]. It waits for bytes, and returns [io.EOF] after close.
func (m *pipeBuffer) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.buf.Len() == 0 && !m.closed {
		m.cond.Wait()
	}
	if m.buf.Len() == 0 {
		return 0, io.EOF
	}
	return m.buf.Read(p)
}

// discard drops the unread output and all later output.
func (m *pipeBuffer) discard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.discarding, m.buf = true, bytes.Buffer{}
}

// close makes Read return [io.EOF] after the remaining output.
func (m *pipeBuffer) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.cond.Broadcast()
}
