// Package queen implements the queen: a server that keeps one connection to each hive, serves
// operations, the OpenAI API, the dashboard and metrics over HTTP, and loads and evicts
// workers.
//
// It combines the packages access, gateway, jobs, dashboard, registry, loader, stats and
// controller.
package queen

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/loader"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
	"github.com/rbee-keeper/rbee/rbee/internal/stats"
)

// queen is the state of a server.
type queen struct {
	version    string
	paths      pkgmgr.Paths
	config     string // config path in operations; empty for the default config
	configPath string // absolute
	log        *slog.Logger

	dialer     *registry.Dialer
	pool       *registry.Pool
	traffic    *stats.Traffic
	loader     *loader.Loader
	controller *controller.Controller
	balancer   *balancer

	stopping chan struct{} // closed when the server stops

	mu      sync.Mutex
	drift   []operations.Drift
	driftAt time.Time
}

// newQueen returns a queen. Loads and refreshes end when background is done.
func newQueen(background context.Context, c controller.Options, o Options) (*queen, error) {
	files, err := controller.NewFiles(c)
	if err != nil {
		return nil, err
	}
	q := &queen{version: c.Version, paths: c.Paths, config: o.Config, log: o.Log, stopping: make(chan struct{})}
	if q.configPath, err = c.Paths.ConfigFile(o.Config); err != nil {
		return nil, err
	}
	q.dialer = controller.NewDialer(c)
	if o.dial == nil {
		o.dial = q.dialer.Host
	}
	q.traffic = stats.New(o.Log)
	q.pool = registry.NewPool(background, registry.PoolOptions{
		Config: q.configPath, Dial: o.dial, OnReport: q.traffic.Record, Timeout: o.responseTimeout, StaleAfter: o.staleAfter, Log: o.Log,
		Hives: func() ([]config.Hive, error) { return files.Hives(operations.Target{ConfigPath: o.Config}) },
	})
	q.loader = loader.New(background, loader.Options{
		Pool: q.pool, Traffic: q.traffic, Hives: files.Hives, Log: o.Log, Config: o.Config, ConfigFile: c.Paths.ConfigFile,
	})
	q.controller = controller.NewWithDependencies(c, files, controller.Dependencies{
		Connector: q.pool, Loader: q.loader, Traffic: inferTraffic{q.traffic}, SSHHosts: q.dialer.SSHHosts,
	})
	q.balancer = &balancer{pool: q.pool, loader: q.loader, traffic: q.traffic}
	return q, nil
}

// run keeps the connections to hives open and checks for drift until ctx is done.
func (q *queen) run(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	all.Go(func() { q.updateDrift(ctx) })
	q.pool.Run(ctx)
}

const (
	inferPath          = "infer" // path of `rbee infer` in metrics
	statusClientClosed = 499     // status of a canceled operation in metrics
)

// inferTraffic counts the requests of `rbee infer` in the same way as API requests.
type inferTraffic struct{ *stats.Traffic }

var _ controller.Traffic = inferTraffic{}

// Finish implements [controller.Traffic].
func (t inferTraffic) Finish(ctx context.Context, r controller.FinishedRequest) {
	s := gateway.Sample{
		Path: inferPath, Model: scheduler.ServedModel(r.Worker), Hive: r.Worker.Hive, Worker: r.Worker.ID, Start: r.Start, Duration: time.Since(r.Start), RequestID: client.RequestID(ctx),
		Status: http.StatusOK, Stream: r.Stream, Retries: r.Retries, Err: r.Err,
	}
	switch {
	case ctx.Err() != nil:
		s.Status = statusClientClosed
	case r.Err != nil:
		s.Status = http.StatusBadGateway
		if !r.Final {
			t.MarkSuspect(r.Worker)
		}
	default:
		s.PromptTokens, s.CompletionTokens = r.Report.PromptTokens, r.Report.CompletionTokens
		s.FirstByte = time.Duration(r.Report.FirstTokenSeconds * float64(time.Second))
	}
	t.Observe(s)
}
