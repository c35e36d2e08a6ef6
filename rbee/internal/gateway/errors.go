package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// APIError is an error response in OpenAI's format.
type APIError struct {
	Status     int           // HTTP status
	Type       string        // such as "invalid_request_error"; empty selects the type for Status
	Code       string        // such as "model_not_found"; may be empty
	Message    string        // human-readable
	Detail     string        // replaces Message in logs, and for clients that [Options].ShowDetail accepts; may be empty
	RetryAfter time.Duration // value of the Retry-After header; 0 omits it

	param string // invalid field of the request
}

// Error returns the message with all details.
func (e *APIError) Error() string { return e.message(true) }

// message returns Detail if withDetail is set and Detail is not empty. Otherwise it returns
// Message.
func (e *APIError) message(withDetail bool) string {
	if withDetail && e.Detail != "" {
		return e.Detail
	}
	return e.Message
}

func apiErrorf(status int, code, format string, args ...any) *APIError {
	return &APIError{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// modelError returns the error for a request without a valid model.
func modelError(format string, args ...any) *APIError {
	apiErr := apiErrorf(http.StatusBadRequest, "", format, args...)
	apiErr.param = "model"
	return apiErr
}

// overloadedError returns the error for a request that exceeds a limit of the server.
func overloadedError(format string, args ...any) *APIError {
	apiErr := apiErrorf(http.StatusServiceUnavailable, "overloaded", format, args...)
	apiErr.RetryAfter = time.Second
	return apiErr
}

// checkModelLength rejects a model name that is too long for logs and responses. size is
// in bytes.
func checkModelLength(size int) error {
	if size > maxModelName {
		return modelError("invalid model: want at most %d bytes", maxModelName)
	}
	return nil
}

// asAPIError converts err to an error response.
func asAPIError(err error) *APIError {
	var apiErr *APIError
	if errors.As(err, &apiErr) {
		return apiErr
	}
	apiErr = apiErrorf(http.StatusServiceUnavailable, "", "no worker is available")
	apiErr.Detail = fmt.Sprintf("%s: %v", apiErr.Message, err)
	return apiErr
}

// errorType returns OpenAI's error type for a status.
func errorType(status int) string {
	switch {
	case status == http.StatusNotFound:
		return "not_found_error"
	case status == http.StatusTooManyRequests:
		return "rate_limit_error"
	case status == http.StatusUnauthorized:
		return "authentication_error"
	case status == http.StatusForbidden:
		return "permission_error"
	case status >= 500:
		return "server_error"
	}
	return "invalid_request_error"
}

// json returns the response body in OpenAI's format, with Detail if withDetail is set.
func (e *APIError) json(withDetail bool) []byte {
	type nullable *string // nil is null
	orNull := func(s string) nullable {
		if s == "" {
			return nil
		}
		return &s
	}
	kind := e.Type
	if kind == "" {
		kind = errorType(e.Status)
	}
	var body struct {
		Error struct {
			Message string   `json:"message"`
			Type    string   `json:"type"`
			Param   nullable `json:"param"`
			Code    nullable `json:"code"`
		} `json:"error"`
	}
	body.Error.Message, body.Error.Type, body.Error.Param, body.Error.Code = e.message(withDetail), kind, orNull(e.param), orNull(e.Code)
	data, _ := json.Marshal(body) // never fails for strings
	return data
}

// Write sends the error as a response, without Detail.
func (e *APIError) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", e.retryAfter())
	}
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.json(false))
}

// retryAfter returns the value of the Retry-After header in seconds, rounded up.
func (e *APIError) retryAfter() string {
	return strconv.Itoa(int((e.RetryAfter + time.Second - 1) / time.Second))
}

// WorkerError reports that a worker failed to serve a request.
type WorkerError struct {
	Worker, Hive string
	Status       int   // response status; 0 if the response is missing or truncated
	Err          error // cause
}

// Error returns the worker and the cause.
func (e *WorkerError) Error() string { return e.summary() + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *WorkerError) Unwrap() error { return e.Err }

// summary returns the message without the cause, which may contain addresses.
func (e *WorkerError) summary() string {
	name := "worker " + e.Worker
	if e.Hive != "" {
		name += " on hive " + e.Hive
	}
	if e.Status == 0 {
		return name + " closed the connection or could not be reached"
	}
	return fmt.Sprintf("%s returned %d %s", name, e.Status, http.StatusText(e.Status))
}

// apiError returns the error response after the given number of failed attempts. e is the
// error of the last one.
func (e *WorkerError) apiError(attempts int) *APIError {
	apiErr := apiErrorf(http.StatusBadGateway, "worker_failed", "%s (last of %d attempts)", e.summary(), attempts)
	switch e.Status {
	case http.StatusServiceUnavailable:
		apiErr.RetryAfter = time.Second
		apiErr.Status = e.Status
	case http.StatusGatewayTimeout:
		apiErr.Status = e.Status
	}
	return apiErr
}
