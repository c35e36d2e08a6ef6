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

// fast answers at once, with text or as many events as are asked for.
func fast(w http.ResponseWriter, r *http.Request) {
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

// fronts are the ways to a worker: straight, and through each kind of front.
func fronts(b *testing.B, h http.HandlerFunc) (names []string, urls map[string]string) {
	b.Helper()
	w := worker(b, "w1", h)
	w.Transport.(*http.Transport).MaxIdleConnsPerHost = 1024
	target, err := url.Parse(w.URL)
	if err != nil {
		b.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Transport: w.Transport, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(target) }}
	urls = map[string]string{"straight": w.URL}
	for name, h := range map[string]http.Handler{"gateway": gateway.New(gateway.Options{Fleet: always(w)}), "ReverseProxy": proxy} {
		s := httptest.NewServer(h)
		b.Cleanup(s.Close)
		urls[name] = s.URL
	}
	return []string{"straight", "ReverseProxy", "gateway"}, urls
}

// always is the fleet of one worker, without the memory of [fleet].
type always gateway.Backend

func (always) Models(context.Context) []gateway.ModelInfo { return nil }

func (w always) Acquire(context.Context, gateway.Wish) (*gateway.Lease, error) {
	return &gateway.Lease{Backend: gateway.Backend(w), Done: func(error) {}}, nil
}

func client(b *testing.B) *http.Client {
	t := &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true}
	b.Cleanup(t.CloseIdleConnections)
	return &http.Client{Transport: t}
}

func post(b *testing.B, c *http.Client, url string, body []byte) {
	resp, err := c.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		b.Error(err)
		return
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		b.Errorf("%s, %v", resp.Status, err)
	}
}

// BenchmarkLatency is one request after the other.
func BenchmarkLatency(b *testing.B) {
	names, urls := fronts(b, fast)
	for _, kind := range []struct {
		name string
		body string
	}{
		{"small", hello},
		{"256KiB", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 256<<10) + `"}]}`},
	} {
		for _, name := range names {
			b.Run(kind.name+"/"+name, func(b *testing.B) {
				c := client(b)
				var took []time.Duration
				b.ReportAllocs()
				for b.Loop() {
					start := time.Now()
					post(b, c, urls[name]+"/v1/chat/completions", []byte(kind.body))
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			})
		}
	}
}

// BenchmarkThroughput is many requests at once.
func BenchmarkThroughput(b *testing.B) {
	names, urls := fronts(b, fast)
	for _, kind := range []struct {
		name, query, body string
	}{
		{"small", "", hello},
		{"256KiB", "", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 256<<10) + `"}]}`},
		{"200events", "?events=200", `{"model":"m","stream":true}`},
	} {
		for _, name := range names {
			b.Run(kind.name+"/"+name, func(b *testing.B) {
				c := client(b)
				b.SetParallelism(16)
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						post(b, c, urls[name]+"/v1/chat/completions"+kind.query, []byte(kind.body))
					}
				})
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}

// BenchmarkOpenStreams is the memory of streams that are open: of client, front
// and worker together, so what a front takes is the difference to straight.
func BenchmarkOpenStreams(b *testing.B) {
	const streams = 500
	end := make(chan struct{})
	names, urls := fronts(b, func(w http.ResponseWriter, r *http.Request) {
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
		runtime.GC() // what pools hold
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
