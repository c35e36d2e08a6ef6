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
	opErr := &operations.Error{Code: operations.CodeNotFound, Hive: "gpu-1", Message: "no such job"}
	for name, test := range map[string]struct {
		err  error
		want operations.Error
	}{
		"operations.Error": {opErr, *opErr},
		"wrapped":          {fmt.Errorf("reading: %w", opErr), *opErr},
		"other error":      {errors.New("broken pipe"), operations.Error{Code: operations.CodeFailed, Message: "broken pipe"}},
	} {
		w := httptest.NewRecorder()
		httpjson.WriteError(w, http.StatusTeapot, test.err)
		if w.Code != http.StatusTeapot || w.Header().Get("Content-Type") != "application/json" {
			t.Errorf("%s: WriteError() responded with status %d and type %q, want %d and application/json", name, w.Code, w.Header().Get("Content-Type"), http.StatusTeapot)
		}
		if got := httpjson.ReadError(w.Body); got == nil || got.Code != test.want.Code || got.Message != test.want.Message || got.Hive != test.want.Hive {
			t.Errorf("%s: ReadError() = %+v, want %+v", name, got, test.want)
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
		t.Errorf("Write(chan int) responded with status %d and error %+v, want status 500 and an error", w.Code, got)
	}
}
