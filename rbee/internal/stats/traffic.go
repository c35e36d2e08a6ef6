// Package stats counts the work of workers: requests in flight, requests and tokens per
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
	pointInterval = 5 * time.Second // time between two points of the time series
	maxPoints     = 60              // points of the time series
	maxSamples    = 1000            // durations per point, for the median time to first byte

	workerTTL = time.Hour // time after the last request until a removed worker is forgotten

	suspectTTL = 2 * time.Second // time for which a failed worker is suspect
)

// Traffic counts the requests that this queen sends to workers.
type Traffic struct {
	set *metrics.Set // for /metrics
	log *slog.Logger

	mu       sync.Mutex
	active   map[string]*activeRequests // by worker key; only workers with requests
	external map[string]int             // requests in flight that other programs sent, by worker key
	lastUsed map[string]time.Time       // start or end of the last request, by worker key
	evicting map[string]chan struct{}   // by worker key; closed at the end of the eviction
	points   []point                    // oldest first
	models   map[string]*operations.ModelTraffic
	series   map[string]map[string]bool // names in set, by worker key

	suspects map[string]time.Time // end of the suspect state, by worker key
}

// activeRequests counts the requests in flight of one worker.
type activeRequests struct {
	model, hive, worker string
	requests            int
}

type point struct {
	operations.TrafficPoint
	firstTokens []float64 // times to first token in seconds
}

// New returns a Traffic with zero counts. It logs each request to log.
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

// Begin counts a request to a worker until end is called. For a worker that is being evicted
// it counts nothing and ok is false.
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

// BeginEviction marks a worker as being evicted, so that it receives no more requests. ok is
// false if the worker has not been idle for the given time; see [Traffic.Idle] for since. The
// caller calls done at the end of the eviction.
func (t *Traffic) BeginEviction(w operations.WorkerProcess, since time.Time, idle time.Duration) (done func(evicted bool), ok bool) {
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
	return func(evicted bool) {
		t.mu.Lock()
		defer t.mu.Unlock()
		close(closed)
		if !evicted {
			delete(t.evicting, key) // the worker serves again; Record removes an evicted worker
		}
	}, true
}

// Evicted returns a channel that is closed at the end of the eviction of a worker, whether
// it succeeds or not; nil if the worker is not being evicted.
func (t *Traffic) Evicted(w operations.WorkerProcess) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.evicting[scheduler.WorkerKey(w)]
}

// Evicting implements [scheduler.Usage].
func (t *Traffic) Evicting(w operations.WorkerProcess) bool { return t.Evicted(w) != nil }

// MarkSuspect marks a worker as suspect for suspectTTL.
func (t *Traffic) MarkSuspect(w operations.WorkerProcess) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	maps.DeleteFunc(t.suspects, func(_ string, expiry time.Time) bool { return now.After(expiry) })
	t.suspects[scheduler.WorkerKey(w)] = now.Add(suspectTTL)
}

// Suspect implements [scheduler.Usage].
func (t *Traffic) Suspect(w operations.WorkerProcess) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	expiry, ok := t.suspects[scheduler.WorkerKey(w)]
	return ok && !time.Now().After(expiry)
}

// Record updates the requests of other programs from a snapshot of a hive, and removes the
// entries of workers that have exited.
func (t *Traffic) Record(alias string, workers []operations.WorkerProcess) {
	t.mu.Lock()
	defer t.mu.Unlock()
	ready := map[string]bool{}
	for _, w := range workers {
		key := scheduler.WorkerKey(w)
		ready[key] = w.State == operations.WorkerReady
		ownRequests := 0
		if r := t.active[key]; r != nil {
			ownRequests = r.requests
		}
		delete(t.external, key)
		if external := w.Requests - ownRequests; external > 0 {
			t.external[key] = external
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

// Busy returns the number of requests that a worker is processing: the current requests of this
// queen, plus the requests of other programs in the last snapshot.
func (t *Traffic) Busy(w operations.WorkerProcess) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.external[scheduler.WorkerKey(w)]
	if r := t.active[scheduler.WorkerKey(w)]; r != nil {
		n += r.requests
	}
	return n
}

// Idle returns how long a worker has been idle, or 0 if it has requests. The time before
// since, when the queen started, does not count.
func (t *Traffic) Idle(w operations.WorkerProcess, since time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active[scheduler.WorkerKey(w)] != nil || w.Requests > 0 {
		return 0
	}
	last := since
	for _, at := range []time.Time{t.lastUsed[scheduler.WorkerKey(w)], w.ReadyAt} {
		if at.After(last) {
			last = at
		}
	}
	return time.Since(last)
}

// Forget drops the counters of workers whose keys are not in present, after workerTTL.
func (t *Traffic) Forget(present map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, at := range t.lastUsed {
		if present[key] || time.Since(at) < workerTTL {
			continue
		}
		delete(t.lastUsed, key)
		for name := range t.series[key] {
			t.set.UnregisterMetric(name)
		}
		delete(t.series, key)
	}
}

// model returns the counters of a model. The caller holds t.mu.
func (t *Traffic) model(name string) *operations.ModelTraffic {
	if t.models[name] == nil {
		t.models[name] = &operations.ModelTraffic{Model: name}
	}
	return t.models[name]
}

// currentPoint returns the point of the current interval, and adds empty points for
// intervals without requests. The caller holds t.mu.
func (t *Traffic) currentPoint(at time.Time) *point {
	start := at.Truncate(pointInterval)
	if n := len(t.points); n == 0 || t.points[n-1].Time.Before(start) {
		from := start
		if n > 0 {
			from = t.points[n-1].Time.Add(pointInterval)
		}
		if oldest := start.Add(-(maxPoints - 1) * pointInterval); from.Before(oldest) {
			from = oldest
		}
		for ; !from.After(start); from = from.Add(pointInterval) {
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
	level, attrs := slog.LevelInfo, []any{
		"id", s.RequestID, "path", s.Path, "model", s.Model, "hive", s.Hive, "worker", s.Worker, "status", s.Status,
		"first_byte", s.FirstByte.Round(time.Millisecond / 10), "duration", s.Duration.Round(time.Millisecond / 10), "tokens", s.CompletionTokens,
	}
	if s.Err != nil {
		level, attrs = slog.LevelWarn, append(attrs, "error", s.Err)
	}
	t.log.Log(context.Background(), level, "request", attrs...)
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
		return // clients may send any model name
	}
	m := t.model(s.Model)
	m.Requests++
	m.Tokens += int64(s.CompletionTokens)
	if failed {
		m.Errors++
	}
}

// Report returns the counts and the time series. waiting is the number of requests that wait
// for models to be loaded.
func (t *Traffic) Report(waiting int) operations.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.currentPoint(time.Now().UTC())
	r := operations.Traffic{
		IntervalSeconds: pointInterval.Seconds(), Points: make([]operations.TrafficPoint, 0, len(t.points)), Models: []operations.ModelTraffic{}, Waiting: waiting,
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
	for _, a := range t.active {
		r.InFlight += a.requests
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
