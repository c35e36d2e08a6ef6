package gateway_test

import (
	"bytes"
	"context"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// respondImmediately handles the requests of a worker without delay: with JSON, or
// with the number of events in the query.
func respondImmediately(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if n, _ := strconv.Atoi(r.URL.Query().Get("events")); n > 0 {
		w.Header().Set("Content-Type", "text/event-stream")
		for range n {
			_, _ = io.WriteString(w, "data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n")
			w.(http.Flusher).Flush()
		}
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":1}}`)
}

// startTargets starts a worker, and a reverse proxy and a gateway in front of it. It
// returns their names and URLs.
func startTargets(b *testing.B, h http.HandlerFunc) (names []string, urls map[string]string) {
	b.Helper()
	w := worker(b, "w1", h)
	w.Transport.(*http.Transport).MaxIdleConnsPerHost = 1024
	target, err := url.Parse(w.URL)
	if err != nil {
		b.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Transport: w.Transport, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	urls = map[string]string{"direct": w.URL}
	for name, h := range map[string]http.Handler{"gateway": gateway.New(gateway.Options{Router: singleWorker(w)}), "ReverseProxy": proxy} {
		s := httptest.NewServer(h)
		b.Cleanup(s.Close)
		urls[name] = s.URL
	}
	return []string{"direct", "ReverseProxy", "gateway"}, urls
}

// singleWorker is a router of one worker. It records nothing.
type singleWorker gateway.Backend

func (singleWorker) Models(context.Context) []gateway.ModelInfo { return nil }

func (w singleWorker) Acquire(context.Context, gateway.RouteRequest) (*gateway.Lease, error) {
	return &gateway.Lease{Backend: gateway.Backend(w), Release: func(error) {}}, nil
}

func client(b *testing.B) *http.Client {
	t := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func post(b *testing.B, c *http.Client, url string, body []byte) {
	resp, err := c.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		b.Errorf("POST %s = %v, want no error", url, err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Errorf("POST %s: status %s, error %v, want 200 and no error", url, resp.Status, err)
	}
}

// BenchmarkLatency sends one request at a time.
func BenchmarkLatency(b *testing.B) {
	names, urls := startTargets(b, respondImmediately)
	for _, bench := range []struct {
		name string
		body string
	}{
		{"small", hello},
		{"256KiB", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 256<<10) + `"}]}`},
	} {
		for _, name := range names {
			b.Run(bench.name+"/"+name, func(b *testing.B) {
				c := client(b)
				var durations []time.Duration
				b.ReportAllocs()
				for b.Loop() {
					start := time.Now()
					post(b, c, urls[name]+"/v1/chat/completions", []byte(bench.body))
					durations = append(durations, time.Since(start))
				}
				slices.Sort(durations)
				b.ReportMetric(float64(durations[len(durations)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(durations[len(durations)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkThroughput sends requests concurrently.
func BenchmarkThroughput(b *testing.B) {
	names, urls := startTargets(b, respondImmediately)
	for _, bench := range []struct {
		name, query, body string
	}{
		{"small", "", hello},
		{"256KiB", "", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 256<<10) + `"}]}`},
		{"200events", "?events=200", `{"model":"m","stream":true}`},
	} {
		for _, name := range names {
			b.Run(bench.name+"/"+name, func(b *testing.B) {
				c := client(b)
				b.SetParallelism(16)
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						post(b, c, urls[name]+"/v1/chat/completions"+bench.query, []byte(bench.body))
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}

// BenchmarkOpenStreams measures the memory per open stream, of client, proxy and worker
// together. The difference from direct is the memory of the proxy.
func BenchmarkOpenStreams(b *testing.B) {
	const streams = 500
	end := make(chan struct{})
	names, urls := startTargets(b, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-end:
			_, _ = io.WriteString(w, "data: [DONE]\n\n")
		}
	})
	b.Cleanup(func() { close(end) })
	memory := func() uint64 {
		runtime.GC()
		runtime.GC() // frees the content of pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	for _, name := range names {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				c := client(b)
				before := memory()
				var open []*http.Response
				for range streams {
					resp, err := c.Post(urls[name]+"/v1/chat/completions", "application/json", strings.NewReader(hello))
					if err != nil {
						b.Fatal(err)
					}
					if _, err := io.ReadFull(resp.Body, make([]byte, 9)); err != nil {
						b.Fatal(err)
					}
					open = append(open, resp)
				}
				b.ReportMetric((float64(memory())-float64(before))/1024/streams, "KiB/stream")
				for _, resp := range open {
					resp.Body.Close()
				}
			}
		})
	}
}
