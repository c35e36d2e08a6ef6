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

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// budget limits the memory for the bodies of all requests, in bytes.
type budget struct {
	limit int64
	used  atomic.Int64
}

// reserve takes n bytes from the budget. It reports whether they were available.
func (b *budget) reserve(n int64) bool {
	if b.used.Add(n) > b.limit {
		b.used.Add(-n)
		return false
	}
	return true
}

func (b *budget) release(n int64) { b.used.Add(-n) }

// releaseBody drops the request body. It is called when the response starts or the
// exchange ends, after which no other worker is tried.
func (x *exchange) releaseBody() {
	if x.parsed != nil {
		x.parsed.body = nil
	}
	x.bodies.release(x.reserved)
	x.reserved = 0
}

// readBody reads the request body, as long as data keeps arriving. On errors it keeps the
// read deadline for the wrapper that drains the rest of the body.
func (x *exchange) readBody() ([]byte, error) {
	tooLarge := apiErrorf(http.StatusRequestEntityTooLarge, "body_too_large", "request body too large: want at most %s", bytesize.Format(x.MaxBody))
	if x.r.ContentLength > x.MaxBody {
		return nil, tooLarge
	}
	in := &bodyReader{exchange: x, in: http.MaxBytesReader(x.w, x.r.Body, x.MaxBody), start: time.Now()}
	body, err := x.readAll(in)
	var tooLargeErr *http.MaxBytesError
	var apiErr *APIError
	switch {
	case err == nil:
		// The deadline applies only to the body: the response may take longer.
		_ = x.control.SetReadDeadline(time.Time{})
		return body, nil
	case errors.As(err, &apiErr):
		return nil, apiErr
	case errors.As(err, &tooLargeErr):
		return nil, tooLarge
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, apiErrorf(http.StatusRequestTimeout, "", "request body too slow: received %s in %s", bytesize.Format(in.count), time.Since(in.start).Round(time.Millisecond))
	}
	return nil, apiErrorf(http.StatusBadRequest, "", "cannot read the request body after %s: %v", bytesize.Format(in.count), err)
}

// readAll reads the complete body. It takes memory from the budget as data arrives, so
// that a Content-Length alone reserves none.
func (x *exchange) readAll(in io.Reader) ([]byte, error) {
	initial, limit := int64(bytes.MinRead), x.MaxBody+1 // one more byte to detect EOF
	if length := x.r.ContentLength; length >= 0 {
		initial, limit = min(length+1, maxInitialBody), length+1
	}
	body := []byte{}
	for {
		if len(body) == cap(body) {
			size := min(max(2*int64(cap(body)), initial), limit)
			growth := size - int64(cap(body))
			if !x.bodies.reserve(growth) {
				return nil, overloadedError("the server is overloaded: request bodies in progress exceed %s", bytesize.Format(x.MaxBodyMemory))
			}
			x.reserved += growth
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

// bodyReader sets read deadlines that require a minimum rate.
type bodyReader struct {
	*exchange
	in    io.Reader
	start time.Time
	count int64
}

// Read waits for the next bytes until the deadline.
func (r *bodyReader) Read(b []byte) (int, error) {
	deadline := time.Now().Add(r.WriteTimeout)
	rateDeadline := r.start.Add(r.WriteTimeout + time.Duration(r.count)*(time.Second/minBodyRate))
	if rateDeadline.Before(deadline) {
		deadline = rateDeadline
	}
	_ = r.control.SetReadDeadline(deadline) // ignored if not supported
	n, err := r.in.Read(b)
	r.count += int64(n)
	return n, err
}

// bodyParts returns the body with the model replaced by name, as a list of slices.
func (r *apiRequest) bodyParts(name string) [][]byte {
	if name == "" || name == r.model {
		return [][]byte{r.body}
	}
	encoded := []byte(name)
	if !r.isForm {
		encoded, _ = json.Marshal(name) // never fails for a string
	}
	return [][]byte{r.body[:r.modelValue.from], encoded, r.body[r.modelValue.to:]}
}

// workerBody is a request body that is sent to a worker. Close releases the memory, because
// a transport closes the body once it is sent, but keeps the request until the response ends.
type workerBody struct {
	mu    sync.Mutex // a transport may call Close during Read
	parts [][]byte
}

// Read implements [io.Reader].
func (b *workerBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.parts) > 0 && len(b.parts[0]) == 0 {
		b.parts = b.parts[1:]
	}
	if len(b.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.parts[0])
	b.parts[0] = b.parts[0][n:]
	return n, nil
}

// Close implements [io.Closer].
func (b *workerBody) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.parts = nil
	return nil
}
