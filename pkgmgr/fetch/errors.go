package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

var (
	// ErrNotFound is a file or an answer that the server does not have. A [StatusError]
	// with status 404 or 410 matches it.
	ErrNotFound = errors.New("not found")

	// ErrBusy is an unfinished download that another process continues.
	ErrBusy = errors.New("another run downloads it")
)

// StatusError is an HTTP response that has no content for the caller.
type StatusError struct {
	Status     int           // HTTP status code
	Code       string        // X-Error-Code, which model hubs send; may be empty
	Message    string        // the server's message, one line; may be empty
	RetryAfter time.Duration // how long the server asks clients to wait; 0 if it does not say
}

// Error implements error.
func (e *StatusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("the server answered %d %s: %s", e.Status, http.StatusText(e.Status), e.Message), ": ")
}

// Is reports whether target is [ErrNotFound] and the server has nothing at the address.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// Temporary reports whether a later request can succeed.
func (e *StatusError) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout || e.Status >= 500
}

// maxRetryAfter limits how long a server can make a download wait.
const maxRetryAfter = 60 * time.Second

// NewStatusError returns the error for a response. It reads the beginning of the body if
// that is JSON with a message.
func NewStatusError(resp *http.Response) *StatusError {
	e := &StatusError{Status: resp.StatusCode, Code: resp.Header.Get("X-Error-Code"), Message: resp.Header.Get("X-Error-Message")}
	if e.Message == "" && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		var body struct {
			Error string `json:"error"`
		}
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // its words are no more than a help
		if json.Unmarshal(data, &body) == nil {
			e.Message = body.Error
		}
	}
	e.Message = strings.Join(strings.Fields(e.Message), " ")
	e.Message = e.Message[:min(len(e.Message), 300)]
	if secs, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && secs >= 0 {
		e.RetryAfter = min(time.Duration(min(secs, 1e6))*time.Second, maxRetryAfter)
	}
	return e
}

// MismatchError is a download with other content than was promised. The content is
// discarded.
type MismatchError struct {
	Name      string // of the file; empty if it has none
	Got, Want string // checksums in hex; empty if they are not the reason
	Limit     int64  // bytes; 0 if too much content is not the reason
}

// Error implements error.
func (e *MismatchError) Error() string {
	switch {
	case e.Got != "" && e.Name != "":
		return fmt.Sprintf("%s has the checksum %s, want %s", e.Name, e.Got, e.Want)
	case e.Got != "":
		return fmt.Sprintf("it is not what was promised: its SHA-256 is %s, want %s", e.Got, e.Want)
	case e.Limit > 0:
		return fmt.Sprintf("it is not what was promised: more than %d bytes came", e.Limit)
	default:
		return "it is not what was promised: what came before is no beginning of it"
	}
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *MismatchError) ErrorCode() string { return string(operations.ReasonChecksum) }

// SizeError is a download that has not the size that was promised. The content is
// discarded.
type SizeError struct {
	Name      string // of the file; empty if it has none
	Got, Want int64
}

// Error implements error.
func (e *SizeError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("%s has %d bytes there, not %d as was promised", e.Name, e.Got, e.Want)
	}
	return fmt.Sprintf("%d bytes came, want %d", e.Got, e.Want)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *SizeError) ErrorCode() string { return string(operations.ReasonChecksum) }

// StallError is a transfer in which no byte came for Limit.
type StallError struct{ Limit time.Duration }

// Error implements error.
func (e *StallError) Error() string { return fmt.Sprintf("no byte came for %s", e.Limit) }

// TransferError is a file that could not be downloaded. What has arrived of it is kept.
type TransferError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *TransferError) Error() string {
	return fmt.Sprintf("fetching %s: %v; what has arrived is kept", e.Name, e.Err)
}

// Unwrap returns the reason.
func (e *TransferError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *TransferError) ErrorCode() string { return string(DownloadReason(e.Err)) }

// downloadError is an error of [Client.DownloadTo]. It has the text of Err.
type downloadError struct{ Err error }

func (e *downloadError) Error() string { return e.Err.Error() }
func (e *downloadError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *downloadError) ErrorCode() string { return string(DownloadReason(e.Err)) }

// DownloadReason returns the reason of an error of a download: [operations.ReasonDownload]
// unless err has a reason of its own, such as that of a full disk. A [StatusError] and a
// [StallError] alone have none, because requests that are not downloads fail with them too.
func DownloadReason(err error) operations.Reason {
	if reason := operations.ReasonOf(err); reason != operations.ReasonFailed {
		return reason
	}
	return operations.ReasonDownload
}

// APIError says why the release API does not answer, and what would help.
type APIError struct{ Text string }

// Error implements error.
func (e *APIError) Error() string { return e.Text }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *APIError) ErrorCode() string { return string(operations.ReasonLookup) }

// IsDiskFull reports whether an error is that of a full disk or an exhausted quota.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// withoutAddress is an error of net/http without the address that it repeats, or the
// reason why the request was ended.
func withoutAddress(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var in *url.Error
	if errors.As(err, &in) {
		return in.Err
	}
	return err
}
