package gateway

import (
	"hash/fnv"
	"net/http"
)

// ask is a request as far as it is understood here.
type ask struct {
	body     []byte // nil once nobody else is asked
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
	if err := checkName((a.at.to - a.at.from) / len(`\u0000`)); err != nil {
		return nil, err // too long, however it is written
	}
	model, ok := unquote(a.at.of(body))
	if !ok || model == "" {
		return nil, badModel("the model is no name")
	}
	if err := checkName(len(model)); err != nil {
		return nil, err
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
