package echo

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// apiError is an error in the format of OpenAI; see
// https://platform.openai.com/docs/guides/error-codes/api-errors.
type apiError struct {
	status  int
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    *string `json:"code"`
}

func (e *apiError) Error() string { return e.Message }

// newError returns an error about the request. An empty param or code is encoded as null.
func newError(status int, param, code, format string, args ...any) *apiError {
	e := &apiError{status: status, Message: fmt.Sprintf(format, args...), Type: "invalid_request_error"}
	if param != "" {
		e.Param = &param
	}
	if code != "" {
		e.Code = &code
	}
	return e
}

// badRequest returns an error for an invalid parameter.
func badRequest(param, format string, args ...any) *apiError {
	return newError(http.StatusBadRequest, param, "", format, args...)
}

// jsonError converts an error of the JSON decoder to an error that names the field.
func jsonError(err error) *apiError {
	var apiErr *apiError
	if errors.As(err, &apiErr) {
		return apiErr
	}
	var mismatch *json.UnmarshalTypeError
	if errors.As(err, &mismatch) && mismatch.Field != "" {
		field := strings.TrimPrefix(mismatch.Field, "common.") // the embedded struct is not part of the JSON path
		return badRequest(field, "Invalid type for '%s': expected %s, but got %s.",
			field, jsonTypeName(mismatch.Type.String()), mismatch.Value)
	}
	return badRequest("", "We could not parse the JSON body of your request: %v.", err)
}

// jsonTypeName returns the JSON name of a Go type.
func jsonTypeName(goType string) string {
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

// bodyError converts an error from reading the request body to an apiError.
func bodyError(err error) *apiError {
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		return newError(http.StatusRequestEntityTooLarge, "", "request_too_large",
			"The request body is larger than %s.", bytesize.Format(tooLarge.Limit))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return newError(http.StatusRequestTimeout, "", "request_timeout",
			"The request body did not arrive within %s.", bodyTimeout)
	}
	return badRequest("", "Could not read the request body: %v.", err)
}

func modelNotFound(model string) *apiError {
	return newError(http.StatusNotFound, "model", "model_not_found", "The model `%s` does not exist.", model)
}

func unknownURL(w http.ResponseWriter, r *http.Request) {
	writeError(w, newError(http.StatusNotFound, "", "unknown_url", "Unknown request URL: %s %s.", r.Method, r.URL.Path))
}

// allowMethods passes requests with the given methods to next and responds with 405 to others.
func allowMethods(next http.HandlerFunc, methods ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if slices.Contains(methods, r.Method) {
			next(w, r)
			return
		}
		w.Header().Set("Allow", strings.Join(methods, ", "))
		writeError(w, newError(http.StatusMethodNotAllowed, "", "method_not_supported",
			"The method %s is not allowed for %s; allowed methods: %s.", r.Method, r.URL.Path, strings.Join(methods, ", ")))
	}
}

func writeError(w http.ResponseWriter, e *apiError) {
	writeJSON(w, e.status, struct {
		Error *apiError `json:"error"`
	}{e})
}
