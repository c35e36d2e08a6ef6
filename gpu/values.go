package gpu

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
)

// Helpers for the ways in which the tools write numbers and the lack of them.

// unknown is whether a tool's value means "I cannot say": "N/A", "[N/A]",
// "[Not Supported]", "[Not Found]", "[Unknown Error]" and the like.
func unknown(s string) bool {
	s = strings.TrimSpace(s)
	return s == "" || s == "-" || s[0] == '[' || len(s) >= 3 && strings.EqualFold(s[:3], "N/A")
}

// known is s, or "" where it means nothing.
func known(s string) string {
	if unknown(s) {
		return ""
	}
	return strings.TrimSpace(s)
}

// number reads a finite number, with or without a unit behind it.
func number(s string) *float64 {
	if unknown(s) {
		return nil
	}
	s, _, _ = strings.Cut(strings.TrimSpace(s), " ")
	f, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil
	}
	return &f
}

// toBytes is f times scale as a whole number of bytes; nil if f is nil,
// negative, or too large for any memory.
func toBytes(f *float64, scale uint64) *uint64 {
	if f == nil || *f < 0 || *f*float64(scale) >= 1<<62 {
		return nil
	}
	n := uint64(*f * float64(scale))
	return &n
}

// orZero is *n, or 0 where it is unknown.
func orZero[T uint64 | float64](n *T) T {
	if n == nil {
		return 0
	}
	return *n
}

// less is total minus used, where both are known and make sense.
func less(total uint64, used *uint64) *uint64 {
	if total == 0 || used == nil || *used > total {
		return nil
	}
	n := total - *used
	return &n
}

// text is a JSON string, number or boolean as text; anything else is "".
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

// quantity is a value with a unit, in any of amd-smi's three ways:
// {"value": 65520, "unit": "MB"}, "65520 MB", or 65520.
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

// bytes reads the quantity as memory. The tools write MB and mean MiB, which
// is also what a number without a unit is.
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

// section is a JSON object that a tool may replace by "N/A"; then it is empty.
type section[T any] struct{ value T }

func (s *section[T]) UnmarshalJSON(b []byte) error {
	*s = section[T]{}
	if b[0] != '{' {
		return nil
	}
	return json.Unmarshal(b, &s.value)
}

var errNoJSON = errors.New("no JSON in the output")

// jsonPart cuts off the warnings that some tools print before their JSON,
// which begins a line, and after it.
func jsonPart(out []byte) ([]byte, error) {
	var followed []byte // the first JSON that text follows
	for line := out; ; {
		trimmed := bytes.TrimLeft(line, " \t\r")
		if len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
			if json.Valid(trimmed) {
				return trimmed, nil
			}
			var value json.RawMessage
			if followed == nil && json.NewDecoder(bytes.NewReader(trimmed)).Decode(&value) == nil {
				followed = value
			}
		}
		next := bytes.IndexByte(line, '\n')
		switch {
		case next >= 0:
			line = line[next+1:]
		case followed != nil:
			return followed, nil
		default:
			return nil, errNoJSON
		}
	}
}

// busID brings a PCI address into the form of /sys: four digits of domain,
// lower case. nvidia-smi writes "00000000:41:00.0". Not an address: "".
func busID(s string) string {
	parts := strings.Split(strings.ToLower(strings.TrimSpace(s)), ":")
	if len(parts) == 2 {
		parts = append([]string{"0"}, parts...)
	}
	if len(parts) != 3 {
		return ""
	}
	domain, err := strconv.ParseUint(parts[0], 16, 32)
	slot, function, dotted := strings.Cut(parts[2], ".")
	if err != nil || !dotted || !hex(parts[1], 2) || !hex(slot, 2) || !hex(function, 1) {
		return ""
	}
	d := strconv.FormatUint(domain, 16)
	return strings.Repeat("0", max(0, 4-len(d))) + d + ":" + parts[1] + ":" + parts[2]
}

func hex(s string, digits int) bool {
	_, err := strconv.ParseUint(s, 16, 32)
	return err == nil && len(s) == digits
}
