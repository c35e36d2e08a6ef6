// Package jsonkeys lists the keys of JSON objects as they are written, which
// encoding/json does not report.
package jsonkeys

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// TopLevel lists the keys of one JSON object in order, repeated ones too.
func TopLevel(data []byte) ([]string, error) {
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
