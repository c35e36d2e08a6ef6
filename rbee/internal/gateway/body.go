package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// budget is the memory for the bodies of all requests, in bytes.
type budget struct {
	most  int64
	taken atomic.Int64
}

// take reports whether there were n bytes left, which are taken then.
func (b *budget) take(n int64) bool {
	if b.taken.Add(n) > b.most {
		b.taken.Add(-n)
		return false
	}
	return true
}

func (b *budget) give(n int64) { b.taken.Add(-n) }

// letGo forgets the body: an answer has begun or there will be none, so nobody is
// asked any more.
func (x *exchange) letGo() {
	if x.asked != nil {
		x.asked.body = nil
	}
	x.bodies.give(x.held)
	x.held = 0
}

// readBody reads the body, for as long as it keeps coming. What it leaves of one that
// it refuses is the guard's, which is why a time limit stays then.
func (x *exchange) readBody() ([]byte, error) {
	tooLarge := refusalf(http.StatusRequestEntityTooLarge, "body_too_large", "the body has more than %d bytes", x.MaxBody)
	if x.r.ContentLength > x.MaxBody {
		return nil, tooLarge
	}
	in := &patient{exchange: x, in: http.MaxBytesReader(x.w, x.r.Body, x.MaxBody), begun: time.Now()}
	body, err := x.fill(in)
	var over *http.MaxBytesError
	var no *Refusal
	switch {
	case err == nil:
		// The time was for the body: an answer may take as long as it takes.
		_ = x.control.SetReadDeadline(time.Time{})
		return body, nil
	case errors.As(err, &no):
		return nil, no
	case errors.As(err, &over):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refusalf(http.StatusRequestTimeout, "", "%d bytes of the body came in %s, which is too slow", in.got, time.Since(in.begun).Round(time.Millisecond))
	}
	return nil, refusalf(http.StatusBadRequest, "", "reading the body broke off after %d bytes: %v", in.got, err)
}

// fill reads all that comes. Memory is taken from the budget before it is used: what a
// client only announces costs nobody anything.
func (x *exchange) fill(in io.Reader) ([]byte, error) {
	first, most := int64(bytes.MinRead), x.MaxBody+1 // one more, to see the end
	if length := x.r.ContentLength; length >= 0 {
		first, most = min(length+1, firstGrowth), length+1
	}
	body := []byte{}
	for {
		if len(body) == cap(body) {
			size := min(max(2*int64(cap(body)), first), most)
			more := size - int64(cap(body))
			if !x.bodies.take(more) {
				return nil, overloaded("the bodies of requests under way take %d bytes already, there is no room for another", x.MaxBodies)
			}
			x.held += more
			body = append(make([]byte, 0, size), body...)
		}
		n, err := in.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		switch {
		case errors.Is(err, io.EOF):
			return body, nil
		case err != nil:
			return nil, err
		}
	}
}

// patient reads for as long as something comes, and enough of it.
type patient struct {
	*exchange
	in    io.Reader
	begun time.Time
	got   int64
}

// Read waits for the next bytes, but not for ever.
func (p *patient) Read(b []byte) (int, error) {
	until := time.Now().Add(p.WriteTimeout)
	due := p.begun.Add(p.WriteTimeout + time.Duration(p.got)*(time.Second/slowest))
	if due.Before(until) {
		until = due
	}
	_ = p.control.SetReadDeadline(until) // where it can be set
	n, err := p.in.Read(b)
	p.got += int64(n)
	return n, err
}

// parts are the body with another name for the model in it, in order.
func (a *ask) parts(name string) [][]byte {
	if name == "" || name == a.model {
		return [][]byte{a.body}
	}
	word := []byte(name)
	if !a.form {
		word, _ = json.Marshal(name) // a string can always be written
	}
	return [][]byte{a.body[:a.at.from], word, a.body[a.at.to:]}
}

// outgoing is a body on its way to a worker. It lets go of it once it is sent, which a
// transport tells by closing it: the transport keeps the request, and all in it, until
// the answer has ended.
type outgoing struct {
	mu    sync.Mutex // a transport that gives up may close while it reads
	parts [][]byte
}

// Read implements [io.Reader].
func (o *outgoing) Read(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.parts) > 0 && len(o.parts[0]) == 0 {
		o.parts = o.parts[1:]
	}
	if len(o.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, o.parts[0])
	o.parts[0] = o.parts[0][n:]
	return n, nil
}

// Close implements [io.Closer].
func (o *outgoing) Close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.parts = nil
	return nil
}
