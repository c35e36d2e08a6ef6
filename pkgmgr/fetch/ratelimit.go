package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// limited reports whether an answer says that a client has made too many requests:
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
func limited(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden:
		return resp.Header.Get("X-RateLimit-Remaining") == "0" || resp.Header.Get("Retry-After") != ""
	default:
		return false
	}
}

// limitEnd returns when a limit of requests ends; ok is false if the answer does not
// say so. Retry-After takes precedence: the answer to a burst of requests has it, while
// the other headers describe the limit of the hour.
func limitEnd(h http.Header, now time.Time) (end time.Time, ok bool) {
	after := strings.TrimSpace(h.Get("Retry-After"))
	if n, err := strconv.ParseInt(after, 10, 32); err == nil && n >= 0 {
		return now.Add(time.Duration(n) * time.Second), true
	}
	if at, err := http.ParseTime(after); err == nil {
		return at, true
	}
	if at, err := strconv.ParseInt(h.Get("X-RateLimit-Reset"), 10, 64); err == nil && at > 0 {
		return time.Unix(at, 0), true
	}
	return time.Time{}, false
}

// clock formats a time in the time zone of now, with the date if that is another day.
func clock(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
