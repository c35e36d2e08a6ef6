package echo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
)

// apiError is a refusal in OpenAI's shape; see
// https://platform.openai.com/docs/guides/error-codes/api-errors.
type apiError struct {
	status  int
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.Message }

// refuse makes an error about the request. An empty param or code becomes null.
func refuse(status int, param, code, format string, args ...any) *apiError {
	e := &apiError{status: status, Message: fmt.Sprintf(format, args...), Type: "invalid_request_error"}
	if param != "" {
		e.Param = &param
	}
	if code != "" {
		e.Code = &code
	}
	return e
}

// badRequest is the commonest refusal: one parameter has a wrong value.
func badRequest(param, format string, args ...any) *apiError {
	return refuse(http.StatusBadRequest, param, "", format, args...)
}

// badJSON turns what the decoder said into a refusal that names the field.
func badJSON(err error) *apiError {
	var already *apiError
	if errors.As(err, &already) {
		return already
	}
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) && mismatch.Field != "" {
		field := strings.TrimPrefix(mismatch.Field, "common.") // the embedded struct is no part of the path
		return badRequest(field, "Invalid type for '%s': expected %s, but got %s.",
			field, typeName(mismatch.Type.String()), mismatch.Value)
	}
	return badRequest("", "We could not parse the JSON body of your request: %v.", err)
}

// typeName says a Go type in JSON's words.
func typeName(goType string) string {
	switch t := strings.TrimLeft(goType, "*"); {
	case t == "int":
		return "an integer"
	case t == "bool":
		return "a boolean"
	case t == "string":
		return "a string"
	case strings.HasPrefix(t, "[]"):
		return "an array"
	default:
		return "an object"
	}
}

// badBody turns a failed read of the request's body into a refusal.
func badBody(err error) *apiError {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return refuse(http.StatusRequestEntityTooLarge, "", "request_too_large",
			"The request body is larger than %d bytes.", tooLarge.Limit)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(http.StatusRequestTimeout, "", "request_timeout",
			"The request body did not arrive within %s.", bodyTimeout)
	}
	return badRequest("", "The request body could not be read: %v.", err)
}

func modelNotFound(model string) *apiError {
	return refuse(http.StatusNotFound, "model", "model_not_found", "The model `%s` does not exist.", model)
}

func unknownURL(w http.ResponseWriter, r *http.Request) {
	writeError(w, refuse(http.StatusNotFound, "", "unknown_url", "Unknown request URL: %s %s.", r.Method, r.URL.Path))
}

// only lets the given methods through and refuses the others with 405.
func only(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, r.Method) {
			next(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		writeError(w, refuse(http.StatusMethodNotAllowed, "", "method_not_supported",
			"Not allowed to %s on %s; allowed: %s.", r.Method, r.URL.Path, strings.Join(methods, ", ")))
	}
}

func writeError(w http.ResponseWriter, e *apiError) {
	writeJSON(w, e.status, struct {
		Error *apiError `json:"error"`
	}{e})
}
