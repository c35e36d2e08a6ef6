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
	// ErrNotFound reports that the server does not have the requested content. A
	// [StatusError] with status 404 or 410 matches it.
	ErrNotFound = errors.New("not found")

	// ErrBusy reports that another process is using the file of an incomplete download.
	ErrBusy = errors.New("another process is downloading the file")
)

// StatusError reports an HTTP response with an error status.
type StatusError struct {
	Status     int           // HTTP status code
	Code       string        // X-Error-Code header, which model hubs send; may be empty
	Message    string        // the server's message, one line; may be empty
	RetryAfter time.Duration // minimum delay before the next request, from the Retry-After header; 0 for none
}

// Error implements error.
func (e *StatusError) Error() string {
	return strings.TrimSuffix(fmt.Sprintf("the server responded with %d %s: %s", e.Status, http.StatusText(e.Status), e.Message), ": ")
}

// Is reports whether target is [ErrNotFound] and the status is 404 or 410.
func (e *StatusError) Is(target error) bool {
	return target == ErrNotFound && (e.Status == http.StatusNotFound || e.Status == http.StatusGone)
}

// Temporary reports whether a later request can succeed.
func (e *StatusError) Temporary() bool {
	return e.Status == http.StatusTooManyRequests || e.Status == http.StatusRequestTimeout || e.Status >= 500
}

// maxRetryAfter limits [StatusError.RetryAfter].
const maxRetryAfter = 60 * time.Second

// NewStatusError returns the error for a response. It reads up to 4 KiB of a JSON body for
// the server's message.
func NewStatusError(resp *http.Response) *StatusError {
	e := &StatusError{Status: resp.StatusCode, Code: resp.Header.Get("X-Error-Code"), Message: resp.Header.Get("X-Error-Message")}
	if e.Message == "" && strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json") {
		var body struct {
			Error string `json:"error"`
		}
		data, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // the message is optional
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

// MismatchError reports that the content of a download is not the expected content. The
// content is discarded.
type MismatchError struct {
	Name      string // of the file; may be empty
	Got, Want string // checksums in hex; empty if the error has another cause
	Limit     int64  // exceeded maximum size in bytes; 0 if the error has another cause
}

// Error implements error.
func (e *MismatchError) Error() string {
	switch {
	case e.Got != "" && e.Name != "":
		return fmt.Sprintf("%s has the checksum %s, want %s", e.Name, e.Got, e.Want)
	case e.Got != "":
		return fmt.Sprintf("unexpected content: its SHA-256 is %s, want %s", e.Got, e.Want)
	case e.Limit > 0:
		return fmt.Sprintf("unexpected content: more than %d bytes", e.Limit)
	default:
		return "unexpected content: it does not continue the partial download"
	}
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *MismatchError) ErrorCode() string { return string(operations.ReasonChecksum) }

// SizeError reports that a download does not have the expected size. The content is
// discarded.
type SizeError struct {
	Name      string // of the file; may be empty
	Got, Want int64  // sizes in bytes
}

// Error implements error.
func (e *SizeError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("%s has %d bytes on the server, want %d", e.Name, e.Got, e.Want)
	}
	return fmt.Sprintf("received %d bytes, want %d", e.Got, e.Want)
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *SizeError) ErrorCode() string { return string(operations.ReasonChecksum) }

// StallError reports that no data was received for the duration Limit.
type StallError struct{ Limit time.Duration }

// Error implements error.
func (e *StallError) Error() string { return fmt.Sprintf("no data received for %s", e.Limit) }

// TransferError reports that a file could not be downloaded. The received data is kept.
type TransferError struct {
	Name string
	Err  error
}

// Error implements error.
func (e *TransferError) Error() string {
	return fmt.Sprintf("cannot download %s: %v; the partial download is kept", e.Name, e.Err)
}

// Unwrap returns e.Err.
func (e *TransferError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *TransferError) ErrorCode() string { return string(DownloadReason(e.Err)) }

// downloadError is an error of [Client.DownloadTo]. It has the message of Err.
type downloadError struct{ Err error }

func (e *downloadError) Error() string { return e.Err.Error() }
func (e *downloadError) Unwrap() error { return e.Err }

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *downloadError) ErrorCode() string { return string(DownloadReason(e.Err)) }

// DownloadReason returns the reason of an error of a download: the reason of err if it has a
// more specific one, such as a full disk, and [operations.ReasonDownload] otherwise.
// [StatusError] and [StallError] have no reason, because they also occur in requests that are
// not downloads.
func DownloadReason(err error) operations.Reason {
	if reason := operations.ReasonOf(err); reason != operations.ReasonFailed {
		return reason
	}
	return operations.ReasonDownload
}

// APIError reports that the release API rejected a request. Text is the complete message,
// with advice for the user.
type APIError struct{ Text string }

// Error implements error.
func (e *APIError) Error() string { return e.Text }

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *APIError) ErrorCode() string { return string(operations.ReasonLookup) }

// IsDiskFull reports whether err was caused by a full disk or an exhausted quota.
func IsDiskFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// withoutURL removes the URL from an error of net/http, because the caller adds it. If ctx is
// done, withoutURL returns the cause of ctx instead.
func withoutURL(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var urlErr *url.Error
	if errors.As(err, &urlErr) {
		return urlErr.Err
	}
	return err
}
