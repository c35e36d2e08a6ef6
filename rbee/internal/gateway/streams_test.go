package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// TestThousandStreams checks that a thousand concurrent streams complete.
func TestThousandStreams(t *testing.T) {
	t.Parallel()
	const n = 1000
	var opened sync.WaitGroup
	opened.Add(n)
	b := worker(t, "w1", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"one\"}}]}\n\n")
		w.(http.Flusher).Flush()
		opened.Done()
		opened.Wait() // until all streams are open
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	})
	s := httptest.NewServer(gateway.New(gateway.Options{Router: &router{backends: []gateway.Backend{b}}}))
	t.Cleanup(s.Close)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	var streams sync.WaitGroup
	for range n {
		streams.Go(func() {
			resp, err := client.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello))
			if err != nil {
				t.Errorf("Post() error = %v, want nil", err)
				opened.Done()
				return
			}
			defer resp.Body.Close()
			text, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || !strings.HasSuffix(string(text), "data: [DONE]\n\n") {
				t.Errorf("stream = %s, %q, %v, want 200 and [DONE]", resp.Status, text, err)
			}
		})
	}
	streams.Wait()
}
