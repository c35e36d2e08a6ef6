package pkgmgr

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// pipeBuffer is a pipe whose writer never waits for the reader. It prevents a deadlock
// while both sides of a connection write. It buffers the messages of `rbee hive apply`,
// which are few and short.
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
	b := &pipeBuffer{}
	b.cond.L = &b.mu
	return b
}

// Write implements [io.Writer]. It fails if the unread output exceeds maxPipeBuffer.
func (b *pipeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.discarding:
		return len(p), nil
	case b.buf.Len()+len(p) > maxPipeBuffer:
		return 0, fmt.Errorf("the unread output of the machine exceeds %s", bytesize.Format(maxPipeBuffer))
	}
	b.cond.Signal()
	return b.buf.Write(p)
}

// Read implements [io.Reader]. It waits for bytes, and returns [io.EOF] after close.
func (b *pipeBuffer) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for b.buf.Len() == 0 && !b.closed {
		b.cond.Wait()
	}
	if b.buf.Len() == 0 {
		return 0, io.EOF
	}
	return b.buf.Read(p)
}

// discard drops the unread output and all later output.
func (b *pipeBuffer) discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.discarding, b.buf = true, bytes.Buffer{}
}

// close makes Read return [io.EOF] after the remaining output.
func (b *pipeBuffer) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.cond.Broadcast()
}
