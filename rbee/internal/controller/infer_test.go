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

func TestEachPiece(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream, want string
		cut                bool
	}{
		{"whole", "data: a\n\ndata: b\n\ndata: [DONE]\n\n", "a|b|", false},
		{"carriage returns, comments and names", ": hi\r\n\r\nevent: x\r\ndata:a\r\n\r\ndata: [DONE]\r\n", "a|", false},
		{"cut", "data: a\n\nda", "a|", true},
		{"empty", "", "", true},
	} {
		var got strings.Builder
		err := eachEvent(strings.NewReader(c.stream), func(data []byte) error { got.WriteString(string(data) + "|"); return nil })
		if got.String() != c.want || errors.Is(err, errTruncated) != c.cut {
			t.Errorf("%s: %q, %v", c.name, got.String(), err)
		}
	}
}

func TestComplaint(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"error":{"message":"too long","code":400}}`: "too long",
		`{"error":"model not loaded"}`:                "model not loaded",
		"<html>\n  Bad Gateway </html>":               "<html> Bad Gateway </html>",
		"":                                            "",
	} {
		if got := errorMessage(strings.NewReader(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSpeaksNoChat(t *testing.T) {
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
			t.Errorf("%d %s: %t", c.status, c.body, got)
		}
		if rest, _ := io.ReadAll(resp.Body); string(rest) != c.body {
			t.Errorf("%d: the body is lost", c.status)
		}
	}
}

// TestInferUnknownHive checks that infer reports why it cannot determine the hives, in
// place of that no worker serves the model.
func TestInferUnknownHive(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, config string
		want         operations.Reason
	}{
		{"unknown hive", "[[hive]]\nalias = \"gpu-1\"\nhostname = \"127.0.0.1\"\n", operations.ReasonUnknownHive},
		{"missing config", "", operations.ReasonConfigMissing},
	} {
		dir := t.TempDir()
		path := filepath.Join(dir, "hives.conf")
		if c.config != "" {
			if err := os.WriteFile(path, []byte(c.config), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		q, err := New(Options{Version: "1", Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: dir, CacheDir: dir}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = q.Close() })
		op := operations.Infer{Target: operations.Target{HiveID: "nosuch", ConfigPath: path}, Model: "m", Prompt: "p", MaxTokens: 1}
		if _, err := q.Run(t.Context(), op, nil); operations.ReasonOf(err) != c.want {
			t.Errorf("%s: Run(infer) = %v (reason %s), want reason %s", c.name, err, operations.ReasonOf(err), c.want)
		}
	}
}
