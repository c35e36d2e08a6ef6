package queen

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
)

func TestReadDoor(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, out string
		token     operations.Secret
		port      int
		code      operations.Code
		reason    string
	}{
		{name: "whole", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\n \"pid\": 1,\n \"port\": 8600\n}\n\x1eend\n", token: "abc", port: 8600},
		{name: "after noise", out: "Welcome!\n\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}\x1eend\n", token: "abc", port: 1},
		{name: "no rbee", out: "\x1eabsent\n", code: operations.CodeNotFound},
		{name: "no daemon", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord \x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no token", out: "\x1ehome /h\n\x1etoken \n\x1erecord {\"port\":1}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "half a record", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"po\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "no port", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {}\x1eend\n", code: operations.CodeUnreachable, reason: "daemon"},
		{name: "a shell that refuses", out: "This account is not available.\n", code: operations.CodeFailed},
		{name: "nothing", code: operations.CodeFailed},
		{name: "cut", out: "\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\":1}", code: operations.CodeFailed},
	} {
		home, token, port, err := readDoor(c.out)
		if (home == "/h") != (err == nil) || token != c.token || port != c.port || operations.CodeOf(err) != c.code {
			t.Errorf("%s: %q, %d, %v", c.name, string(token), port, err)
		}
		if e, ok := err.(*operations.Error); ok && e.Reason != c.reason { //nolint:errorlint // it is made here
			t.Errorf("%s: reason %q", c.name, e.Reason)
		}
		if err != nil && strings.Contains(err.Error(), "abc") {
			t.Errorf("%s: the token is told: %v", c.name, err)
		}
	}
}

func FuzzReadDoor(f *testing.F) {
	f.Add("\x1ehome /h\n\x1etoken abc\n\x1erecord {\"port\": 8600}\n\x1eend\n")
	f.Add("\x1eabsent")
	f.Fuzz(func(t *testing.T, out string) {
		home, token, port, err := readDoor(out)
		if (err == nil) != (home != "" && token != "" && port > 0) {
			t.Errorf("%q, %d, %v", string(token), port, err)
		}
	})
}
