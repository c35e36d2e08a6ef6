// Package stats counts what workers do: requests in flight, requests and tokens per
// model, a time series for the dashboard, and metrics for Prometheus.
package stats

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

const (
	pointInterval = 5 * time.Second
	maxPoints     = 60
	maxSamples    = 1000 // times to the first byte that a point's median is made of, at most

	workerTTL = time.Hour // after its last request, if it is no more

	suspectTTL = 2 * time.Second // how long a failure makes a worker suspect
)

// Traffic counts what this queen has workers do.
type Traffic struct {
	set *metrics.Set // for /metrics
	log *slog.Logger

	mu       sync.Mutex
	active   map[string]*activeRequests // workers that answer, by hive and worker
	external map[string]int             // requests of workers that did not come through here, likewise
	lastUsed map[string]time.Time       // when the last one ended, likewise
	evicting map[string]chan struct{}   // workers that this queen ends; closed once that is done
	points   []point                    // oldest first
	models   map[string]*operations.ModelTraffic
	series   map[string]map[string]bool // names in set, by hive and worker

	suspects map[string]time.Time // workers that failed, until when
}

// active are the requests that one worker is answering.
type activeRequests struct {
	model, hive, worker string
	requests            int
}

type point struct {
	operations.TrafficPoint
	firstTokens []float64 // seconds, of sampled requests
}

// New returns counters that begin at zero. log gets a line for each request.
func New(log *slog.Logger) *Traffic {
	return &Traffic{
		set: metrics.NewSet(), log: log, suspects: map[string]time.Time{}, active: map[string]*activeRequests{}, external: map[string]int{},
		lastUsed: map[string]time.Time{}, evicting: map[string]chan struct{}{}, models: map[string]*operations.ModelTraffic{}, series: map[string]map[string]bool{},
	}
}

var (
	_ gateway.Observer = (*Traffic)(nil)
	_ scheduler.Usage  = (*Traffic)(nil)
)

// Begin counts a request to a worker until end is called. It is false, and counts
// nothing, for a worker that is being ended.
func (t *Traffic) Begin(w operations.WorkerProcess) (end func(), ok bool) {
	key := scheduler.WorkerKey(w)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.evicting[key] != nil {
		return nil, false
	}
	r := t.active[key]
	if r == nil {
		r = &activeRequests{model: scheduler.ServedModel(w), hive: w.Hive, worker: w.ID}
		t.active[key] = r
	}
	r.requests++
	t.lastUsed[key] = time.Now()
	t.model(r.model).InFlight++
	return sync.OnceFunc(func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.lastUsed[key] = time.Now()
		t.model(r.model).InFlight--
		if r.requests--; r.requests == 0 {
			delete(t.active, key)
		}
	}), true
}

// BeginEviction marks a worker as one that is being ended, so that it gets no more requests:
// only one that answers none, and was idle for so long. The end is told by calling
// done: whether it succeeded.
func (t *Traffic) BeginEviction(w operations.WorkerProcess, since time.Time, idle time.Duration) (done func(ended bool), ok bool) {
	if t.Idle(w, since) < idle {
		return nil, false
	}
	key, closed := scheduler.WorkerKey(w), make(chan struct{})
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active[key] != nil || t.evicting[key] != nil {
		return nil, false
	}
	t.evicting[key] = closed
	return func(ended bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(closed)
		if !ended {
			delete(t.evicting, key) // it may serve again; one that has ended goes when its hive says so
		}
	}, true
}

// Evicted is closed once a worker that is being ended has ended, or could not be; nil
// for one that is not.
func (t *Traffic) Evicted(w operations.WorkerProcess) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evicting[scheduler.WorkerKey(w)]
}

// Evicting implements [scheduler.Usage].
func (t *Traffic) Evicting(w operations.WorkerProcess) bool { return t.Evicted(w) != nil }

// MarkSuspect makes a worker that failed suspect for a while.
func (t *Traffic) MarkSuspect(w operations.WorkerProcess) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(t.suspects, func(_ string, until time.Time) bool { return now.After(until) })
	t.suspects[scheduler.WorkerKey(w)] = now.Add(suspectTTL)
}

// Suspect implements [scheduler.Usage].
func (t *Traffic) Suspect(w operations.WorkerProcess) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	until, ok := t.suspects[scheduler.WorkerKey(w)]
	return ok && !time.Now().After(until)
}

// Record takes note of what a hive says of its workers: of requests that came another
// way, and of those that have ended.
func (t *Traffic) Record(alias string, workers []operations.WorkerProcess) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ready := map[string]bool{}
	for _, w := range workers {
		key := scheduler.WorkerKey(w)
		ready[key] = w.State == operations.WorkerReady
		own := 0
		if r := t.active[key]; r != nil {
			own = r.requests
		}
		delete(t.external, key)
		if more := w.Requests - own; more > 0 {
			t.external[key] = more
		}
	}
	prefix := alias + "/"
	for key, closed := range t.evicting {
		if strings.HasPrefix(key, prefix) && isClosed(closed) && !ready[key] {
			delete(t.evicting, key)
		}
	}
	maps.DeleteFunc(t.external, func(key string, _ int) bool { return strings.HasPrefix(key, prefix) && !ready[key] })
}

// Busy is how many requests a worker is answering: this queen's, exactly, and those of
// others, as its hive has told.
func (t *Traffic) Busy(w operations.WorkerProcess) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.external[scheduler.WorkerKey(w)]
	if r := t.active[scheduler.WorkerKey(w)]; r != nil {
		n += r.requests
	}
	return n
}

// Idle is for how long a worker has answered nothing, as far as this queen knows;
// 0 while it does.
func (t *Traffic) Idle(w operations.WorkerProcess, since time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active[scheduler.WorkerKey(w)] != nil || w.Requests > 0 {
		return 0
	}
	last := since // the queen's own beginning: what was before is not known
	for _, at := range []time.Time{t.lastUsed[scheduler.WorkerKey(w)], w.ReadyAt} {
		if at.After(last) {
			last = at
		}
	}
	return time.Since(last)
}

// Forget drops what is known of workers that are no more.
func (t *Traffic) Forget(there map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, at := range t.lastUsed {
		if there[key] || time.Since(at) < workerTTL {
			continue
		}
		delete(t.lastUsed, key)
		for name := range t.series[key] {
			t.set.UnregisterMetric(name)
		}
		delete(t.series, key)
	}
}

// model is the count of a model that a worker serves. The caller holds t.mu.
func (t *Traffic) model(name string) *operations.ModelTraffic {
	if t.models[name] == nil {
		t.models[name] = &operations.ModelTraffic{Model: name}
	}
	return t.models[name]
}

// now is the point that is going on. The caller holds t.mu.
func (t *Traffic) currentPoint(at time.Time) *point {
	begin := at.Truncate(pointInterval)
	if n := len(t.points); n == 0 || t.points[n-1].Time.Before(begin) {
		from := begin
		if n > 0 {
			from = t.points[n-1].Time.Add(pointInterval)
		}
		if oldest := begin.Add(-(maxPoints - 1) * pointInterval); from.Before(oldest) {
			from = oldest
		}
		for ; !from.After(begin); from = from.Add(pointInterval) {
			t.points = append(t.points, point{TrafficPoint: operations.TrafficPoint{Time: from}})
		}
		t.points = slices.Clone(t.points[max(0, len(t.points)-maxPoints):])
	}
	return &t.points[len(t.points)-1]
}

// Observe implements [gateway.Observer].
func (t *Traffic) Observe(s gateway.Sample) {
	if s.Path == "" || strings.HasPrefix(s.Path, "/v1/models") {
		return
	}
	level, words := slog.LevelInfo, []any{
		"id", s.RequestID, "path", s.Path, "model", s.Model, "hive", s.Hive, "worker", s.Worker, "status", s.Status,
		"first", s.FirstByte.Round(time.Millisecond / 10), "took", s.Duration.Round(time.Millisecond / 10), "tokens", s.CompletionTokens,
	}
	if s.Err != nil {
		level, words = slog.LevelWarn, append(words, "error", s.Err)
	}
	t.log.Log(context.Background(), level, "request", words...)
	failed := s.Status >= http.StatusInternalServerError || s.Status == http.StatusTooManyRequests
	t.countMetrics(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.currentPoint(time.Now().UTC())
	p.Requests++
	p.Tokens += s.CompletionTokens
	if failed {
		p.Errors++
	}
	if s.FirstByte > 0 && s.Worker != "" && len(p.firstTokens) < maxSamples {
		p.firstTokens = append(p.firstTokens, s.FirstByte.Seconds())
	}
	if s.Worker == "" {
		return // the model is a stranger's word
	}
	m := t.model(s.Model)
	m.Requests++
	m.Tokens += int64(s.CompletionTokens)
	if failed {
		m.Errors++
	}
}

// Report is what there is to tell.
func (t *Traffic) Report(waiting int) operations.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.currentPoint(time.Now().UTC())
	r := operations.Traffic{
		EverySeconds: pointInterval.Seconds(), Points: make([]operations.TrafficPoint, 0, len(t.points)), Models: []operations.ModelTraffic{}, Waiting: waiting,
	}
	for _, p := range t.points {
		if len(p.firstTokens) > 0 {
			sorted := slices.Sorted(slices.Values(p.firstTokens))
			p.FirstToken = sorted[len(sorted)/2]
		}
		r.Points = append(r.Points, p.TrafficPoint)
	}
	for _, name := range slices.Sorted(maps.Keys(t.models)) {
		r.Models = append(r.Models, *t.models[name])
	}
	for _, one := range t.active {
		r.InFlight += one.requests
	}
	return r
}

func isClosed(done <-chan struct{}) bool {
	select {
	case <-done:
		return true
	default:
		return false
	}
}
