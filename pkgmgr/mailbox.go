package pkgmgr

import (
	"bytes"
	"io"
	"sync"
)

// mailbox is a pipe whose writer never waits for its reader: a machine that writes while
// it is being sent to, and whose connection breaks then, must not block the two sides
// forever. It holds messages of `rbee hive apply`, which are few and short.
type mailbox struct {
	mu     sync.Mutex
	more   sync.Cond
	buf    bytes.Buffer
	closed bool
}

func newMailbox() *mailbox {
	m := &mailbox{}
	m.more.L = &m.mu
	return m
}

// Write implements [io.Writer]; it never fails.
func (m *mailbox) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.more.Signal()
	return m.buf.Write(p)
}

// Read implements [io.Reader]: it waits for bytes, and returns [io.EOF] after close.
func (m *mailbox) Read(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for m.buf.Len() == 0 && !m.closed {
		m.more.Wait()
	}
	if m.buf.Len() == 0 {
		return 0, io.EOF
	}
	return m.buf.Read(p)
}

// close ends the stream for the reader once it has read everything.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.more.Broadcast()
}
