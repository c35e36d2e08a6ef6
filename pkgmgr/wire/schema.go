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

// Versioned is the header of stored and transmitted values. It allows different versions of
// rbee to read each other's values. A value without this header has schema 0.
type Versioned struct {
	// Schema is the version of the format of the value.
	Schema int `json:"schema"`

	// MinReader is the oldest schema whose readers understand the value. Readers
	// ignore unknown fields.
	MinReader int `json:"min_reader,omitempty"`
}

// CheckReadable returns a [*NewerSchemaError] if v requires a newer schema than supported, the
// schema that the reader supports. name is the name of the value for the error, such as a file
// name.
func (v Versioned) CheckReadable(name string, supported int) error {
	if v.MinReader > supported {
		return &NewerSchemaError{Name: name, MinReader: v.MinReader, Supported: supported}
	}
	return nil
}

// NewerSchemaError reports that this rbee cannot read a value that a newer rbee has written.
type NewerSchemaError struct {
	Name      string // of the value, such as a file name
	MinReader int    // the oldest schema that can read the value
	Supported int    // the schema that this rbee supports
}

func (e *NewerSchemaError) Error() string {
	return fmt.Sprintf("%s was written by a newer rbee: it requires schema %d, but this rbee supports %d; update this rbee", e.Name, e.MinReader, e.Supported)
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (*NewerSchemaError) ErrorCode() string { return string(operations.ReasonNewerFile) }

// ErrorSubject returns a subject with the name of the value, for [operations.SubjectOf].
func (e *NewerSchemaError) ErrorSubject() operations.Subject {
	return operations.SubjectFile.WithName(e.Name)
}

// Unknown preserves the fields of a JSON value that this rbee does not know when the value is
// decoded and encoded again. Add the field
//
//	Unknown wire.Unknown `json:"-"`
//
// to a struct, and call [UnmarshalWithUnknown] and [MarshalWithUnknown] in the UnmarshalJSON
// and MarshalJSON methods of the struct.
type Unknown struct{ raw string }

// UnmarshalWithUnknown decodes data into v, which must be a pointer to a struct without JSON
// methods, and stores data in unknown if it contains fields that v does not have.
func UnmarshalWithUnknown(data []byte, v any, unknown *Unknown) error {
	if err := json.Unmarshal(data, v); err != nil {
		return err
	}
	unknown.raw = ""
	encoded, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if more, err := hasUnknownMembers(data, encoded); err != nil || !more {
		return err
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, data); err != nil {
		return err
	}
	unknown.raw = compact.String()
	return nil
}

// MarshalWithUnknown encodes v, which must be a struct without JSON methods, together with the
// fields in unknown. Fields of v that have not changed since it was decoded keep their
// original encoding.
func MarshalWithUnknown(v any, unknown Unknown) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil || unknown.raw == "" {
		return data, err
	}
	original := reflect.New(reflect.TypeOf(v))
	if err := json.Unmarshal([]byte(unknown.raw), original.Interface()); err != nil {
		return data, nil //nolint:nilerr // unknown belongs to a value of another type
	}
	oldData, err := json.Marshal(original.Interface())
	switch {
	case err != nil:
		return nil, err
	case bytes.Equal(oldData, data):
		return []byte(unknown.raw), nil
	}
	var raw, old, result map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal([]byte(unknown.raw), &raw), json.Unmarshal(oldData, &old), json.Unmarshal(data, &result)); err != nil {
		return nil, err
	}
	fields := fieldNames(reflect.TypeOf(v))
	for name, value := range raw {
		if current, ok := result[name]; ok && bytes.Equal(current, old[name]) || !fields[strings.ToLower(name)] {
			result[name] = value
		}
	}
	order, err := memberNames(data)
	if err != nil {
		return nil, err
	}
	rawOrder, err := memberNames([]byte(unknown.raw))
	if err != nil {
		return nil, err
	}
	return encodeObject(result, append(order, rawOrder...))
}

// memberNames returns the names of the members of a JSON object in their original order.
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

// encodeObject returns a JSON object with the members in the given order of their names. It
// ignores repeated names and names without a member.
func encodeObject(members map[string]json.RawMessage, order []string) ([]byte, error) {
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

// fieldNames returns the JSON names, in lower case, of the fields of a struct, including the
// fields of embedded structs.
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

// hasUnknownMembers reports whether JSON value a has a nonempty member, at any depth, that b
// does not have. It does not compare the values of members.
func hasUnknownMembers(a, b []byte) (bool, error) {
	var x, y any
	if err := json.Unmarshal(a, &x); err != nil {
		return false, err
	}
	if err := json.Unmarshal(b, &y); err != nil {
		return false, err
	}
	return valueHasUnknownMembers(x, y), nil
}

// valueHasUnknownMembers implements [hasUnknownMembers] for decoded values.
func valueHasUnknownMembers(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		other, _ := y.(map[string]any)
		for name, value := range x {
			otherValue, ok := other[name]
			if !ok && !isEmpty(value) || ok && valueHasUnknownMembers(value, otherValue) {
				return true
			}
		}
	case []any:
		other, _ := y.([]any)
		for i, value := range x {
			if i < len(other) && valueHasUnknownMembers(value, other[i]) {
				return true
			}
		}
	}
	return false
}

// isEmpty reports whether the option omitempty omits the value.
func isEmpty(v any) bool {
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

// Compatible reports whether this rbee can send requests to the rbee that created the state.
func (s *State) Compatible() bool { return compatible(s.Schema, s.MinReader) }

// Compatible reports whether this rbee understands the request.
func (r *Request) Compatible() bool { return compatible(r.Schema, r.MinReader) }

// IncompatibleReason returns the reason of the error for a request that is not Compatible:
// [operations.ReasonVersionMismatch] if this rbee is too old for it, and
// [operations.ReasonNewerHive] if this rbee is too new.
func (r *Request) IncompatibleReason() operations.Reason {
	if r.MinReader > Schema {
		return operations.ReasonVersionMismatch
	}
	return operations.ReasonNewerHive
}

func compatible(schema, minReader int) bool { return schema >= MinReader && minReader <= Schema }
