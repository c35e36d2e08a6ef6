package access

import (
	"errors"
	"io"
	"net/http"
	"time"
)

// Limits for draining a request body. The body is read in small parts, so draining uses
// little memory.
const (
	defaultDrainTimeout = 30 * time.Second
	drainIdleFraction   = 6         // draining ends after DrainTimeout/drainIdleFraction without data
	maxDrainBytes       = 256 << 20 // a client with a larger body may miss its response
)

// trackedBody is a request body that records how far it was read.
type trackedBody struct {
	io.ReadCloser
	responseHeader                        http.Header // of the response to the request
	readStarted, readComplete, readFailed bool
}

// Read reads from the body. After a failed read it sets Connection: close on the response.
// Otherwise the server would try to read the rest of the body before it sends the response,
// and might block forever.
func (b *trackedBody) Read(p []byte) (int, error) {
	b.readStarted = true
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.readComplete = true
	case err != nil:
		b.readFailed = true
		b.responseHeader.Set("Connection", "close")
	}
	return n, err
}

// drainBody sends the response and then discards the rest of the request body. Most clients
// read the response only after they have sent the body; if the connection is closed earlier,
// they report a broken pipe. A client that waits for 100 Continue has not started to send.
func (g *guard) drainBody(w http.ResponseWriter, r *http.Request, body *trackedBody) {
	if r.ContentLength == 0 || body.readComplete {
		return
	}
	control := http.NewResponseController(w)
	expectsContinue := r.Header.Get("Expect") != "" && !body.readStarted
	if expectsContinue || body.readFailed {
		_ = control.SetReadDeadline(time.Now()) // the server must not wait for the rest of the body
		return
	}
	if control.Flush() != nil {
		return // the client has disconnected
	}
	_, _ = io.CopyN(io.Discard, &drainReader{body, control, time.Now().Add(g.DrainTimeout), g.DrainTimeout / drainIdleFraction}, maxDrainBytes) // the response is sent; errors do not matter
}

// drainReader reads until the deadline, or until no data arrives for idleTimeout.
type drainReader struct {
	io.Reader
	control     *http.ResponseController
	deadline    time.Time
	idleTimeout time.Duration
}

// Read sets the deadline for the next bytes and reads them.
func (d *drainReader) Read(b []byte) (int, error) {
	next := time.Now().Add(d.idleTimeout)
	if next.After(d.deadline) {
		next = d.deadline
	}
	if err := d.control.SetReadDeadline(next); err != nil {
		return 0, err // without a deadline, reading could block forever
	}
	return d.Reader.Read(b)
}
