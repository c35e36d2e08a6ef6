package ui

import (
	"encoding/json"
	"io"

	"github.com/rbee-keeper/rbee/operations"
)

// JSON writes v as one indented JSON document.
func JSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// errorDocument is the JSON output of a command that failed without a report.
type errorDocument struct {
	Status string    `json:"status"` // always "error"
	Error  errorBody `json:"error"`
}

type errorBody struct {
	*operations.Error
	Hint string `json:"hint,omitempty"`
}

// JSONError writes an error as one indented JSON document:
// {"status":"error","error":{"code":…,"message":…,"hint":…}}. If hint is empty,
// it writes the result of [Hint].
func JSONError(w io.Writer, e *operations.Error, hint string) error {
	if hint == "" {
		hint = Hint(e)
	}
	return JSON(w, errorDocument{Status: "error", Error: errorBody{e, hint}})
}
