package fetch

import (
	"net/http"
	"testing"
	"time"
)

func TestRateLimitReset(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("local", 2*60*60)
	now := time.Date(2026, 11, 29, 23, 30, 0, 0, zone)
	for name, k := range map[string]struct {
		status  int
		headers map[string]string
		limited bool
		want    string // empty if unknown
	}{
		"today":                 {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795988700"}, true, "23:45:00"},
		"tomorrow":              {403, map[string]string{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795990500"}, true, "2026-11-30 00:15:00"},
		"seconds":               {429, map[string]string{"Retry-After": "60"}, true, "23:31:00"},
		"seconds past midnight": {429, map[string]string{"Retry-After": "3600"}, true, "2026-11-30 00:30:00"},
		"date":                  {429, map[string]string{"Retry-After": "Sun, 29 Nov 2026 21:40:00 GMT"}, true, "23:40:00"},
		"date tomorrow":         {429, map[string]string{"Retry-After": "Mon, 30 Nov 2026 12:00:00 GMT"}, true, "2026-11-30 14:00:00"},
		"burst":                 {403, map[string]string{"Retry-After": "60", "X-RateLimit-Remaining": "4990", "X-RateLimit-Reset": "1795990500"}, true, "23:31:00"},
		"no headers":            {429, nil, true, ""},
		"invalid headers":       {429, map[string]string{"Retry-After": "soon", "X-RateLimit-Reset": "later"}, true, ""},
		"negative values":       {429, map[string]string{"Retry-After": "-1", "X-RateLimit-Reset": "-1"}, true, ""},
		"one invalid header":    {429, map[string]string{"Retry-After": "soon", "X-RateLimit-Reset": "1795988700"}, true, "23:45:00"},
		"forbidden":             {403, map[string]string{"X-RateLimit-Remaining": "59"}, false, ""},
		"other error":           {500, map[string]string{"X-RateLimit-Remaining": "0"}, false, ""},
	} {
		resp := &http.Response{StatusCode: k.status, Header: http.Header{}}
		for key, value := range k.headers {
			resp.Header.Set(key, value)
		}
		if got := isRateLimited(resp); got != k.limited {
			t.Errorf("%s: isRateLimited() = %t, want %t", name, got, k.limited)
		}
		if !k.limited {
			continue
		}
		got := ""
		if end, ok := rateLimitReset(resp.Header, now); ok {
			got = formatTime(end, now)
		}
		if got != k.want {
			t.Errorf("%s: rateLimitReset() = %q, want %q", name, got, k.want)
		}
	}
}
