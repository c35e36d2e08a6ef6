package client

import (
	"encoding/json"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

// pathFields lists the fields of operations that are paths on the machine that runs the
// operation.
var pathFields = []string{"config_path", "bundle_path", "output_path"}

// MapPaths returns a copy of op in which every path is replaced with mapping(path). It does
// not call mapping for empty paths. The paths of an operation are the config, the bundle and
// the output file on the machine that runs the operation. If mapping returns an error,
// MapPaths returns an [*operations.Error] with [operations.CodeBadOperation] that names the
// field.
func MapPaths(op operations.Operation, mapping func(path string) (string, error)) (operations.Operation, error) {
	data, err := op.MarshalJSON()
	if err != nil {
		return nil, invalidOperation("%s: %v", op.Kind(), err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, invalidOperation("%s: %v", op.Kind(), err)
	}
	changed := false
	for _, name := range pathFields {
		var path string
		if raw, ok := fields[name]; !ok || json.Unmarshal(raw, &path) != nil || path == "" {
			continue
		}
		original := path
		path, err := mapping(original)
		if err != nil {
			return nil, &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectFile.WithName(original), Message: fmt.Sprintf("%s: field %q: %v", op.Kind(), name, err), Err: err}
		}
		if fields[name], err = json.Marshal(path); err != nil {
			return nil, invalidOperation("%s: field %q: %v", op.Kind(), name, err)
		}
		changed = true
	}
	if !changed {
		return op, nil
	}
	if data, err = json.Marshal(fields); err != nil {
		return nil, invalidOperation("%s: %v", op.Kind(), err)
	}
	return operations.Parse(data)
}
