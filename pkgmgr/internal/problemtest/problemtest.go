// Package problemtest formats the problems of invalid files for tests.
package problemtest

import (
	"errors"
	"fmt"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
)

// Lines returns a line of the form "line:column hive: message (hint)" for each problem of err.
// It calls t.Fatalf if err is not an [*operations.Error] with [operations.CodeConfigInvalid].
func Lines(t *testing.T, err error) []string {
	t.Helper()
	var e *operations.Error
	if !errors.As(err, &e) || e.Code != operations.CodeConfigInvalid {
		t.Fatalf("the error is %v, want an operations.Error with code config_invalid", err)
	}
	var out []string
	for _, p := range e.Problems {
		line := fmt.Sprintf("%d:%d ", p.Line, p.Column)
		if p.Hive != "" {
			line += p.Hive + ": "
		}
		line += p.Message
		if p.Hint != "" {
			line += " (" + p.Hint + ")"
		}
		out = append(out, line)
	}
	return out
}
