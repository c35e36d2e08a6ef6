package queen

import (
	"context"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

const (
	pointEvery = 5 * time.Second
	pointsKept = 60
	sampled    = 1000 // times to the first byte that a point's median is made of, at most
)

// traffic counts what this queen has workers do.
type traffic struct {
	set *metrics.Set // for /metrics
	log *slog.Logger

	mu      sync.Mutex
	running map[string]int       // requests, by hive and worker
	used    map[string]time.Time // when the last one ended, likewise
	points  []point              // oldest first
	models  map[string]*operations.ModelTraffic
}

type point struct {
	operations.TrafficPoint
	first []float64 // seconds, of sampled requests
}

func newTraffic() *traffic {
	return &traffic{set: metrics.NewSet(), log: slog.New(slog.DiscardHandler), running: map[string]int{}, used: map[string]time.Time{}, models: map[string]*operations.ModelTraffic{}}
}

var _ gateway.Observer = (*traffic)(nil)

func trafficKey(w operations.WorkerProcess) string { return w.Hive + "/" + w.ID }

// begin counts a request to a worker until end is called.
func (t *traffic) begin(w operations.WorkerProcess) (end func()) {
	key := trafficKey(w)
	add := func(n int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.used[key] = time.Now()
		if t.running[key] += n; t.running[key] <= 0 {
			delete(t.running, key)
		}
		t.model(w.Model).InFlight += n
	}
	add(1)
	return sync.OnceFunc(func() { add(-1) })
}

// busy is how many requests a worker is answering.
func (t *traffic) busy(w operations.WorkerProcess) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running[trafficKey(w)]
}

// idle is for how long a worker has answered nothing, as far as this queen knows;
// 0 while it does.
func (t *traffic) idle(w operations.WorkerProcess, since time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[trafficKey(w)] > 0 || w.Requests > 0 {
		return 0
	}
	last := since // the queen's own beginning: what was before is not known
	for _, at := range []time.Time{t.used[trafficKey(w)], w.ReadyAt} {
		if at.After(last) {
			last = at
		}
	}
	return time.Since(last)
}

// forget drops what is known of workers that are no more.
func (t *traffic) forget(there map[string]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.used, func(key string, at time.Time) bool { return !there[key] && time.Since(at) > time.Hour })
}

// model is the count of a model that a worker serves. The caller holds t.mu.
func (t *traffic) model(name string) *operations.ModelTraffic {
	if t.models[name] == nil {
		t.models[name] = &operations.ModelTraffic{Model: name}
	}
	return t.models[name]
}

// now is the point that is going on. The caller holds t.mu.
func (t *traffic) now(at time.Time) *point {
	begin := at.Truncate(pointEvery)
	if n := len(t.points); n == 0 || t.points[n-1].Time.Before(begin) {
		from := begin
		if n > 0 {
			from = t.points[n-1].Time.Add(pointEvery)
		}
		if oldest := begin.Add(-(pointsKept - 1) * pointEvery); from.Before(oldest) {
			from = oldest
		}
		for ; !from.After(begin); from = from.Add(pointEvery) {
			t.points = append(t.points, point{TrafficPoint: operations.TrafficPoint{Time: from}})
		}
		t.points = slices.Clone(t.points[max(0, len(t.points)-pointsKept):])
	}
	return &t.points[len(t.points)-1]
}

// Observe implements [gateway.Observer].
func (t *traffic) Observe(s gateway.Sample) {
	if s.Path == "" || !strings.HasPrefix(s.Path, "/v1/") || strings.HasPrefix(s.Path, "/v1/models") {
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
	t.count(s)
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.now(time.Now().UTC())
	p.Requests++
	p.Tokens += s.CompletionTokens
	if failed {
		p.Errors++
	}
	if s.FirstByte > 0 && s.Worker != "" && len(p.first) < sampled {
		p.first = append(p.first, s.FirstByte.Seconds())
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

// count is for /metrics. Only models that a worker serves have a name there: others
// are strangers' words, of which there may be any number.
func (t *traffic) count(s gateway.Sample) {
	model := ""
	if s.Worker != "" {
		model = s.Model
	}
	where := labels("model", model, "hive", s.Hive, "worker", s.Worker)
	t.set.GetOrCreateCounter("rbee_requests_total" + labels("path", s.Path, "code", strconv.Itoa(s.Status), "model", model, "hive", s.Hive, "worker", s.Worker)).Inc()
	if s.Worker == "" {
		return
	}
	t.set.GetOrCreateCounter("rbee_prompt_tokens_total" + where).Add(s.PromptTokens)
	t.set.GetOrCreateCounter("rbee_generated_tokens_total" + where).Add(s.CompletionTokens)
	t.set.GetOrCreateCounter("rbee_retries_total" + labels("model", model)).Add(s.Retries)
	t.set.GetOrCreatePrometheusHistogramExt("rbee_time_to_first_byte_seconds"+labels("model", model), buckets).Update(s.FirstByte.Seconds())
	t.set.GetOrCreatePrometheusHistogramExt("rbee_request_duration_seconds"+labels("model", model), buckets).Update(s.Duration.Seconds())
}

var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// labels writes labels as Prometheus reads them
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + pairs[i] + `="`)
		_, _ = escape.WriteString(&b, strings.ToValidUTF8(pairs[i+1], "\uFFFD")) // into memory
		b.WriteByte('"')
	}
	return b.String() + "}"
}

// report is what there is to tell.
func (t *traffic) report(waiting int) operations.Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.now(time.Now().UTC())
	r := operations.Traffic{
		EverySeconds: pointEvery.Seconds(), Points: make([]operations.TrafficPoint, 0, len(t.points)), Models: []operations.ModelTraffic{}, Waiting: waiting,
	}
	for _, p := range t.points {
		if len(p.first) > 0 {
			sorted := slices.Sorted(slices.Values(p.first))
			p.FirstToken = sorted[len(sorted)/2]
		}
		r.Points = append(r.Points, p.TrafficPoint)
	}
	for _, name := range slices.Sorted(maps.Keys(t.models)) {
		r.Models = append(r.Models, *t.models[name])
	}
	for _, n := range t.running {
		r.InFlight += n
	}
	return r
}

// writeMetrics writes everything for Prometheus.
func (q *Queen) writeMetrics(w io.Writer, waiting int) {
	q.traffic.set.WritePrometheus(w)
	s := q.registry.snapshot()
	metrics.WriteGaugeUint64(w, "rbee_requests_in_flight", uint64(max(q.traffic.report(0).InFlight, 0))) //nolint:gosec // not negative
	metrics.WriteGaugeUint64(w, "rbee_requests_waiting", uint64(max(waiting, 0)))                        //nolint:gosec // not negative
	links := map[operations.Link]uint64{operations.LinkConnecting: 0, operations.LinkOnline: 0, operations.LinkStale: 0, operations.LinkOffline: 0}
	for _, h := range s.Hives {
		links[h.Link]++
	}
	for _, link := range slices.Sorted(maps.Keys(links)) {
		metrics.WriteGaugeUint64(w, "rbee_hives"+labels("link", string(link)), links[link])
	}
	for _, h := range s.Hives {
		if h.Snapshot == nil || h.Link == operations.LinkOffline {
			continue
		}
		for _, d := range h.Snapshot.Machine.Devices {
			of := labels("hive", h.Alias, "index", strconv.Itoa(d.Index), "name", d.Name, "uuid", d.UUID)
			metrics.WriteGaugeUint64(w, "rbee_device_memory_bytes"+of, d.MemoryTotal)
			if d.MemoryUsed != nil {
				metrics.WriteGaugeUint64(w, "rbee_device_memory_used_bytes"+of, *d.MemoryUsed)
			}
			if d.Utilization != nil {
				metrics.WriteGaugeFloat64(w, "rbee_device_utilization_ratio"+of, *d.Utilization/100)
			}
		}
		for _, p := range h.Snapshot.Workers {
			metrics.WriteGaugeUint64(w, "rbee_worker"+labels("hive", h.Alias, "worker", p.ID, "type", p.Worker, "model", p.Model, "state", string(p.State)), 1)
		}
	}
}
