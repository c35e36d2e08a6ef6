package gateway

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Refusal is an error that the client is told.
type Refusal struct {
	Status     int           // of the answer
	Type       string        // such as "invalid_request_error"; empty: the one that goes with the status
	Code       string        // such as "model_not_found"; may be empty
	Message    string        // for people
	Detail     string        // the whole story, for the log and for those who may know ([Options].MayKnow), in place of Message; empty: Message is all
	RetryAfter time.Duration // when to come again; 0: unsaid

	param string // the field of the request that is wrong
}

// Error is the whole story.
func (r *Refusal) Error() string { return r.text(true) }

// text is what somebody is told.
func (r *Refusal) text(mayKnow bool) string {
	if mayKnow && r.Detail != "" {
		return r.Detail
	}
	return r.Message
}

func refusalf(status int, code, format string, args ...any) *Refusal {
	return &Refusal{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// badModel refuses a request whose model cannot be made out.
func badModel(format string, args ...any) *Refusal {
	no := refusalf(http.StatusBadRequest, "", format, args...)
	no.param = "model"
	return no
}

// overloaded refuses what there is no room for now.
func overloaded(format string, args ...any) *Refusal {
	no := refusalf(http.StatusServiceUnavailable, "overloaded", format, args...)
	no.RetryAfter = time.Second
	return no
}

// checkName refuses a model's name of so many bytes if they are too many to be written
// into logs and answers. No model has such a name.
func checkName(size int) error {
	if size > maxModel {
		return badModel("the model's name has more than %d bytes", maxModel)
	}
	return nil
}

// asRefusal is what a client is told of err.
func asRefusal(err error) *Refusal {
	var no *Refusal
	if errors.As(err, &no) {
		return no
	}
	no = refusalf(http.StatusServiceUnavailable, "", "no worker could be found")
	no.Detail = fmt.Sprintf("%s: %v", no.Message, err)
	return no
}

// typeOf is the word that goes with a status.
func typeOf(status int) string {
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

// json writes the refusal as OpenAI does, for somebody who may know all of it or not.
func (r *Refusal) json(mayKnow bool) []byte {
	type text *string // null, if there is none
	orNull := func(s string) text {
		if s == "" {
			return nil
		}
		return &s
	}
	kind := r.Type
	if kind == "" {
		kind = typeOf(r.Status)
	}
	var body struct {
		Error struct {
			Message string `json:"message"`
			Type    string `json:"type"`
			Param   text   `json:"param"`
			Code    text   `json:"code"`
		} `json:"error"`
	}
	body.Error.Message, body.Error.Type, body.Error.Param, body.Error.Code = r.text(mayKnow), kind, orNull(r.param), orNull(r.Code)
	data, _ := json.Marshal(body) // strings can always be written
	return data
}

// Write responds with the refusal, for a client that may not know all of it.
func (r *Refusal) Write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/json")
	if r.RetryAfter > 0 {
		w.Header().Set("Retry-After", r.retryAfter())
	}
	w.WriteHeader(r.Status)
	_, _ = w.Write(r.json(false))
}

// retryAfter is the header's value: whole seconds, so that nobody comes too early.
func (r *Refusal) retryAfter() string {
	return strconv.Itoa(int((r.RetryAfter + time.Second - 1) / time.Second))
}

// WorkerError is a worker that failed at a request.
type WorkerError struct {
	Worker, Hive string
	Status       int   // what it answered; 0: nothing, or it broke off
	Err          error // why
}

// Error says which worker failed and why.
func (e *WorkerError) Error() string { return e.brief() + ": " + e.Err.Error() }

// Unwrap is why.
func (e *WorkerError) Unwrap() error { return e.Err }

// brief leaves out why, which may hold addresses that are no client's business.
func (e *WorkerError) brief() string {
	name := "worker " + e.Worker
	if e.Hive != "" {
		name += " on hive " + e.Hive
	}
	if e.Status == 0 {
		return name + " broke off or could not be reached"
	}
	return fmt.Sprintf("%s answered %d %s", name, e.Status, http.StatusText(e.Status))
}

// refusal is what the client is told after so many tries, the last of which failed so.
func (e *WorkerError) refusal(tries int) *Refusal {
	no := refusalf(http.StatusBadGateway, "worker_failed", "%s, the last of %d tries", e.brief(), tries)
	switch e.Status {
	case http.StatusServiceUnavailable:
		no.RetryAfter = time.Second
		no.Status = e.Status
	case http.StatusGatewayTimeout:
		no.Status = e.Status
	}
	return no
}
