package operations

import (
	"encoding/json"
	"fmt"
)

// pathFields are the fields of operations that name files of the machine that does
// the operation, a queen's or the caller's own.
var pathFields = []string{"config_path", "bundle_path", "output_path"}

// WithPaths returns op with every path in it replaced by what change makes of it;
// an empty path stays. Paths are those of files on the machine that does the
// operation: its config, its bundle, its output. An error of change ends it, as an
// [*Error] with [CodeBadOperation] that names the field.
func WithPaths(op Operation, change func(path string) (string, error)) (Operation, error) {
	data, err := op.MarshalJSON()
	if err != nil {
		return nil, badOperation("%s: %v", op.Kind(), err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return nil, badOperation("%s: %v", op.Kind(), err)
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
			return nil, &Error{Code: CodeBadOperation, Reason: ReasonInvalidOperation, Subject: SubjectFile.Named(given), Message: fmt.Sprintf("%s: field %q: %v", op.Kind(), name, err), Err: err}
		}
		if fields[name], err = json.Marshal(path); err != nil {
			return nil, badOperation("%s: field %q: %v", op.Kind(), name, err)
		}
		changed = true
	}
	if !changed {
		return op, nil
	}
	if data, err = json.Marshal(fields); err != nil {
		return nil, badOperation("%s: %v", op.Kind(), err)
	}
	return Parse(data)
}
