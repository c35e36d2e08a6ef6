package queen

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// serve starts a queen for the benchmark's hives in the process of the benchmark, and waits
// until it has tried to connect to all of them.
func (x *bench) serve(b *testing.B) *client.Client {
	b.Helper()
	x.config.Path = filepath.Join(x.opts.Paths.ConfigDir, "hives.conf") // default path of the queen
	if err := os.WriteFile(x.config.Path, config.Format(x.config, ""), 0o600); err != nil {
		b.Fatal(err)
	}
	x.run(b, operations.PackageInstall{Scope: x.scope()}, operations.OutcomeOK)
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan net.Addr, 1), make(chan error, 1)
	go func() {
		done <- Serve(ctx, x.opts, Options{
			Addr: "127.0.0.1:0", Config: x.config.Path, Log: slog.New(slog.DiscardHandler), Ready: func(a net.Addr) { ready <- a },
		})
	}()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Errorf("Serve() = %v, want nil", err)
		}
	})
	addr := <-ready
	server := &client.Client{URL: "http://" + addr.String(), HTTP: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2000}}}
	waittest.Until(b, "no hive is connecting", func() bool { return isReady(b, server) })
	return server
}

// isReady reports whether the queen has tried to connect to every hive.
func isReady(b *testing.B, server *client.Client) bool {
	b.Helper()
	resp, err := server.HTTP.Get(server.URL + operations.FleetPath)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	var s operations.FleetSnapshot
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		b.Fatal(err)
	}
	return len(s.Hives) > 0 && !slices.ContainsFunc(s.Hives, func(h operations.HiveView) bool { return h.Link == operations.LinkConnecting })
}

// BenchmarkStatusThroughQueen compares `rbee status` over new connections and over the
// connections of a queen.
func BenchmarkStatusThroughQueen(b *testing.B) {
	x := newBench(b)
	server := x.serve(b)
	op := operations.PackageStatus{Scope: x.scope()}
	var direct, queen time.Duration
	n := 0
	for b.Loop() {
		n++
		t0 := time.Now()
		x.run(b, op, operations.OutcomeOK)
		direct += time.Since(t0)
		t0 = time.Now()
		r, err := server.Run(context.Background(), op, nil)
		queen += time.Since(t0)
		if err != nil || r.Outcome() != operations.OutcomeOK {
			b.Fatalf("Run(status) = %+v, %v, want outcome ok", r, err)
		}
	}
	b.ReportMetric(direct.Seconds()*1000/float64(n), "direct-ms")
	b.ReportMetric(queen.Seconds()*1000/float64(n), "queen-ms")
	b.ReportMetric(direct.Seconds()/queen.Seconds(), "times-faster")
	b.ReportMetric(resident(b), "MiB")
}

// startEcho starts an echo worker on the first hive, which must have the worker type.
func (x *bench) startEcho(b *testing.B, server *client.Client) operations.WorkerProcess {
	b.Helper()
	target := operations.Target{HiveID: x.config.Hives[0].Alias}
	r, err := server.Run(context.Background(), operations.WorkerSpawn{Target: target, Worker: "echo", Model: "parrot"}, nil)
	if err != nil {
		b.Fatal(err)
	}
	w := r.(*operations.WorkerSpawnReport).Worker
	b.Cleanup(func() {
		_, err := server.Run(context.Background(), operations.WorkerProcessDelete{Target: target, WorkerRef: operations.WorkerRef{ID: w.ID}}, nil)
		if err != nil {
			b.Errorf("Run(worker_process_delete) = %v, want no error", err)
		}
	})
	return w
}

// BenchmarkTunnel compares the time of a small request through SSH port forwarding to the
// worker, and through the queen and the hive.
func BenchmarkTunnel(b *testing.B) {
	x := newBench(b)
	server := x.serve(b)
	w := x.startEcho(b, server)
	h := x.config.Hives[0]
	config := *x.ssh
	config.User = h.SSHUser
	tunnel, err := ssh.Dial("tcp", net.JoinHostPort(h.Hostname, fmt.Sprint(max(h.SSHPort, 22))), &config)
	if err != nil {
		b.Fatal(err)
	}
	defer tunnel.Close()
	forward := &http.Client{Transport: &http.Transport{DialContext: func(_ context.Context, network, addr string) (net.Conn, error) { return tunnel.Dial(network, addr) }}}
	post := func(c *http.Client, url string) time.Duration {
		t0 := time.Now()
		resp, err := c.Post(url+"/v1/chat/completions", "application/json", strings.NewReader(`{"model":"parrot","messages":[{"role":"user","content":"bee"}]}`))
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatalf("POST %s = %s, want 200", url, resp.Status)
		}
		return time.Since(t0)
	}
	var plain, queen []time.Duration
	for b.Loop() {
		plain = append(plain, post(forward, fmt.Sprintf("http://127.0.0.1:%d", w.Port)))
		queen = append(queen, post(server.HTTP, server.URL))
	}
	median := func(list []time.Duration) float64 {
		slices.Sort(list)
		return float64(list[len(list)/2].Microseconds()) / 1000
	}
	b.ReportMetric(median(plain), "ssh-p50-ms")
	b.ReportMetric(median(queen), "queen-p50-ms")
}

// BenchmarkStreams opens a thousand concurrent streams of two thousand events each through
// the queen and one SSH connection. Run it with -benchtime 1x.
func BenchmarkStreams(b *testing.B) {
	x := newBench(b)
	server := x.serve(b)
	x.startEcho(b, server)
	body := fmt.Sprintf(`{"model":"parrot","stream":true,"max_tokens":4000,"messages":[{"role":"user","content":%q}]}`, strings.Repeat("bee ", 2000))
	for b.Loop() {
		var failed atomic.Int64
		var all sync.WaitGroup
		for range 1000 {
			all.Go(func() {
				resp, err := server.HTTP.Post(server.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
				if err != nil {
					failed.Add(1)
					return
				}
				defer resp.Body.Close()
				last := ""
				for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
					if lines.Text() != "" {
						last = lines.Text()
					}
				}
				if resp.StatusCode != http.StatusOK || last != "data: [DONE]" {
					failed.Add(1)
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(failed.Load()), "failed")
	}
	b.ReportMetric(resident(b), "MiB")
}

// resident returns the maximum resident memory of this process in MiB.
func resident(b *testing.B) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Maxrss) * float64(maxrssUnit) / (1 << 20)
}

// maxrssUnit is the unit of Maxrss on Linux in bytes (getrusage(2)).
const maxrssUnit = 1024

// BenchmarkPick picks a worker among 200 hives with 8 workers and 50 models each.
func BenchmarkPick(b *testing.B) {
	var hives []*fakeHive
	for i := range 200 {
		h := newFakeHive(b, fmt.Sprintf("gpu-%03d", i))
		for j := range 50 {
			h.models = append(h.models, operations.Model{ID: fmt.Sprintf("org/model-%02d:Q4_K_M", j), Repo: fmt.Sprintf("org/model-%02d", j), Format: "gguf", Complete: true})
		}
		for j := range 8 {
			model := h.models[(i+j)%50]
			h.workers = append(h.workers, operations.WorkerProcess{ID: fmt.Sprintf("llama-cpp-%d", j), Model: model.Repo, ModelID: model.ID, State: operations.WorkerReady})
		}
		hives = append(hives, h)
	}
	q, _ := startQueenWith(b, Options{staleAfter: time.Hour}, hives...)
	for _, name := range []string{"org/model-25:Q4_K_M", "org/model-25"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				lease, _ := q.balancer.pick(gateway.RouteRequest{Model: name, Affinity: 7})
				if lease == nil {
					b.Fatal("pick() = nil, want a worker")
				}
				lease.Release(nil)
			}
		})
	}
}
