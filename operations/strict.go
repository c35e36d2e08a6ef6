package operations

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations/internal/jsonkeys"
	"github.com/rbee-keeper/rbee/operations/suggest"
)

// readFields fills into, a pointer to a struct, from the JSON object in data.
// encoding/json alone would take keys in any case and the last of two equal
// keys; here both are refused.
func readFields(kind Kind, data []byte, into any) error {
	known := fieldNames(reflect.TypeOf(into).Elem())
	keys, err := jsonkeys.TopLevel(data)
	if err != nil {
		return badOperation("%s: %v", kind, err)
	}
	seen := map[string]bool{}
	for _, key := range keys {
		switch {
		case seen[key]:
			return badOperation("%s: field %q is given twice", kind, key)
		case key != "operation" && !slices.Contains(known, key):
			return badOperation("%s: unknown field %q%s", kind, key, didYouMean(key, known))
		}
		seen[key] = true
	}
	if err := json.Unmarshal(data, into); err != nil {
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &mismatch) {
			field := mismatch.Field[strings.LastIndexByte(mismatch.Field, '.')+1:] // without the embedded struct
			return badOperation("%s: field %q: a JSON %s does not fit, want %s", kind, field, mismatch.Value, mismatch.Type)
		}
		return badOperation("%s: %v", kind, err)
	}
	return nil
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

// didYouMean returns the part of a message that suggests the known name that given most
// likely means, or nothing if none is near.
func didYouMean[S ~string](given string, known []S) string {
	near := suggest.Nearest(given, known)
	if near == "" {
		return ""
	}
	return fmt.Sprintf(", did you mean %q?", string(near))
}
