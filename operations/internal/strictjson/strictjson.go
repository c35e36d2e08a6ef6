// Package strictjson reads JSON objects into structs and refuses what encoding/json
// accepts: unknown fields, names in another case, and fields that are given twice.
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

// Read fills into, a pointer to a struct, from the JSON object in data. The field
// "operation" is allowed besides those of the struct. Errors name the field.
func Read(data []byte, into any) error {
	known := fieldNames(reflect.TypeOf(into).Elem())
	keys, err := topLevelKeys(data)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for _, key := range keys {
		switch {
		case seen[key]:
			return fmt.Errorf("field %q is given twice", key)
		case key != "operation" && !slices.Contains(known, key):
			return fmt.Errorf("unknown field %q%s", key, DidYouMean(key, known))
		}
		seen[key] = true
	}
	if err := json.Unmarshal(data, into); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) {
			field := mismatch.Field[strings.LastIndexByte(mismatch.Field, '.')+1:] // without the embedded struct
			return fmt.Errorf("field %q: a JSON %s does not fit, want %s", field, mismatch.Value, mismatch.Type)
		}
		return err
	}
	return nil
}

// topLevelKeys lists the keys of one JSON object in order, repeated ones too.
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

// fieldNames lists the JSON names of a struct's fields, embedded ones included.
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

// DidYouMean returns the part of a message that suggests the known name that given most
// likely means, or nothing if none is near.
func DidYouMean[S ~string](given string, known []S) string {
	near := suggest.Nearest(given, known)
	if near == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", string(near))
}
