// Package statefile reads and writes the JSON files in which rbee stores state. Each file
// starts with its schema and the oldest schema whose readers can read it. A file without
// these fields has schema 0. Write keeps fields that this version of rbee does not know.
package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const (
	// Schema is the schema of the files that Write creates.
	Schema = 1

	// MinReader is the oldest schema whose readers can read the files: a reader of schema
	// 0 may ignore the fields that schema 1 added.
	MinReader = 0
)

// header contains the fields that Write adds to the content of a file.
type header struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader"`
}

// ReadSchema returns the schema of a file. If the file does not exist, the error wraps
// [fs.ErrNotExist].
func ReadSchema(path string) (wire.Versioned, error) {
	h, _, err := read(path)
	return wire.Versioned(h), err
}

// Read decodes a file into v, a pointer to a struct. If the file does not exist, the error
// wraps [fs.ErrNotExist]. If the file needs a newer rbee, the error is a
// [*wire.NewerSchemaError].
func Read(path string, v any) error {
	_, data, err := read(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("cannot decode %s: %w", path, err)
	}
	return nil
}

func read(path string) (h header, data []byte, err error) {
	if data, err = os.ReadFile(path); err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, nil, fmt.Errorf("cannot decode %s: %w", path, err)
	}
	return h, data, wire.Versioned(h).CheckReadable(path, Schema)
}

// Write atomically replaces a file with v, a struct or a pointer to a struct. It keeps
// fields of the existing file that v does not have. If the existing file needs a newer rbee,
// Write does not replace it and returns a [*wire.NewerSchemaError].
func Write(path string, v any) error {
	h, old, err := read(path)
	if newer := (*wire.NewerSchemaError)(nil); errors.As(err, &newer) {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h, old = header{}, nil // the file is damaged, so no field can be kept
	}
	data, err := encode(v, old, header{max(h.Schema, Schema), max(h.MinReader, MinReader)})
	if err != nil {
		return err
	}
	return atomicfile.WriteData(path, append(data, '\n'), 0o600)
}

// encode returns the content of a file with the header h, the fields of v and the fields of
// old, which may be nil, that v does not have.
func encode(v any, old []byte, h header) ([]byte, error) {
	value := reflect.Indirect(reflect.ValueOf(v))
	var unknown wire.Unknown
	var fields map[string]json.RawMessage
	if json.Unmarshal(old, &fields) == nil {
		delete(fields, "schema")
		delete(fields, "min_reader")
		if err := collectUnknown(fields, value.Type(), &unknown); err != nil {
			return nil, err
		}
	}
	body, err := wire.MarshalWithUnknown(value.Interface(), unknown)
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(h)
	if err != nil {
		return nil, err
	}
	if len(body) > len("{}") {
		data = append(append(data[:len(data)-1], ','), body[1:]...)
	}
	var out bytes.Buffer
	err = json.Indent(&out, data, "", "  ")
	return out.Bytes(), err
}

// collectUnknown sets unknown to the fields that the struct type t does not have. If fields
// cannot be decoded as t, it sets unknown to the zero value.
func collectUnknown(fields map[string]json.RawMessage, t reflect.Type, unknown *wire.Unknown) error {
	old, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if wire.UnmarshalWithUnknown(old, reflect.New(t).Interface(), unknown) != nil {
		*unknown = wire.Unknown{}
	}
	return nil
}
