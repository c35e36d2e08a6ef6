// Package statefile reads and writes the JSON files in which rbee stores state. Each file
// starts with its schema and the oldest schema whose readers understand it; a file without
// them has schema 0. Rewriting a file keeps fields that this rbee does not know.
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
	// Schema is the version of the format of all these files.
	Schema = 1

	// MinReader is the oldest schema whose readers understand the files: they may ignore
	// the additions of schema 1.
	MinReader = 0
)

// header contains the fields that the files have in addition to their content.
type header struct {
	Schema    int `json:"schema"`
	MinReader int `json:"min_reader"`
}

// Head returns the schema of a file. The error for a missing file is
// [fs.ErrNotExist].
func Head(path string) (wire.Versioned, error) {
	h, _, err := read(path)
	return wire.Versioned(h), err
}

// Read decodes a file into v, a pointer to a struct. The error for a missing file is
// [fs.ErrNotExist], and for a file that needs a newer rbee a [*wire.NewerSchemaError].
func Read(path string, v any) error {
	_, data, err := read(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func read(path string) (h header, data []byte, err error) {
	if data, err = os.ReadFile(path); err != nil {
		return h, nil, err
	}
	if err := json.Unmarshal(data, &h); err != nil {
		return h, nil, fmt.Errorf("%s: %w", path, err)
	}
	return h, data, wire.Versioned(h).Readable(path, Schema)
}

// Write atomically replaces a file with v, a struct or a pointer to a struct. It keeps
// fields of the existing file that v does not have. It does not replace a file that needs a
// newer rbee: the error is a [*wire.NewerSchemaError].
func Write(path string, v any) error {
	h, old, err := read(path)
	if newer := (*wire.NewerSchemaError)(nil); errors.As(err, &newer) {
		return err
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		h, old = header{}, nil // damaged: no field can be kept
	}
	data, err := encode(v, old, header{max(h.Schema, Schema), max(h.MinReader, MinReader)})
	if err != nil {
		return err
	}
	return atomicfile.WriteData(path, append(data, '\n'), 0o600)
}

// encode returns the content of a file with v and the unknown fields of old, which may be
// nil.
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
	body, err := wire.EncodeKeeping(value.Interface(), unknown)
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

// collectUnknown stores in unknown the fields that the struct type t does not have.
func collectUnknown(fields map[string]json.RawMessage, t reflect.Type, unknown *wire.Unknown) error {
	old, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	if wire.DecodeKeeping(old, reflect.New(t).Interface(), unknown) != nil {
		*unknown = wire.Unknown{} // not of type t: no field can be kept
	}
	return nil
}
