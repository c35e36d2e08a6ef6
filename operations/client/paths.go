package client

import (
	"encoding/json"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
)

// pathFields are the fields of operations that name files of the machine that does
// the operation, a queen's or the caller's own.
var pathFields = []string{"config_path", "bundle_path", "output_path"}

// WithPaths returns op with every path in it replaced by what change makes of it;
// an empty path stays. Paths are those of files on the machine that does the
// operation: its config, its bundle, its output. An error of change ends it, as an
// [*operations.Error] with [operations.CodeBadOperation] that names the field.
func WithPaths(op operations.Operation, change func(path string) (string, error)) (operations.Operation, error) {
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
		given := path
		path, err := change(given)
		if err != nil {
			return nil, &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectFile.Named(given), Message: fmt.Sprintf("%s: field %q: %v", op.Kind(), name, err), Err: err}
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
