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

// countMetrics updates the metrics. The model label is empty if no worker serves the model,
// because clients may send any name.
func (t *Traffic) countMetrics(s gateway.Sample) {
	model := ""
	if s.Worker != "" {
		model = s.Model
	}
	workerLabels := labels("model", model, "hive", s.Hive, "worker", s.Worker)
	t.counter(s, "rbee_requests_total"+labels("path", s.Path, "code", strconv.Itoa(s.Status), "model", model, "hive", s.Hive, "worker", s.Worker)).Inc()
	if s.Worker == "" {
		return
	}
	t.counter(s, "rbee_prompt_tokens_total"+workerLabels).Add(s.PromptTokens)
	t.counter(s, "rbee_generated_tokens_total"+workerLabels).Add(s.CompletionTokens)
	t.counter(s, "rbee_retries_total"+workerLabels).Add(s.Retries)
	t.histogram(s, "rbee_request_duration_seconds"+workerLabels).Update(s.Duration.Seconds())
	if s.Stream && s.FirstByte > 0 && s.Status == http.StatusOK {
		t.histogram(s, "rbee_time_to_first_token_seconds"+workerLabels).Update(s.FirstByte.Seconds())
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

// addSeries records that a series belongs to a worker, so that Forget removes it.
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

// labels formats labels for Prometheus
// (https://prometheus.io/docs/instrumenting/exposition_formats/).
func labels(pairs ...string) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var b strings.Builder
	for i := 0; i+1 < len(pairs); i += 2 {
		b.WriteString(map[bool]string{true: "{", false: ","}[i == 0] + pairs[i] + `="`)
		_, _ = escape.WriteString(&b, strings.ToValidUTF8(pairs[i+1], "\uFFFD")) // never fails
		b.WriteByte('"')
	}
	return b.String() + "}"
}

// WriteMetrics writes all metrics in Prometheus's text format. waiting is the number of
// requests that wait for models to be loaded, by model.
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

// writeHive writes the metrics of a hive, its devices and its workers.
func (t *Traffic) writeHive(w io.Writer, alias string, s *operations.HiveSnapshot) {
	hive := labels("hive", alias)
	metrics.WriteGaugeUint64(w, "rbee_hive_memory_bytes"+hive, s.Machine.MemoryTotal)
	metrics.WriteGaugeUint64(w, "rbee_hive_memory_available_bytes"+hive, s.Machine.MemoryAvailable)
	metrics.WriteGaugeUint64(w, "rbee_hive_disk_bytes"+hive, s.Machine.DiskTotal)
	metrics.WriteGaugeUint64(w, "rbee_hive_disk_free_bytes"+hive, s.Machine.DiskFree)
	for _, d := range s.Machine.Devices {
		device := labels("hive", alias, "index", strconv.Itoa(d.Index), "name", d.Name, "uuid", d.UUID)
		metrics.WriteGaugeUint64(w, "rbee_device_memory_bytes"+device, d.MemoryTotal)
		if d.MemoryUsed != nil {
			metrics.WriteGaugeUint64(w, "rbee_device_memory_used_bytes"+device, *d.MemoryUsed)
		}
		if d.Utilization != nil {
			metrics.WriteGaugeFloat64(w, "rbee_device_utilization_ratio"+device, *d.Utilization/100)
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
