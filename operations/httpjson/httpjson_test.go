package httpjson_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/httpjson"
)

func TestWriteAndReadError(t *testing.T) {
	t.Parallel()
	own := &operations.Error{Code: operations.CodeNotFound, Hive: "gpu-1", Message: "there is no job"}
	for name, c := range map[string]struct {
		err  error
		want operations.Error
	}{
		"an error of rbee's":    {own, *own},
		"one that is wrapped":   {fmt.Errorf("asking: %w", own), *own},
		"an error of something": {errors.New("it broke"), operations.Error{Code: operations.CodeFailed, Message: "it broke"}},
	} {
		w := httptest.NewRecorder()
		httpjson.WriteError(w, http.StatusTeapot, c.err)
		if w.Code != http.StatusTeapot || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: WriteError() responds with status %d and type %q", name, w.Code, w.Header().Get("Content-Type"))
		}
		if got := httpjson.ReadError(w.Body); got == nil || got.Code != c.want.Code || got.Message != c.want.Message || got.Hive != c.want.Hive {
			t.Errorf("%s: ReadError() = %+v, want %+v", name, got, c.want)
		}
	}
	for _, body := range []string{"", "<html>", `{"error": "text"}`, `{"error": {"message": "no code"}}`, `{"error": {"code": "failed"}}`, `{"error": null}`} {
		if got := httpjson.ReadError(strings.NewReader(body)); got != nil {
			t.Errorf("ReadError(%s) = %+v, want nil", body, got)
		}
	}
}

func TestWriteUnencodable(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	httpjson.Write(w, http.StatusOK, make(chan int))
	if got := httpjson.ReadError(w.Body); w.Code != http.StatusInternalServerError || got == nil {
		t.Errorf("Write() of a channel responds with status %d and %+v, want 500 and an error", w.Code, got)
	}
}
