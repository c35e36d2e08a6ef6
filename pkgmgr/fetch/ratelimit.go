package fetch

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// isRateLimited reports whether a response rejects a request because a rate limit is
// exceeded, see
// https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api.
func isRateLimited(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusTooManyRequests:
		return true
	case http.StatusForbidden:
		return resp.Header.Get("X-RateLimit-Remaining") == "0" || resp.Header.Get("Retry-After") != ""
	default:
		return false
	}
}

// rateLimitReset returns the time at which the client may send requests again; ok is false
// if the headers do not contain it. Retry-After takes precedence, because it applies to
// bursts of requests, while X-RateLimit-Reset describes the hourly limit.
func rateLimitReset(h http.Header, now time.Time) (end time.Time, ok bool) {
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

// formatTime formats t in the time zone of now. It omits the date if t is on the same day.
func formatTime(t, now time.Time) string {
	t = t.In(now.Location())
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format(time.DateTime)
}
