package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Versioned is the head of everything that rbee stores or sends, so that different
// versions of rbee can read what the others wrote. A value without it has schema 0.
type Versioned struct {
	// Schema is the version of the format that the value was written in.
	Schema int `json:"schema"`

	// MinReader is the oldest schema whose readers understand the value. A reader
	// ignores fields that it does not know.
	MinReader int `json:"min_reader,omitempty"`
}

// Readable returns a [*NewerSchemaError] if a value needs a newer reader than one that
// knows the schema own. what names the value, such as a file.
func (v Versioned) Readable(what string, own int) error {
	if v.MinReader > own {
		return &NewerSchemaError{What: what, MinReader: v.MinReader, Own: own}
	}
	return nil
}

// NewerSchemaError reports a value that a newer rbee has written in a way that this one
// cannot read.
type NewerSchemaError struct {
	What           string // the value, such as a file
	MinReader, Own int    // the schema that reading takes, and the one that this rbee knows
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("%s was written by a newer rbee: reading it needs schema %d, this rbee knows %d; update this rbee", e.What, e.MinReader, e.Own)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (*NewerSchemaError) ErrorCode() string { return string(operations.ReasonNewerFile) }

// ErrorSubject returns the value, for [operations.SubjectOf].
func (e *NewerSchemaError) ErrorSubject() operations.Subject {
	return operations.SubjectFile.Named(e.What)
}

// Unknown keeps the JSON of a value in which there is more than this rbee knows, so that
// writing the value again does not lose it. Embed it in a struct as the field
//
//	Unknown wire.Unknown `json:"-"`
//
// and call [DecodeKeeping] and [EncodeKeeping] in its UnmarshalJSON and MarshalJSON.
type Unknown struct{ raw string }

// DecodeKeeping decodes data into v, a pointer to a struct without methods for JSON, and
// stores data in unknown if v does not hold all of it.
func DecodeKeeping(data []byte, v any, unknown *Unknown) error {
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	unknown.raw = ""
	again, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if more, err := holdsMore(data, again); err != nil || !more {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return err
	}
	unknown.raw = compact.String()
	return nil
}

// EncodeKeeping encodes v, a struct without methods for JSON, with what unknown holds
// besides: each field that has not changed since v was decoded as it was stored, and the
// fields that v does not have.
func EncodeKeeping(v any, unknown Unknown) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil || unknown.raw == "" {
		return data, err
	}
	before := reflect.New(reflect.TypeOf(v))
	if err := json.Unmarshal([]byte(unknown.raw), before.Interface()); err != nil {
		return data, nil //nolint:nilerr // it could be decoded as another type only
	}
	was, err := json.Marshal(before.Interface())
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(was, data):
		return []byte(unknown.raw), nil
	}
	var raw, old, known map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(unknown.raw), &raw), json.Unmarshal(was, &old), json.Unmarshal(data, &known)); err != nil {
		return nil, err
	}
	names := fieldNames(reflect.TypeOf(v))
	for name, value := range raw {
		if now, ok := known[name]; ok && bytes.Equal(now, old[name]) || !names[strings.ToLower(name)] {
			known[name] = value
		}
	}
	order, err := memberNames(data)
	if err != nil {
		return nil, err
	}
	more, err := memberNames([]byte(unknown.raw))
	if err != nil {
		return nil, err
	}
	return object(known, append(order, more...))
}

// memberNames returns the names of the members of a JSON object, in its order.
func memberNames(data []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var names []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
		text, _ := name.(string)
		names = append(names, text)
	}
	return names, nil
}

// object returns a JSON object with members in an order of their names; names that are
// repeated, or that are not members, are left out.
func object(members map[string]json.RawMessage, order []string) ([]byte, error) {
	out := []byte{'{'}
	for _, name := range order {
		value, ok := members[name]
		if !ok {
			continue
		}
		delete(members, name)
		key, err := json.Marshal(name)
		if err != nil {
			return nil, err
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(append(out, key...), ':'), value...)
	}
	return append(out, '}'), nil
}

// fieldNames returns the JSON names, in lower case, of the fields of a struct and of
// those embedded in it.
func fieldNames(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for i := range t.NumField() {
		f := t.Field(i)
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			for name := range fieldNames(f.Type) {
				names[name] = true
			}
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		names[strings.ToLower(tag)] = true
	}
	return names
}

// holdsMore reports whether JSON a has a member that b does not have; different values of
// the same member do not count.
func holdsMore(a, b []byte) (bool, error) {
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return false, err
	}
	return more(x, y), nil
}

func more(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		other, _ := y.(map[string]any)
		for name, value := range x {
			has, ok := other[name]
			if !ok && !empty(value) || ok && more(value, has) {
				return true
			}
		}
	case []any:
		other, _ := y.([]any)
		for i, value := range x {
			if i < len(other) && more(value, other[i]) {
				return true
			}
		}
	}
	return false
}

// empty reports whether a value is what encoding leaves out with omitempty.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case float64:
		return v == 0
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// Compatible reports whether the rbee that made a state and this one understand each
// other, so that this one can send requests to it.
func (s *State) Compatible() bool { return compatible(s.Schema, s.MinReader) }

// Compatible reports whether this rbee understands a request.
func (r *Request) Compatible() bool { return compatible(r.Schema, r.MinReader) }

// IncompatibleReason returns the reason of the error of a machine that does not understand
// a request: its rbee is too new for the sender, or older than the sender.
func (r *Request) IncompatibleReason() operations.Reason {
	if r.MinReader > Schema {
		return operations.ReasonOtherVersion
	}
	return operations.ReasonNewerHive
}

func compatible(schema, minReader int) bool { return schema >= MinReader && minReader <= Schema }
