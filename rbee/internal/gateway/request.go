package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"hash/fnv"
	"io"
	"net/http"
	"os"
	"time"
)

// ask is a request as far as it is understood here.
type ask struct {
	body     []byte
	model    string
	at       value // of the model, in the body; in JSON with its quotes
	form     bool  // the body is a form, not JSON
	stream   bool
	affinity uint64
}

// read takes a request in.
func (x *exchange) read() (*ask, error) {
	body, err := x.readBody()
	x.sample.BytesIn = int64(len(body))
	if err != nil {
		return nil, err
	}
	if coding := x.r.Header.Get("Content-Encoding"); coding != "" && coding != "identity" {
		return nil, refusalf(http.StatusUnsupportedMediaType, "", "the body has the content encoding %q, want none", coding)
	}
	switch x.sample.Path {
	case "/v1/audio/transcriptions", "/v1/audio/translations":
		return readForm(body, x.r.Header.Get("Content-Type"))
	}
	return readJSON(body)
}

// readBody reads the body, for as long as it keeps coming.
func (x *exchange) readBody() ([]byte, error) {
	in := &patient{Reader: x.r.Body, exchange: x}
	// The time is for the body: an answer may take as long as it takes.
	defer func() { _ = x.control.SetReadDeadline(time.Time{}) }()
	tooLarge := func() error {
		if x.r.Header.Get("Expect") == "" {
			_, _ = io.CopyN(io.Discard, in, maxDrained) // most clients read the answer only once they have sent all
		}
		return refusalf(http.StatusRequestEntityTooLarge, "", "the body has more than %d bytes", x.MaxBody)
	}
	if x.r.ContentLength > x.MaxBody {
		return nil, tooLarge()
	}
	var body bytes.Buffer
	body.Grow(int(min(max(x.r.ContentLength, 0), firstGrowth)) + bytes.MinRead)
	in.Reader = http.MaxBytesReader(x.w, x.r.Body, x.MaxBody)
	_, err := body.ReadFrom(in)
	var over *http.MaxBytesError
	switch {
	case err == nil:
		return body.Bytes(), nil
	case errors.As(err, &over):
		in.Reader = x.r.Body
		return nil, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, refusalf(http.StatusRequestTimeout, "", "nothing more of the body came for %s after %d bytes", x.WriteTimeout, body.Len())
	}
	return nil, refusalf(http.StatusBadRequest, "", "reading the body broke off after %d bytes: %v", body.Len(), err)
}

// patient reads for as long as something comes.
type patient struct {
	io.Reader
	*exchange
}

// Read waits for the next bytes, but not for ever.
func (p *patient) Read(b []byte) (int, error) {
	_ = p.control.SetReadDeadline(time.Now().Add(p.WriteTimeout)) // where it can be set
	return p.Reader.Read(b)
}

// readJSON finds what is to be known in an object. As everywhere in JSON, the
// last of several values of one key counts.
func readJSON(body []byte) (*ask, error) {
	a := &ask{body: body}
	var messages, prompt value
	whole := object(body, 0, func(key []byte, v value) bool {
		switch string(key) {
		case "model":
			a.at = v
		case "stream":
			a.stream = string(v.of(body)) == "true"
		case "messages":
			messages = v
		case "prompt", "input":
			prompt = v
		}
		return true
	})
	switch {
	case !whole:
		return nil, badModel("the body is not a whole JSON object, so it names no model")
	case a.at.to == 0:
		return nil, badModel("the body names no model")
	case body[a.at.from] != '"':
		return nil, badModel("the model is not a string")
	}
	model, ok := unquote(a.at.of(body))
	if !ok || model == "" {
		return nil, badModel("the model is no name")
	}
	a.model = model
	if messages.to == 0 {
		messages = prompt
	}
	a.affinity = affinity(body, messages)
	return a, nil
}

// How much of a conversation makes its hash.
const (
	beginning       = 1 << 10 // bytes of each message
	beginningAmount = 4       // messages
)

// affinity hashes the beginning of a conversation: messages up to the first one of
// the user, or the first bytes of what has no messages.
func affinity(b []byte, v value) uint64 {
	if v.to == 0 {
		return 0
	}
	h := fnv.New64a()
	n := 0
	array(b, v.from, func(message value) bool {
		user := false
		if b[message.from] != '{' {
			return false
		}
		object(b, message.from, func(key []byte, v value) bool {
			user = string(key) == "role" && string(v.of(b)) == `"user"`
			return !user
		})
		_, _ = h.Write(message.of(b)[:min(message.to-message.from, beginning)])
		n++
		return !user && n < beginningAmount
	})
	if n == 0 {
		_, _ = h.Write(v.of(b)[:min(v.to-v.from, beginning)])
	}
	return max(h.Sum64(), 1)
}

// named is the body with another name for the model in it.
func (a *ask) named(name string) []byte {
	if name == "" || name == a.model {
		return a.body
	}
	word := []byte(name)
	if !a.form {
		word, _ = json.Marshal(name) // a string can always be written
	}
	body := make([]byte, 0, len(a.body)+len(word)-(a.at.to-a.at.from))
	body = append(body, a.body[:a.at.from]...)
	body = append(body, word...)
	return append(body, a.body[a.at.to:]...)
}
