package sse

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

func TestAppend(t *testing.T) {
	t.Parallel()
	for want, e := range map[string]Event{
		"id: 7\nevent: event\ndata: {}\n\n": {ID: 7, Name: "event", Data: []byte("{}")},
		"data: [DONE]\n\n":                  {Data: []byte("[DONE]")},
		"data: a\ndata: \ndata:  b\n\n":     {Data: []byte("a\n\n b")},
		"data: \n\n":                        {},
		": \n\n":                            {Comment: true},
		": keepalive\n\n":                   {Comment: true, Data: []byte("keepalive")},
	} {
		if got := string(Append([]byte("x"), e)); got != "x"+want {
			t.Errorf("Append(%+v) = %q, want %q", e, got, "x"+want)
		}
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	sent := []Event{{ID: 1, Name: "event", Data: []byte("one")}, {Comment: true, Data: []byte("x")}, {Data: []byte("a\nb")}}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out := NewWriter(w, time.Minute)
		defer out.Close()
		for _, e := range sent {
			if err := out.Send(e); err != nil {
				t.Errorf("Send(%+v) = %v, want nil", e, err)
			}
		}
	}))
	defer server.Close()
	resp, err := http.Get(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.Header.Get("Content-Type") != ContentType || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("response headers = %v, want Content-Type %s and Cache-Control no-store", resp.Header, ContentType)
	}
	r := NewReader(resp.Body, 0)
	for _, want := range sent {
		got, err := r.Next()
		if err != nil || got.ID != want.ID || got.Name != want.Name || got.Comment != want.Comment || !bytes.Equal(got.Data, want.Data) {
			t.Errorf("Next() = %+v, %v, want %+v", got, err, want)
		}
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next() at the end returned %v, want %v", err, io.EOF)
	}
}

type plainWriter struct{ http.ResponseWriter }

func TestFlushNotSupported(t *testing.T) {
	t.Parallel()
	w := struct{ http.ResponseWriter }{httptest.NewRecorder()}
	if err := NewWriter(plainWriter{w}, time.Minute).Flush(); !errors.Is(err, http.ErrNotSupported) {
		t.Errorf("Flush() = %v, want %v", err, http.ErrNotSupported)
	}
}

func TestLastData(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"": "none", "data": "none", "x: data: y": "none", "data: a": "a", "data:a\n\ndata: b\r\n\r\n: x\n": "b", "ta: a\n\ndata:[DONE]\n": "[DONE]",
	} {
		got, ok := LastData([]byte(in))
		if !ok {
			got = []byte("none")
		}
		if string(got) != want {
			t.Errorf("LastData(%q) = %q, want %q", in, got, want)
		}
	}
}
