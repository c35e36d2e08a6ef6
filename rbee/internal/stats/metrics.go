package stats

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/VictoriaMetrics/metrics"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/scheduler"
)

// countMetrics is for /metrics. Only models that a worker serves have a name there: others
// are strangers' words, of which there may be any number.
func (t *Traffic) countMetrics(s gateway.Sample) {
	model := ""
	if s.Worker != "" {
		model = s.Model
	}
	where := labels("model", model, "hive", s.Hive, "worker", s.Worker)
	t.counter(s, "rbee_requests_total"+labels("path", s.Path, "code", strconv.Itoa(s.Status), "model", model, "hive", s.Hive, "worker", s.Worker)).Inc()
	if s.Worker == "" {
		return
	}
	t.counter(s, "rbee_prompt_tokens_total"+where).Add(s.PromptTokens)
	t.counter(s, "rbee_generated_tokens_total"+where).Add(s.CompletionTokens)
	t.counter(s, "rbee_retries_total"+where).Add(s.Retries)
	t.histogram(s, "rbee_request_duration_seconds"+where).Update(s.Duration.Seconds())
	if s.Stream && s.FirstByte > 0 && s.Status == http.StatusOK {
		t.histogram(s, "rbee_time_to_first_token_seconds"+where).Update(s.FirstByte.Seconds())
	}
}

func (t *Traffic) counter(s gateway.Sample, name string) *metrics.Counter {
	t.addSeries(s, name)
	return t.set.GetOrCreateCounter(name)
}

func (t *Traffic) histogram(s gateway.Sample, name string) *metrics.PrometheusHistogram {
	t.addSeries(s, name)
	return t.set.GetOrCreatePrometheusHistogramExt(name, buckets)
}

// addSeries remembers whose series it is: it goes when the worker is forgotten.
func (t *Traffic) addSeries(s gateway.Sample, name string) {
	if s.Worker == "" {
		return
	}
	key := s.Hive + "/" + s.Worker
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.series[key] == nil {
		t.series[key] = map[string]bool{}
	}
	t.series[key][name] = true
}

var buckets = []float64{0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// labels writes labels as Prometheus reads them
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + pairs[i] + `="`)
		_, _ = escape.WriteString(&b, strings.ToValidUTF8(pairs[i+1], "\uFFFD")) // into memory
		b.WriteByte('"')
	}
	return b.String() + "}"
}

// WriteMetrics writes everything for Prometheus. waiting are the requests that wait for
// models to be loaded, by model.
func (t *Traffic) WriteMetrics(w io.Writer, waiting map[string]int, hives []operations.HiveView) {
	t.set.WritePrometheus(w)
	for _, model := range slices.Sorted(maps.Keys(waiting)) {
		gauge(w, "rbee_requests_waiting"+labels("model", model), waiting[model])
	}
	links := map[operations.Link]int{operations.LinkConnecting: 0, operations.LinkOnline: 0, operations.LinkStale: 0, operations.LinkOffline: 0}
	for _, h := range hives {
		links[h.Link]++
	}
	for _, link := range slices.Sorted(maps.Keys(links)) {
		gauge(w, "rbee_hives"+labels("link", string(link)), links[link])
	}
	for _, h := range hives {
		if h.Snapshot != nil && h.Link != operations.LinkOffline {
			t.writeHive(w, h.Alias, h.Snapshot)
		}
	}
}

// writeHive writes what a hive has and runs.
func (t *Traffic) writeHive(w io.Writer, alias string, s *operations.HiveSnapshot) {
	of := labels("hive", alias)
	metrics.WriteGaugeUint64(w, "rbee_hive_memory_bytes"+of, s.Machine.MemoryTotal)
	metrics.WriteGaugeUint64(w, "rbee_hive_memory_available_bytes"+of, s.Machine.MemoryAvailable)
	metrics.WriteGaugeUint64(w, "rbee_hive_disk_bytes"+of, s.Machine.DiskTotal)
	metrics.WriteGaugeUint64(w, "rbee_hive_disk_free_bytes"+of, s.Machine.DiskFree)
	for _, d := range s.Machine.Devices {
		of := labels("hive", alias, "index", strconv.Itoa(d.Index), "name", d.Name, "uuid", d.UUID)
		metrics.WriteGaugeUint64(w, "rbee_device_memory_bytes"+of, d.MemoryTotal)
		if d.MemoryUsed != nil {
			metrics.WriteGaugeUint64(w, "rbee_device_memory_used_bytes"+of, *d.MemoryUsed)
		}
		if d.Utilization != nil {
			metrics.WriteGaugeFloat64(w, "rbee_device_utilization_ratio"+of, *d.Utilization/100)
		}
	}
	for _, p := range s.Workers {
		gauge(w, "rbee_worker"+labels("hive", alias, "worker", p.ID, "type", p.Worker, "model", scheduler.ServedModel(p), "state", string(p.State)), 1)
		gauge(w, "rbee_requests_in_flight"+labels("model", scheduler.ServedModel(p), "hive", alias, "worker", p.ID), t.Busy(p))
	}
}

func gauge(w io.Writer, name string, n int) {
	metrics.WriteGaugeUint64(w, name, uint64(max(n, 0)))
}
