// Package strictjson decodes JSON objects into structs. Unlike encoding/json, it rejects
// unknown fields, field names in a different case, and duplicate fields.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations/suggest"
)

// Unmarshal decodes the JSON object in data into v, a pointer to a struct. In addition
// to the fields of the struct, it accepts and ignores the field "operation". Errors name
// the field.
func Unmarshal(data []byte, v any) error {
	known := fieldNames(reflect.TypeOf(v).Elem())
	keys, err := topLevelKeys(data)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, key := range keys {
		switch {
		case seen[key]:
			return fmt.Errorf("duplicate field %q", key)
		case key != "operation" && !slices.Contains(known, key):
			return fmt.Errorf("unknown field %q%s", key, DidYouMean(key, known))
		}
		seen[key] = true
	}
	if err := json.Unmarshal(data, v); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) {
			field := mismatch.Field[strings.LastIndexByte(mismatch.Field, '.')+1:] // without the name of the embedded struct
			return fmt.Errorf("invalid field %q: got JSON %s, want %s", field, mismatch.Value, mismatch.Type)
		}
		return err
	}
	return nil
}

// topLevelKeys returns the keys of one JSON object in order, including duplicates.
func topLevelKeys(data []byte) ([]string, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	var keys []string
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return nil, err
		}
		name, _ := key.(string)
		keys = append(keys, name)
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, err
		}
	}
	if _, err := dec.Token(); err != nil {
		return nil, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one JSON value")
	}
	return keys, nil
}

// fieldNames returns the JSON names of a struct's fields, including embedded fields.
func fieldNames(t reflect.Type) []string {
	var names []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			names = append(names, fieldNames(f.Type)...)
			continue
		}
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		names = append(names, name)
	}
	return names
}

// DidYouMean returns a suffix for an error message, such as `, did you mean "force"?`, with
// the known name that is nearest to name. It returns "" if no known name is close enough.
func DidYouMean[S ~string](name string, known []S) string {
	nearest := suggest.Nearest(name, known)
	if nearest == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", string(nearest))
}
