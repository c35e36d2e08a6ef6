package scheduler

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
)

func TestExplain(t *testing.T) {
	t.Parallel()
	ready := operations.WorkerProcess{ID: "echo-1", Model: "m", State: operations.WorkerReady}
	on := func(index int, uuid string) operations.WorkerProcess {
		w := ready
		w.ID, w.Devices = "echo-2", []operations.WorkerDevice{{Index: index, UUID: uuid}}
		return w
	}
	loading, failed, other := ready, ready, ready
	loading.State, other.Model = operations.WorkerLoading, "n"
	failed.State, failed.Problem = operations.WorkerFailed, "it exited with status 3"
	comfy, graph := ready, "comfyui"
	models := []operations.Model{{ID: "org/m:Q4", Repo: "org/m"}}
	byRepo, byID := ready, ready
	byRepo.Model, byRepo.ModelID, byID.Model = "org/m", "org/m:Q4", "org/m:Q4"
	crashed := failed
	crashed.RestartAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	comfy.ID, comfy.API = "comfyui-1", "comfyui"
	for _, c := range []struct {
		name    string
		workers []operations.WorkerProcess
		r       Request
		want    int
		reason  string
	}{
		{"ready", []operations.WorkerProcess{ready, on(0, "")}, Request{Model: "m"}, 2, ""},
		{"only workflows", []operations.WorkerProcess{comfy}, Request{Model: "m"}, 0, "comfyui-1 runs only workflows"},
		{"workflow", []operations.WorkerProcess{ready, comfy}, Request{Model: "m", API: graph}, 1, ""},
		{"workflow for any model", []operations.WorkerProcess{comfy, other}, Request{API: graph}, 1, ""},
		{"workflow for another model", []operations.WorkerProcess{comfy}, Request{Model: "n", API: graph}, 0, "comfyui-1 serves m"},
		{"no workflows", []operations.WorkerProcess{ready}, Request{API: graph}, 0, "echo-1 does not run workflows"},
		{"no worker", nil, Request{Model: "m"}, 0, "no worker is running"},
		{"another model", []operations.WorkerProcess{other}, Request{Model: "m"}, 0, "echo-1 serves n"},
		{"loading", []operations.WorkerProcess{loading}, Request{Model: "m"}, 0, "echo-1 is loading"},
		{"failed", []operations.WorkerProcess{failed}, Request{Model: "m"}, 0, "echo-1 failed: it exited with status 3"},
		{"crashed", []operations.WorkerProcess{crashed}, Request{Model: "m"}, 0, "echo-1 failed and will restart at 03:04:05: it exited with status 3"},
		{"requested by repository", []operations.WorkerProcess{byRepo, byID}, Request{Model: "org/m"}, 2, ""},
		{"requested by model ID", []operations.WorkerProcess{byRepo, byID}, Request{Model: "org/m:Q4"}, 2, ""},
		{"requested in another case", []operations.WorkerProcess{byRepo, byID}, Request{Model: "Org/M:q4"}, 2, ""},
		{"another quantization", []operations.WorkerProcess{byRepo}, Request{Model: "org/m:Q8"}, 0, "echo-1 serves org/m"},
		{"by worker ID", []operations.WorkerProcess{ready, on(0, "")}, Request{Model: "m", WorkerID: "echo-2"}, 1, ""},
		{"unknown worker ID", []operations.WorkerProcess{ready}, Request{Model: "m", WorkerID: "x"}, 0, "no worker x is running"},
		{"by device", []operations.WorkerProcess{ready, on(1, "GPU-a")}, Request{Model: "m", Device: "1"}, 1, ""},
		{"by vendor and device", []operations.WorkerProcess{ready, on(1, "GPU-a")}, Request{Model: "m", Device: "cuda:1"}, 1, ""},
		{"by UUID", []operations.WorkerProcess{ready, on(1, "GPU-a")}, Request{Model: "m", Device: "GPU-a"}, 1, ""},
		{"unknown device", []operations.WorkerProcess{on(1, "GPU-a")}, Request{Model: "m", Device: "0"}, 0, "echo-2 is not on device 0"},
		{"on the CPU", []operations.WorkerProcess{ready, on(1, "GPU-a")}, Request{Model: "m", Device: "cpu"}, 1, ""},
	} {
		hive := Hive{Alias: "h", Link: operations.LinkOnline, Report: &operations.HiveSnapshot{Workers: c.workers, Models: models}}
		got, reason := Schedule(c.r, []Hive{hive}, ReportedUsage{}), Explain(c.r, hive, ReportedUsage{})
		if len(got.Candidates) != c.want || reason != c.reason {
			t.Errorf("%s: Schedule() = %d candidates, want %d; Explain() = %q, want %q", c.name, len(got.Candidates), c.want, reason, c.reason)
		}
	}
}

// TestLoadTargets checks that a target has the complete model and an engine for its format,
// that the config selects the engine, and that more free memory comes first.
func TestLoadTargets(t *testing.T) {
	t.Parallel()
	free := uint64(8 << 30)
	model := operations.Model{ID: "org/m:Q4", Repo: "org/m", Format: "gguf", Complete: true}
	one := func(alias string, edit func(*operations.HiveSnapshot)) Hive {
		s := &operations.HiveSnapshot{
			Models:      []operations.Model{model},
			WorkerTypes: []operations.InstalledWorkerType{{Type: "llama-cpp", Formats: []string{"gguf"}}, {Type: "ollama", Formats: []string{"gguf"}}, {Type: "echo"}},
		}
		edit(s)
		return Hive{Alias: alias, Types: []string{"echo", "ollama", "llama-cpp"}, Report: s}
	}
	hives := []Hive{
		one("small", func(*operations.HiveSnapshot) {}),
		one("large", func(s *operations.HiveSnapshot) {
			s.Machine.Devices = []gpu.Device{{MemoryFree: &free}, {MemoryFree: &free, Error: "fell off the bus"}}
		}),
		one("reserved", func(s *operations.HiveSnapshot) {
			nine := uint64(9 << 30)
			s.Machine.Devices = []gpu.Device{{MemoryFree: &nine, MemoryReserved: 8 << 30}}
		}),
		one("partial", func(s *operations.HiveSnapshot) { s.Models[0].Complete = false }),
		one("without", func(s *operations.HiveSnapshot) { s.Models = nil }),
		one("other", func(s *operations.HiveSnapshot) { s.Models[0].Format = "safetensors" }),
		{Alias: "offline"},
	}
	list, reasons := LoadTargets(hives, "org/m")
	var got []string
	for _, p := range list {
		got = append(got, hives[p.Hive].Alias+" "+p.Worker)
	}
	if want := "large ollama, reserved ollama, small ollama"; strings.Join(got, ", ") != want {
		t.Errorf("LoadTargets() = %q, want %q", got, want)
	}
	for alias, want := range map[string]string{
		"partial": "the model is incomplete", "without": "the model is not on the hive", "other": "no installed worker type serves safetensors models",
	} {
		if reasons[alias] != want {
			t.Errorf("LoadTargets(): reason of %s = %q, want %q", alias, reasons[alias], want)
		}
	}
	two := append(hives[0].Report.Models, operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true})
	if FindModel(two, "org/m") != nil || FindModel(two, "org/m:Q8") == nil {
		t.Errorf("FindModel() of an ambiguous repository = %v, of an ID = %v, want nil, a model", FindModel(two, "org/m"), FindModel(two, "org/m:Q8"))
	}
}

// usage is a [Usage] for tests. Its fields contain keys of [WorkerKey].
type usage struct {
	busy              map[string]int
	evicting, suspect []string
}

func (u usage) Busy(w operations.WorkerProcess) int { return u.busy[WorkerKey(w)] }
func (u usage) Evicting(w operations.WorkerProcess) bool {
	return slices.Contains(u.evicting, WorkerKey(w))
}
func (u usage) Suspect(w operations.WorkerProcess) bool {
	return slices.Contains(u.suspect, WorkerKey(w))
}

// TestScheduleOrder checks every rule of Schedule by its number, on two hives with one
// worker each: a/w, which comes first by default, and b/w.
func TestScheduleOrder(t *testing.T) {
	t.Parallel()
	type hives struct{ a, b *Hive }
	worker := func(h *Hive) *operations.WorkerProcess { return &h.Report.Workers[0] }
	free := func(h *Hive, n uint64) { h.Report.Machine.Devices[0].MemoryFree = &n }
	firstStart := Instance(operations.WorkerProcess{ID: "w", StartedAt: time.Unix(1, 0)})
	busy := func(a, b int) usage { return usage{busy: map[string]int{"a/w": a, "b/w": b}} }
	for _, c := range []struct {
		name    string
		edit    func(hives)
		request Request
		usage   usage
		want    string // candidates, best first
		offline string
	}{
		{name: "1 prefix of the worker ID", edit: func(h hives) { worker(h.a).ID = "x" }, request: Request{WorkerID: "w"}, want: "b/w"},
		{name: "2 the request needs an API", edit: func(h hives) { worker(h.b).API = "comfyui" }, request: Request{API: "comfyui"}, want: "b/w"},
		{name: "3 the worker has an API", edit: func(h hives) { worker(h.a).API = "comfyui" }, want: "b/w"},
		{name: "4 another model", edit: func(h hives) { worker(h.a).Model = "n" }, want: "b/w"},
		{name: "5 another device", edit: func(h hives) { worker(h.a).Devices[0].Index = 1; h.a.Report.Machine.Devices[0].Index = 1 }, request: Request{Device: "cuda:0"}, want: "b/w"},
		{name: "6 not ready", edit: func(h hives) { worker(h.a).State = operations.WorkerLoading }, want: "b/w"},
		{name: "7 failed for this request", edit: func(h hives) { worker(h.a).StartedAt = time.Unix(1, 0) }, request: Request{Exclude: []string{firstStart}}, want: "b/w"},
		{name: "7 failed for this request, then restarted", edit: func(h hives) { worker(h.a).StartedAt = time.Unix(2, 0) }, request: Request{Exclude: []string{firstStart}}, want: "a/w b/w"},
		{name: "8 being evicted", usage: usage{evicting: []string{"a/w"}}, want: "b/w"},
		{name: "9 offline", edit: func(h hives) { h.a.Link = operations.LinkOffline }, want: "b/w", offline: "a"},
		{name: "9 offline without a worker that could serve the request", edit: func(h hives) { h.a.Link, worker(h.a).Model = operations.LinkOffline, "n" }, want: "b/w"},
		{name: "10 suspect before 11", usage: usage{suspect: []string{"a/w"}, busy: map[string]int{"b/w": 9}}, want: "b/w a/w"},
		{name: "10 stale before 11", edit: func(h hives) { h.a.Link = operations.LinkStale }, usage: busy(0, 9), want: "b/w a/w"},
		{name: "11 among suspect and stale", edit: func(h hives) { h.a.Link = operations.LinkStale }, usage: usage{suspect: []string{"b/w"}, busy: map[string]int{"a/w": 2, "b/w": 1}}, want: "b/w a/w"},
		{name: "11 before 12", edit: func(h hives) { free(h.a, 64<<30) }, usage: busy(1, 0), want: "b/w a/w"},
		{name: "12 more free memory", edit: func(h hives) { free(h.b, 9<<30) }, want: "b/w a/w"},
		{name: "12 rounded to GiB", edit: func(h hives) { free(h.b, 8<<30+1) }, want: "a/w b/w"},
		{name: "13 conversation", request: Request{Affinity: 1}, want: "a/w b/w"},
		{name: "13 another conversation", request: Request{Affinity: 2}, want: "b/w a/w"},
		{name: "no snapshot", edit: func(h hives) { h.a.Report = nil }, want: "b/w"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			list := []Hive{{Alias: "a"}, {Alias: "b"}}
			for i := range list {
				memory := uint64(8 << 30)
				list[i].Link, list[i].Report = operations.LinkOnline, &operations.HiveSnapshot{
					Workers: []operations.WorkerProcess{{Hive: list[i].Alias, ID: "w", Model: "m", State: operations.WorkerReady, Devices: []operations.WorkerDevice{{UUID: "g"}}}},
					Machine: operations.HiveCapabilitiesReport{Devices: []gpu.Device{{UUID: "g", MemoryFree: &memory}}},
				}
			}
			if c.edit != nil {
				c.edit(hives{&list[0], &list[1]})
			}
			if c.request.API == "" {
				c.request.Model = "m"
			}
			got := Schedule(c.request, list, c.usage)
			var keys []string
			for _, k := range got.Candidates {
				keys = append(keys, WorkerKey(*k.Worker))
			}
			if strings.Join(keys, " ") != c.want || strings.Join(got.Offline, " ") != c.offline {
				t.Errorf("Schedule() = %q, offline %q, want %q, offline %q", keys, got.Offline, c.want, c.offline)
			}
		})
	}
}

// TestCommonModelID checks that a name identifies a model only if all hives agree.
func TestCommonModelID(t *testing.T) {
	t.Parallel()
	hive := func(link operations.Link, format string, ids ...string) Hive {
		s := &operations.HiveSnapshot{WorkerTypes: []operations.InstalledWorkerType{{Type: "llama-cpp", Formats: []string{"gguf"}}}}
		for _, id := range ids {
			s.Models = append(s.Models, operations.Model{ID: id, Repo: "org/m", Format: format})
		}
		return Hive{Link: link, Report: s}
	}
	online, offline := operations.LinkOnline, operations.LinkOffline
	for _, c := range []struct {
		name  string
		hives []Hive
		want  string
	}{
		{"no hive", nil, "org/m"},
		{"no snapshot", []Hive{{Link: online}}, "org/m"},
		{"one", []Hive{hive(online, "gguf", "org/m:Q4")}, "org/m:Q4"},
		{"same model", []Hive{hive(online, "gguf", "org/m:Q4"), hive(online, "gguf", "org/m:Q4")}, "org/m:Q4"},
		{"different models", []Hive{hive(online, "gguf", "org/m:Q4"), hive(online, "gguf", "org/m:Q8")}, "org/m"},
		{"ambiguous on one", []Hive{hive(online, "gguf", "org/m:Q4", "org/m:Q8")}, "org/m"},
		{"other hive offline", []Hive{hive(online, "gguf", "org/m:Q4"), hive(offline, "gguf", "org/m:Q8")}, "org/m:Q4"},
		{"other hive without engine", []Hive{hive(online, "gguf", "org/m:Q4"), hive(online, "safetensors", "org/m:Q8")}, "org/m:Q4"},
	} {
		if got := CommonModelID(c.hives, "org/m"); got != c.want {
			t.Errorf("%s: CommonModelID() = %q, want %q", c.name, got, c.want)
		}
	}
}

// TestVictims checks which workers Victims returns, and that the cheapest comes first.
func TestVictims(t *testing.T) {
	t.Parallel()
	at := time.Unix(1000, 0)
	worker := func(id string, load time.Duration) operations.WorkerProcess {
		return operations.WorkerProcess{
			ID: id, Hive: "a", OnDemand: true, State: operations.WorkerReady, StartedAt: at, ReadyAt: at.Add(load), Devices: []operations.WorkerDevice{{UUID: "g"}},
		}
	}
	idle := map[string]time.Duration{"slow": time.Minute, "quick": time.Minute, "long": time.Hour, "busy": 0, "just": MinIdle - 1, "manual": time.Hour, "cpu": time.Hour, "loading": time.Hour}
	manual, cpu, loading := worker("manual", time.Second), worker("cpu", time.Second), worker("loading", time.Second)
	manual.OnDemand, cpu.Devices, loading.State = false, nil, operations.WorkerLoading
	hives := []Hive{
		{Alias: "unknown"},
		{Alias: "a", Report: &operations.HiveSnapshot{Workers: []operations.WorkerProcess{
			worker("slow", time.Minute), worker("quick", 5*time.Second), worker("long", time.Minute), worker("busy", time.Second), worker("just", time.Second), manual, cpu, loading,
		}}},
	}
	var got []string
	for _, v := range Victims(hives, func(w operations.WorkerProcess) time.Duration { return idle[w.ID] }) {
		got = append(got, v.Worker.ID)
		if v.Hive != 1 {
			t.Errorf("Victims() has hive %d for %s, want 1", v.Hive, v.Worker.ID)
		}
	}
	if want := []string{"long", "quick", "slow"}; !slices.Equal(got, want) {
		t.Errorf("Victims() = %v, want %v", got, want)
	}
}
