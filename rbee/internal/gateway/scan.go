package gateway

import (
	"bytes"
	"encoding/json"
	"strings"
)

// The functions in this file find positions in JSON without decoding it. They find the
// ends of strings, arrays and objects and do not validate their content. A position is an
// index into the text; -1 means that the text is not valid JSON.

// span is a range of bytes in a text.
type span struct{ from, to int }

// bytes returns the text of the span.
func (v span) bytes(b []byte) []byte { return b[v.from:v.to] }

// scanObject calls each for the members of the object at i, until each returns false. It
// reports whether the scanned part is valid. Keys are passed without quotes.
func scanObject(b []byte, i int, each func(key []byte, v span) bool) bool {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != '{' {
		return false
	}
	i = skipSpace(b, i+1)
	if i < len(b) && b[i] == '}' {
		return true
	}
	for {
		end := skipString(b, i)
		if end < 0 {
			return false
		}
		key := b[i+1 : end-1]
		if bytes.IndexByte(key, '\\') >= 0 {
			decoded, ok := unquote(b[i:end])
			if !ok {
				return false
			}
			key = []byte(decoded)
		}
		if i = skipSpace(b, end); i >= len(b) || b[i] != ':' {
			return false
		}
		v := span{from: skipSpace(b, i+1)}
		if v.to = skipValue(b, v.from); v.to < 0 {
			return false
		}
		if !each(key, v) {
			return true
		}
		if i = skipSpace(b, v.to); i >= len(b) {
			return false
		}
		switch b[i] {
		case '}':
			return true
		case ',':
			i = skipSpace(b, i+1)
		default:
			return false
		}
	}
}

// scanArray calls each for the elements of the array at i, until each returns false or the
// array ends or is invalid.
func scanArray(b []byte, i int, each func(v span) bool) {
	i = skipSpace(b, i)
	if i >= len(b) || b[i] != '[' {
		return
	}
	for i < len(b) && b[i] != ']' {
		v := span{from: skipSpace(b, i+1)}
		if v.to = skipValue(b, v.from); v.to < 0 || !each(v) {
			return
		}
		i = skipSpace(b, v.to)
	}
}

// skipSpace returns the position after white space.
func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\r' || b[i] == '\t') {
		i++
	}
	return i
}

// skipValue returns the end of the value at i.
func skipValue(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		return skipNested(b, i)
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

// skipNested returns the end of the object or array at i.
func skipNested(b []byte, i int) int {
	for depth := 0; i < len(b); {
		switch b[i] {
		case '"':
			if i = skipString(b, i); i < 0 {
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

// skipString returns the end of the string at i: after the first quote that follows an
// even number of backslashes.
func skipString(b []byte, i int) int {
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

// unquote decodes a JSON string.
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
