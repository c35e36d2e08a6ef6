package controller

import (
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

func TestEachEvent(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream, want string
		truncated          bool
	}{
		{"complete", "data: a\n\ndata: b\n\ndata: [DONE]\n\n", "a|b|", false},
		{"CRLF, comments and event names", ": hi\r\n\r\nevent: x\r\ndata:a\r\n\r\ndata: [DONE]\r\n", "a|", false},
		{"truncated", "data: a\n\nda", "a|", true},
		{"empty", "", "", true},
	} {
		var got strings.Builder
		err := eachEvent(strings.NewReader(c.stream), func(data []byte) error { got.WriteString(string(data) + "|"); return nil })
		if got.String() != c.want || errors.Is(err, errTruncated) != c.truncated {
			t.Errorf("%s: eachEvent() passed %q and returned %v, want %q, truncated: %t", c.name, got.String(), err, c.want, c.truncated)
		}
	}
}

func TestErrorMessage(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"error":{"message":"too long","code":400}}`: "too long",
		`{"error":"model not loaded"}`:                "model not loaded",
		"<html>\n  Bad Gateway </html>":               "<html> Bad Gateway </html>",
		"":                                            "",
	} {
		if got := errorMessage(strings.NewReader(in)); got != want {
			t.Errorf("errorMessage(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestIsCompletionOnly(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   bool
	}{
		{http.StatusOK, "", false},
		{http.StatusNotFound, "", true},
		{http.StatusBadRequest, `{"error":{"message":"a chat template is not defined"}}`, true},
		{http.StatusBadRequest, `{"error":{"message":"max_tokens is too large"}}`, false},
		{http.StatusInternalServerError, "chat template", false},
	} {
		resp := &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body))}
		if got := isCompletionOnly(resp); got != c.want {
			t.Errorf("isCompletionOnly(%d %s) = %t, want %t", c.status, c.body, got, c.want)
		}
		if rest, _ := io.ReadAll(resp.Body); string(rest) != c.body {
			t.Errorf("body after isCompletionOnly(%d) = %q, want %q", c.status, rest, c.body)
		}
	}
}

// TestInferUnknownHive checks that infer returns the error about the hive or the config, not
// an error about missing workers.
func TestInferUnknownHive(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, config string
		want         operations.Reason
	}{
		{"unknown hive", "[[hive]]\nalias = \"gpu-1\"\nhostname = \"127.0.0.1\"\n", operations.ReasonUnknownHive},
		{"missing config", "", operations.ReasonConfigMissing},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "hives.conf")
		if test.config != "" {
			if err := os.WriteFile(path, []byte(test.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := New(Options{Version: "1", Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: dir, CacheDir: dir}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		op := operations.Infer{Target: operations.Target{HiveID: "nosuch", ConfigPath: path}, Model: "m", Prompt: "p", MaxTokens: 1}
		if _, err := c.Run(t.Context(), op, nil); operations.ReasonOf(err) != test.want {
			t.Errorf("%s: Run(infer) = %v (reason %s), want reason %s", test.name, err, operations.ReasonOf(err), test.want)
		}
	}
}
