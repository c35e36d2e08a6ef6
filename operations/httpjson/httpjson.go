// Package httpjson writes and reads the JSON responses of rbee's own HTTP API. Error
// responses contain an [operations.Error]:
//
//	{"error": {"code": "not_found", "message": "…"}}
//
// The gateway does not use this form. Its errors have the form of the API that it serves,
// such as the OpenAI API.
package httpjson

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/rbee-keeper/rbee/operations"
)

// maxErrorBytes limits how much of a response [ReadError] reads.
const maxErrorBytes = 1 << 20

// ErrorBody is the body of an error response.
type ErrorBody struct {
	Error *operations.Error `json:"error"`
}

// NewErrorBody returns the body for err. If no [*operations.Error] is in the chain of err,
// it creates one with [operations.CodeFailed].
func NewErrorBody(err error) ErrorBody {
	e := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: err.Error(), Err: err}
	errors.As(err, &e)
	return ErrorBody{e}
}

// Write responds with the JSON encoding of v. It ignores write errors. If v cannot be
// encoded, it responds with status 500 and an [ErrorBody].
func Write(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		status = http.StatusInternalServerError
		data, _ = json.Marshal(ErrorBody{&operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Message: "cannot encode the response"}})
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// WriteError responds with the [ErrorBody] of err.
func WriteError(w http.ResponseWriter, status int, err error) { Write(w, status, NewErrorBody(err)) }

// ReadError returns the error in the body of a response, or nil if the body is not an
// [ErrorBody].
func ReadError(body io.Reader) *operations.Error {
	data, _ := io.ReadAll(io.LimitReader(body, maxErrorBytes)) // truncated data does not decode
	var b ErrorBody
	if json.Unmarshal(data, &b) != nil || b.Error == nil || b.Error.Code == "" || b.Error.Message == "" {
		return nil
	}
	return b.Error
}
