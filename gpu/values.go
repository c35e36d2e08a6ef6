package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// isUnknown reports whether a tool prints s instead of an unknown value: "N/A", "[N/A]",
// "[Not Supported]", "[Not Found]", "[Unknown Error]" and similar texts.
func isUnknown(s string) bool {
	s = strings.TrimSpace(s)
	return s == "" || s == "-" || s[0] == '[' || len(s) >= 3 && strings.EqualFold(s[:3], "N/A")
}

// knownText returns s without leading and trailing white space, or "" if the value is unknown.
func knownText(s string) string {
	if isUnknown(s) {
		return ""
	}
	return strings.TrimSpace(s)
}

// number parses a finite number, with or without a unit after it. It returns nil for other
// text.
func number(s string) *float64 {
	if isUnknown(s) {
		return nil
	}
	s, _, _ = strings.Cut(strings.TrimSpace(s), " ")
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

// toBytes returns f times scale, rounded down. It returns nil if f is nil or negative, or if
// the result is too large for a memory size.
func toBytes(f *float64, scale uint64) *uint64 {
	if f == nil || *f < 0 || *f*float64(scale) >= 1<<62 {
		return nil
	}
	n := uint64(*f * float64(scale))
	return &n
}

// orZero returns *n, or 0 if n is nil.
func orZero[T uint64 | float64](n *T) T {
	if n == nil {
		return 0
	}
	return *n
}

// difference returns total minus used, or nil if a value is unknown or the result would be
// negative.
func difference(total uint64, used *uint64) *uint64 {
	if total == 0 || used == nil || *used > total {
		return nil
	}
	n := total - *used
	return &n
}

// text is the text of a JSON string, number or boolean. It is "" for other JSON values.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	*t = ""
	switch b[0] {
	case '"':
		return json.Unmarshal(b, (*string)(t))
	case 'n', '[', '{':
		return nil
	}
	*t = text(b)
	return nil
}

// quantity is a value with a unit. amd-smi uses three forms: {"value": 65520, "unit": "MB"},
// "65520 MB", and 65520.
type quantity struct {
	value *float64
	unit  string
}

func (q *quantity) UnmarshalJSON(b []byte) error {
	*q = quantity{}
	var pair struct{ Value, Unit text }
	if b[0] == '{' {
		if err := json.Unmarshal(b, &pair); err != nil {
			return err
		}
	} else if err := json.Unmarshal(b, &pair.Value); err != nil {
		return err
	}
	_, unit, _ := strings.Cut(strings.TrimSpace(string(pair.Value)), " ")
	q.value, q.unit = number(string(pair.Value)), unit
	if q.unit == "" {
		q.unit = string(pair.Unit)
	}
	return nil
}

// bytes returns the quantity in bytes. MB in the output of the tools, or no unit, means MiB.
func (q quantity) bytes() *uint64 {
	switch strings.ToUpper(q.unit) {
	case "B":
		return toBytes(q.value, 1)
	case "KB", "KIB":
		return toBytes(q.value, 1<<10)
	case "", "MB", "MIB":
		return toBytes(q.value, 1<<20)
	case "GB", "GIB":
		return toBytes(q.value, 1<<30)
	}
	return nil
}

// section is a JSON object. It is empty if the tool printed another value instead, such as
// "N/A".
type section[T any] struct{ value T }

func (s *section[T]) UnmarshalJSON(b []byte) error {
	*s = section[T]{}
	if b[0] != '{' {
		return nil
	}
	return json.Unmarshal(b, &s.value)
}

var errNoJSON = errors.New("no JSON in the output")

// jsonPart returns the JSON in the output of a tool, without the warnings that some tools
// print before and after it. The JSON must start at the beginning of a line.
func jsonPart(out []byte) ([]byte, error) {
	var candidate []byte // the first JSON value that has text after it
	for line := out; ; {
		trimmed := bytes.TrimLeft(line, " \t\r")
		if len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
			if json.Valid(trimmed) {
				return trimmed, nil
			}
			var value json.RawMessage
			if candidate == nil && json.NewDecoder(bytes.NewReader(trimmed)).Decode(&value) == nil {
				candidate = value
			}
		}
		next := bytes.IndexByte(line, '\n')
		switch {
		case next >= 0:
			line = line[next+1:]
		case candidate != nil:
			return candidate, nil
		default:
			return nil, errNoJSON
		}
	}
}

// busID converts a PCI address such as "00000000:41:00.0" of nvidia-smi to the form in /sys, in
// lower case with a domain of four digits. It returns "" if s is not an address.
func busID(s string) string {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return ""
	}
	domain, err := strconv.ParseUint(parts[0], 16, 32)
	slot, function, ok := strings.Cut(parts[2], ".")
	if err != nil || !ok || !isHex(parts[1], 2) || !isHex(slot, 2) || !isHex(function, 1) {
		return ""
	}
	d := strconv.FormatUint(domain, 16)
	return strings.Repeat("0", max(0, 4-len(d))) + d + ":" + parts[1] + ":" + parts[2]
}

func isHex(s string, digits int) bool {
	_, err := strconv.ParseUint(s, 16, 32)
	return err == nil && len(s) == digits
}
