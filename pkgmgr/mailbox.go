package pkgmgr

import (
	"bytes"
	"errors"
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
	unread bool // nobody reads any more
}

// maxMailbox limits what is held for the reader.
const maxMailbox = 64 << 20

func newMailbox() *mailbox {
	m := &mailbox{}
	m.more.L = &m.mu
	return m
}

// Write implements [io.Writer]. It fails if the reader is too far behind.
func (m *mailbox) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.unread:
		return len(p), nil
	case m.buf.Len()+len(p) > maxMailbox:
		return 0, errors.New("the machine writes too much")
	}
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

// discard drops what is held, and what comes.
func (m *mailbox) discard() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread, m.buf = true, bytes.Buffer{}
}

// close ends the stream for the reader once it has read everything.
func (m *mailbox) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	m.more.Broadcast()
}
