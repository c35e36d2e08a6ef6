package gateway

import (
	"hash/fnv"
	"net/http"
)

// apiRequest is the part of a request that the gateway interprets.
type apiRequest struct {
	body       []byte // nil once no other worker can be tried
	model      string
	modelValue span // position of the model in body; in JSON with the quotes
	isForm     bool // multipart form, not JSON
	stream     bool
	affinity   uint64
}

// read reads and parses the request.
func (x *exchange) read() (*apiRequest, error) {
	body, err := x.readBody()
	x.sample.BytesIn = int64(len(body))
	if err != nil {
		return nil, err
	}
	if encoding := x.r.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return nil, apiErrorf(http.StatusUnsupportedMediaType, "", "unsupported content encoding %q: send the body uncompressed", encoding)
	}
	switch x.sample.Path {
	case "/v1/audio/transcriptions", "/v1/audio/translations":
		return readForm(body, x.r.Header.Get("Content-Type"))
	}
	return readJSON(body)
}

// readJSON finds the fields that the gateway needs in a JSON object. If a key is repeated,
// its last value counts, as in [encoding/json].
func readJSON(body []byte) (*apiRequest, error) {
	r := &apiRequest{body: body}
	var messages, prompt span
	ok := scanObject(body, 0, func(key []byte, v span) bool {
		switch string(key) {
		case "model":
			r.modelValue = v
		case "stream":
			r.stream = string(v.bytes(body)) == "true"
		case "messages":
			messages = v
		case "prompt", "input":
			prompt = v
		}
		return true
	})
	switch {
	case !ok:
		return nil, modelError("cannot parse the request body: want a JSON object")
	case r.modelValue.to == 0:
		return nil, modelError("missing required parameter: model")
	case body[r.modelValue.from] != '"':
		return nil, modelError("invalid model: want a string")
	}
	if err := checkModelLength((r.modelValue.to - r.modelValue.from) / len(`\u0000`)); err != nil {
		return nil, err // too long even if every character is escaped
	}
	model, ok := unquote(r.modelValue.bytes(body))
	if !ok || model == "" {
		return nil, modelError("invalid model: want a non-empty string")
	}
	if err := checkModelLength(len(model)); err != nil {
		return nil, err
	}
	r.model = model
	if messages.to == 0 {
		messages = prompt
	}
	r.affinity = affinity(body, messages)
	return r, nil
}

// Limits of the part of a conversation that [affinity] hashes.
const (
	affinityBytes    = 1 << 10 // bytes of each message
	affinityMessages = 4       // messages
)

// affinity hashes the beginning of a conversation: the messages up to the
// user's first message, or the first bytes of a prompt.
func affinity(b []byte, v span) uint64 {
	if v.to == 0 {
		return 0
	}
	h := fnv.New64a()
	n := 0
	scanArray(b, v.from, func(message span) bool {
		isUser := false
		if b[message.from] != '{' {
			return false
		}
		scanObject(b, message.from, func(key []byte, v span) bool {
			isUser = string(key) == "role" && string(v.bytes(b)) == `"user"`
			return !isUser
		})
		_, _ = h.Write(message.bytes(b)[:min(message.to-message.from, affinityBytes)])
		n++
		return !isUser && n < affinityMessages
	})
	if n == 0 {
		_, _ = h.Write(v.bytes(b)[:min(v.to-v.from, affinityBytes)])
	}
	return max(h.Sum64(), 1)
}
