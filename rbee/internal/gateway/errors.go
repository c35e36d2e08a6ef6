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
	Message    string        // text for people
	Detail     string        // replaces Message in logs, and for clients that [Options].ShowDetail accepts; may be empty
	RetryAfter time.Duration // value of the Retry-After header; 0 omits it

	param string // invalid field of the request
}

// Error returns the message with all details.
func (r *APIError) Error() string { return r.message(true) }

// message returns Detail, if withDetail is set, or Message.
func (r *APIError) message(withDetail bool) string {
	if withDetail && r.Detail != "" {
		return r.Detail
	}
	return r.Message
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

// asAPIError returns the response for err.
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
func (r *APIError) json(withDetail bool) []byte {
	type nullable *string // nil is null
	orNull := func(s string) nullable {
		if s == "" {
			return nil
		}
		return &s
	}
	kind := r.Type
	if kind == "" {
		kind = errorType(r.Status)
	}
	var body struct {
		Error struct {
			Message string   `json:"message"`
			Type    string   `json:"type"`
			Param   nullable `json:"param"`
			Code    nullable `json:"code"`
		} `json:"error"`
	}
	body.Error.Message, body.Error.Type, body.Error.Param, body.Error.Code = r.message(withDetail), kind, orNull(r.param), orNull(r.Code)
	data, _ := json.Marshal(body) // never fails for strings
	return data
}

// Write sends the error as a response, without Detail.
func (r *APIError) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", r.retryAfter())
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.json(false))
}

// retryAfter returns the value of the Retry-After header in seconds, rounded up.
func (r *APIError) retryAfter() string {
	return strconv.Itoa(int((r.RetryAfter + time.Second - 1) / time.Second))
}

// WorkerError reports that a worker failed to serve a request.
type WorkerError struct {
	Worker, Hive string
	Status       int   // response status; 0 without a response or if it was cut off
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

// apiError returns the response for a request that failed on tries workers; e is the
// last failure.
func (e *WorkerError) apiError(tries int) *APIError {
	apiErr := apiErrorf(http.StatusBadGateway, "worker_failed", "%s (last of %d attempts)", e.summary(), tries)
	switch e.Status {
	case http.StatusServiceUnavailable:
		apiErr.RetryAfter = time.Second
		apiErr.Status = e.Status
	case http.StatusGatewayTimeout:
		apiErr.Status = e.Status
	}
	return apiErr
}
