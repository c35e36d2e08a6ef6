// Package httpjson writes and reads the JSON responses of rbee's own HTTP API: the values
// that the queen and the hives respond with, and their errors, which have the form
//
//	{"error": {"code": "not_found", "message": "…"}}
//
// with an [operations.Error]. The gateway responds with the errors of the API that the
// application uses instead.
package httpjson

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/rbee-keeper/rbee/operations"
)

// maxError is how much of a response [ReadError] reads.
const maxError = 1 << 20

// ErrorBody is the body of a response that is an error.
type ErrorBody struct {
	Error *operations.Error `json:"error"`
}

// NewErrorBody returns the body for an error. An error that is no [operations.Error]
// becomes one with [operations.CodeFailed].
func NewErrorBody(err error) ErrorBody {
	e := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: err.Error(), Err: err}
	errors.As(err, &e)
	return ErrorBody{e}
}

// Write responds with a value as JSON. Nothing is done about a client that has left.
func Write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		data, _ = json.Marshal(ErrorBody{&operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Message: "the answer cannot be written"}})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// WriteError responds with an error.
func WriteError(w http.ResponseWriter, status int, err error) { Write(w, status, NewErrorBody(err)) }

// ReadError returns the error in the body of a response, or nil if it has none that rbee
// would write.
func ReadError(body io.Reader) *operations.Error {
	data, _ := io.ReadAll(io.LimitReader(body, maxError)) // what cannot be read is no error of rbee's
	var b ErrorBody
	if json.Unmarshal(data, &b) != nil || b.Error == nil || b.Error.Code == "" || b.Error.Message == "" {
		return nil
	}
	return b.Error
}
