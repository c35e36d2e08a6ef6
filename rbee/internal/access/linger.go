package access

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// What is taken of a body that nobody wants. It is read and forgotten piece by piece,
// so it costs no memory.
const (
	defaultLinger = 30 * time.Second
	lingerPauses  = 6         // of the time, so often may nothing come
	lingerBytes   = 256 << 20 // more than that, and the client may miss its answer
)

// body is a request's body that knows how far it was read.
type body struct {
	io.ReadCloser
	answer               http.Header // to its request
	begun, ended, failed bool
}

// Read reads on. A body that could not be read is the last of its connection: the
// server would wait for the rest of it once more before it answers, and maybe for ever.
func (b *body) Read(p []byte) (int, error) {
	b.begun = true
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.ended = true
	case err != nil:
		b.failed = true
		b.answer.Set("Connection", "close")
	}
	return n, err
}

// linger sends the answer, and then takes what the client still sends. Most clients
// read an answer only once they have sent everything: to one whose connection is
// closed meanwhile, the pipe is broken and no answer was there. One that waits to be
// told to go on has its answer already.
func (g *guard) linger(w http.ResponseWriter, r *http.Request, rest *body) {
	if r.ContentLength == 0 || rest.ended {
		return
	}
	control := http.NewResponseController(w)
	waits := r.Header.Get("Expect") != "" && !rest.begun
	if waits || rest.failed {
		_ = control.SetReadDeadline(time.Now()) // the server waits for what does not come
		return
	}
	if control.Flush() != nil {
		return // nobody is there
	}
	_, _ = io.CopyN(io.Discard, &patience{rest, control, time.Now().Add(g.Linger), g.Linger / lingerPauses}, lingerBytes) // whatever comes of it, the answer is given
}

// patience reads until an end, and while something comes.
type patience struct {
	io.Reader
	control *http.ResponseController
	end     time.Time
	pause   time.Duration
}

// Read waits for the next bytes.
func (p *patience) Read(b []byte) (int, error) {
	until := time.Now().Add(p.pause)
	if until.After(p.end) {
		until = p.end
	}
	if err := p.control.SetReadDeadline(until); err != nil {
		return 0, err // it could wait for ever
	}
	return p.Reader.Read(b)
}
