package gateway

import (
	"bytes"
	"encoding/json"
	"strings"
)

// What follows finds its way through JSON without decoding it: it knows where
// strings, arrays and objects end, and takes on trust what is in them. A position
// is an index into the text; -1 means that the text is not JSON as far as it was
// looked at.

// value is a piece of a text.
type value struct{ from, to int }

// of is the value's own text.
func (v value) of(b []byte) []byte { return b[v.from:v.to] }

// object goes through the object that is at i, until each says false. It reports
// whether the object is whole as far as it went. Keys are without their quotes.
func object(b []byte, i int, each func(key []byte, v value) bool) bool {
	i = space(b, i)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = space(b, i+1)
	if i < len(b) && b[i] == '}' {
		return true
	}
	for {
		end := text(b, i)
		if end < 0 {
			return false
		}
		key := b[i+1 : end-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			plain, ok := unquote(b[i:end])
			if !ok {
				return false
			}
			key = []byte(plain)
		}
		if i = space(b, end); i >= len(b) || b[i] != ':' {
			return false
		}
		v := value{from: space(b, i+1)}
		if v.to = skip(b, v.from); v.to < 0 {
			return false
		}
		if !each(key, v) {
			return true
		}
		if i = space(b, v.to); i >= len(b) {
			return false
		}
		switch b[i] {
		case '}':
			return true
		case ',':
			i = space(b, i+1)
		default:
			return false
		}
	}
}

// array goes through the array that is at i, until each says false or it is not
// an array any more.
func array(b []byte, i int, each func(v value) bool) {
	i = space(b, i)
	if i >= len(b) || b[i] != '[' {
		return
	}
	for i < len(b) && b[i] != ']' {
		v := value{from: space(b, i+1)}
		if v.to = skip(b, v.from); v.to < 0 || !each(v) {
			return
		}
		i = space(b, v.to)
	}
}

// space skips white space.
func space(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skip returns where the value that is at i ends.
func skip(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return text(b, i)
	case '{', '[':
		return nested(b, i)
	}
	end := i
	for end < len(b) && strings.IndexByte(",:]}[{\" \n\r\t", b[end]) < 0 {
		end++
	}
	if end == i {
		return -1
	}
	return end
}

// nested returns where the object or array that is at i ends.
func nested(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			if i = text(b, i); i < 0 {
				return -1
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		i++
		if depth == 0 {
			return i
		}
	}
	return -1
}

// text returns where the string that is at i ends: behind the first quote with an
// even number of backslashes before it.
func text(b []byte, i int) int {
	if i >= len(b) || b[i] != '"' {
		return -1
	}
	for start := i + 1; ; {
		n := bytes.IndexByte(b[start:], '"')
		if n < 0 {
			return -1
		}
		quote, slashes := start+n, 0
		for slashes < n && b[quote-1-slashes] == '\\' {
			slashes++
		}
		start = quote + 1
		if slashes%2 == 0 {
			return start
		}
	}
}

// unquote returns what a string says.
func unquote(quoted []byte) (string, bool) {
	for _, c := range quoted {
		if c == '\\' || c < ' ' || c > '~' {
			var s string
			err := json.Unmarshal(quoted, &s)
			return s, err == nil
		}
	}
	if len(quoted) < 2 || quoted[0] != '"' {
		return "", false
	}
	return string(quoted[1 : len(quoted)-1]), true
}
