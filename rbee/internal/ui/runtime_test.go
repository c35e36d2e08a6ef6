package ui

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/format"
)

// runtimeNow is the current time of the golden files, in the local time zone.
var runtimeNow = time.Date(2026, 3, 4, 12, 0, 0, 0, time.Local)

func before(d time.Duration) time.Time { return runtimeNow.Add(-d) }

func ptr[T any](v T) *T { return &v }

var (
	gpu0        = operations.WorkerDevice{Index: 0, Vendor: "nvidia", UUID: "GPU-aaaa", Name: "NVIDIA H100 80GB HBM3"}
	gpu1        = operations.WorkerDevice{Index: 1, Vendor: "nvidia", UUID: "GPU-bbbb"}
	daemonError = &operations.Error{Code: operations.CodeUnreachable, Reason: "daemon", Hive: "gpu-9", Message: "the hive daemon does not respond: connection refused"}
)

func readyWorker() operations.WorkerProcess {
	return operations.WorkerProcess{
		ID: "vllm-1a2b", Hive: "gpu-1", Worker: "vllm", Version: "0.9.1", Model: "Qwen/Qwen3-8B", State: operations.WorkerReady,
		PID: 4711, Port: 43123, Devices: []operations.WorkerDevice{gpu0, gpu1}, MemoryEstimate: 18_200_000_000,
		Argv: []string{"/w/vllm", "serve", "--chat template", ""}, EnvNames: []string{"HF_HOME", "X"},
		CreatedAt: before(3*time.Hour + 13*time.Minute), StartedAt: before(3*time.Hour + 12*time.Minute), ReadyAt: before(3 * time.Hour),
		Requests: 2, Restarts: 1, LogPath: "/l/vllm-1a2b.log", LogTail: []string{"INFO\tready", "  indented \x1b[31mred"},
	}
}

func failedWorker() operations.WorkerProcess {
	return operations.WorkerProcess{
		ID: "vllm-3c4d", Hive: "gpu-1", Worker: "vllm", Model: "big", State: operations.WorkerFailed, Port: 43124, Devices: []operations.WorkerDevice{gpu0},
		ExitStatus: ptr(1), Problem: "exited before it was ready", CreatedAt: before(time.Minute), EndedAt: before(50 * time.Second),
		LogTail: []string{"Traceback:", "  CUDA out of memory\x07"},
	}
}

func runtimeReports() map[string]operations.Report {
	echo := operations.WorkerProcess{ID: "echo-1a2b", Hive: "gpu-1", Worker: "echo", Model: "m", State: operations.WorkerReady, PID: 123, Port: 43123}
	on := func(w operations.WorkerProcess, state operations.WorkerState) operations.WorkerProcess {
		w.State = state
		return w
	}
	restarting := failedWorker()
	restarting.RestartAt, restarting.Restarts = runtimeNow.Add(20*time.Second), 3
	model := operations.Model{
		ID: "org/repo:m.gguf", Hive: "gpu-1", Repo: "org/repo", Revisions: []string{"main"}, Commit: "abc", Format: "gguf", Path: "/hub/m.gguf",
		Bytes: 4_100_000_000, Complete: true, UsedBy: []string{"llama-cpp-1a2b"}, ModifiedAt: before(26 * time.Hour),
	}
	partial := operations.Model{ID: "org/big", Hive: "gpu-2", Bytes: 20_000_000_000, PartialBytes: 7_000_000_000, Format: "safetensors"}
	detail := model
	detail.MemoryEstimate = 5_500_000_000
	detail.Files = []operations.ModelFile{{Path: "m.gguf", Bytes: 4_100_000_000, SHA256: strings.Repeat("a1", 32)}, {Path: "config.json", Bytes: 500, Missing: true}}
	return map[string]operations.Report{
		"capabilities":     capabilities(),
		"capabilities_cpu": &operations.HiveCapabilitiesReport{Alias: "nas", OS: "linux", Arch: "arm64", CPU: operations.CPU{Threads: 1}, DiskFree: 5e9},
		"multihive": &MultiHive{Hives: []HiveResult{
			{Alias: "gpu-1", Report: &operations.HiveCapabilitiesReport{Alias: "gpu-1", OS: "linux", Arch: "amd64"}},
			{Alias: "gpu-2", Report: &operations.HiveCapabilitiesReport{Alias: "gpu-2", OS: "linux", Arch: "amd64"}},
			{Alias: "gpu-9", Error: daemonError},
		}},
		"spawned":         &operations.WorkerSpawnReport{Worker: echo, Reason: "not shown", DurationSeconds: 0.12},
		"spawned_detach":  &operations.WorkerSpawnReport{Worker: on(readyWorker(), operations.WorkerLoading), DurationSeconds: 0.5},
		"spawned_failed":  &operations.WorkerSpawnReport{Worker: failedWorker(), DurationSeconds: 12},
		"workers":         &operations.WorkerListReport{Workers: []operations.WorkerProcess{readyWorker(), restarting, on(echo, operations.WorkerStopped)}, Errors: []*operations.Error{daemonError}},
		"workers_none":    &operations.WorkerListReport{},
		"worker":          &operations.WorkerGetReport{Worker: readyWorker()},
		"worker_failed":   &operations.WorkerGetReport{Worker: restarting},
		"stopped":         &operations.WorkerDeleteReport{Worker: on(echo, operations.WorkerStopped), Killed: true, DurationSeconds: 21},
		"stopped_note":    stopNote(on(readyWorker(), operations.WorkerStopped)),
		"stopped_problem": stopProblem(on(readyWorker(), operations.WorkerStopped)),
		"stop_failed":     &operations.WorkerDeleteReport{Worker: on(echo, operations.WorkerDraining), Problem: "process 123 did not exit after SIGKILL"},
		"downloaded":      &operations.ModelDownloadReport{Model: model, DownloadedBytes: 4_100_000_000, ResumedBytes: 1_200_000_000, DurationSeconds: 35},
		"downloaded_none": &operations.ModelDownloadReport{Model: model, PresentBytes: 4_100_000_000, DurationSeconds: 0.2},
		"models":          &operations.ModelListReport{Models: []operations.Model{model, partial}, Errors: []*operations.Error{daemonError}},
		"models_none":     &operations.ModelListReport{},
		"model":           &operations.ModelGetReport{Model: detail},
		"deleted":         &operations.ModelDeleteReport{Model: model, FreedBytes: 4_000_000_000, KeptBytes: 100_000_000},
	}
}

func capabilities() *operations.HiveCapabilitiesReport {
	return &operations.HiveCapabilitiesReport{
		Alias: "gpu-1", Hostname: "box", OS: "linux", Arch: "amd64", Kernel: "6.1.0", Libc: "glibc 2.36",
		CPU: operations.CPU{Model: "AMD EPYC 9654", Threads: 64}, MemoryTotal: 128e9, MemoryAvailable: 100e9, DiskTotal: 2e12, DiskFree: 81e9,
		ModelsPath: "/home/u/.cache/huggingface/hub", ModelsFree: 500e9, CUDA: "12.8",
		Devices: []gpu.Device{
			{Index: 0, Vendor: "nvidia", UUID: "GPU-aaaa", Name: "NVIDIA H100 80GB HBM3", MemoryTotal: 85_520_000_000, MemoryUsed: ptr[uint64](14e9), Driver: "570.1", ComputeCapability: "9.0",
				Utilization: ptr(97.4), Temperature: ptr(61.0), Power: ptr(412.7), MIG: ptr(true)},
			{Index: 1, Vendor: "nvidia", UUID: "GPU-bbbb", Name: "NVIDIA H100 80GB HBM3", Driver: "570.1", Error: "GPU is lost"},
			{Index: -1, Vendor: "amd", Name: "MI300X", MemoryTotal: 192e9, MemoryFree: ptr[uint64](190e9), Architecture: "gfx942"},
		},
		Processes: []operations.DeviceProcess{
			{DeviceUUID: "GPU-aaaa", PID: 4711, Name: "vllm", User: "rbee", Memory: ptr[uint64](13e9), WorkerID: "vllm-1a2b"},
			{DeviceUUID: "GPU-cccc", PID: 9, Name: "python3"},
		},
	}
}

func stopNote(w operations.WorkerProcess) *operations.WorkerDeleteReport {
	return &operations.WorkerDeleteReport{
		Worker: w, DurationSeconds: 3,
		Note: "1.5 GiB of device 0 are still allocated by an unknown process",
	}
}

func stopProblem(w operations.WorkerProcess) *operations.WorkerDeleteReport {
	return &operations.WorkerDeleteReport{
		Worker: w, Problem: "its device memory was not freed within 30s", DurationSeconds: 51,
		Holders: []operations.DeviceProcess{{DeviceUUID: "GPU-aaaa", PID: 99, Name: "python3", User: "eve", Memory: ptr[uint64](3e9)}},
	}
}

func TestRuntimeReports(t *testing.T) {
	t.Parallel()
	for name, report := range runtimeReports() {
		var b strings.Builder
		if err := Report(&b, Style{Now: runtimeNow}, report); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
		if strings.ContainsAny(b.String(), "\x1b\x07\t") {
			t.Errorf("Report() of %s = %q, want no control characters", name, b.String())
		}
	}
}

func TestVerboseReportHasReason(t *testing.T) {
	t.Parallel()
	r := &operations.WorkerSpawnReport{Worker: readyWorker(), Reason: "needed: 18 GB\nfree: 80 GB"}
	var b strings.Builder
	if err := Report(&b, Style{Verbose: true}, r); err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(b.String(), ")\n   needed: 18 GB\n   free: 80 GB\n") {
		t.Errorf("Report = %q, want the reason at the end", b.String())
	}
}

func TestMultiHiveOutcome(t *testing.T) {
	t.Parallel()
	ok := HiveResult{Report: &operations.HiveCapabilitiesReport{}}
	failed := func(code operations.Code) HiveResult { return HiveResult{Error: &operations.Error{Code: code}} }
	for name, c := range map[string]struct {
		hives []HiveResult
		want  operations.Outcome
	}{
		"no hives":                    {nil, operations.OutcomeOK},
		"success":                     {[]HiveResult{ok, ok}, operations.OutcomeOK},
		"one unreachable":             {[]HiveResult{ok, failed(operations.CodeUnreachable)}, operations.OutcomeUnreachable},
		"locked over unreachable":     {[]HiveResult{failed(operations.CodeUnreachable), failed(operations.CodeLocked)}, operations.OutcomeLocked},
		"invalid over locked":         {[]HiveResult{failed(operations.CodeLocked), failed(operations.CodeConfigInvalid)}, operations.OutcomeInvalid},
		"failed over invalid":         {[]HiveResult{failed(operations.CodeConfigInvalid), failed(operations.CodeNotFound)}, operations.OutcomeFailed},
		"failed worker in the report": {[]HiveResult{{Report: &operations.WorkerSpawnReport{Worker: failedWorker()}}}, operations.OutcomeFailed},
	} {
		if got := (&MultiHive{c.hives}).Outcome(); got != c.want {
			t.Errorf("%s: Outcome() = %s, want %s", name, got, c.want)
		}
	}
}

func TestMultiHiveJSON(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	if err := JSON(&b, runtimeReports()["multihive"]); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Hives []struct {
			Alias  string
			Report *operations.HiveCapabilitiesReport
			Error  *operations.Error
		}
	}
	if err := json.Unmarshal([]byte(b.String()), &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Hives) != 3 || doc.Hives[0].Report.Alias != "gpu-1" || doc.Hives[0].Error != nil || doc.Hives[2].Report != nil || doc.Hives[2].Error.Reason != "daemon" {
		t.Errorf("JSON = %s, want two reports and an error", b.String())
	}
}

// TestHintsIgnoreMessages checks that the message of an error does not change its
// hint.
func TestHintsIgnoreMessages(t *testing.T) {
	t.Parallel()
	const decoy = "model model-401: no space left on device, permission denied, worker not installed, no such hive, HF_TOKEN, cannot verify, already exists"
	for _, reason := range operations.Reasons() {
		e := operations.Error{Code: operations.CodeUnreachable, Reason: reason, Hive: "a", Message: "odd"}
		want := Hint(&e)
		if e.Message = decoy; Hint(&e) != want {
			t.Errorf("Hint of %s = %q with another message, want %q", reason, Hint(&e), want)
		}
	}
	if got := Hint(&operations.Error{Code: operations.CodeFailed, Message: decoy}); got != "" {
		t.Errorf("Hint without a reason = %q, want none", got)
	}
}

func TestRuntimeHints(t *testing.T) {
	t.Parallel()
	worker, model := operations.SubjectWorker.WithName, operations.SubjectModel.WithName
	for _, c := range []struct {
		e    operations.Error
		want string
	}{
		{*daemonError, "run `rbee start-hive gpu-9` to start it"},
		{operations.Error{Reason: operations.ReasonWorkerNotInstalled, Hive: "a", Subject: worker("vllm")}, "then run `rbee sync --hive a`"},
		{operations.Error{Reason: operations.ReasonWorkerDamaged, Hive: "a", Subject: worker("vllm")}, "run `rbee sync --hive a` to reinstall it"},
		{operations.Error{Reason: operations.ReasonModelNotFound, Hive: "a", Subject: model("org/repo")}, "run `rbee download-model org/repo --hive a` to download it"},
		{operations.Error{Reason: operations.ReasonModelNotFound}, "run `rbee download-model MODEL` to download it"},
		{operations.Error{Reason: operations.ReasonTooLarge, Hive: "a"}, "run `rbee hive-capabilities a` to see"},
		{operations.Error{Reason: operations.ReasonModelGated}, "HF_TOKEN"},
		{operations.Error{Reason: operations.ReasonNoWorker, Subject: model("m")}, "run `rbee spawn-worker --worker TYPE --model m` to start one"},
		{operations.Error{Reason: operations.ReasonNoWorker, Hive: "a", Subject: model("m")}, "run `rbee spawn-worker --hive a --worker TYPE --model m` to start one"},
		{operations.Error{Reason: operations.ReasonWorkerNotFound, Hive: "a", Subject: worker("x")}, "`rbee list-workers --all`"},
		{operations.Error{Reason: operations.ReasonUnknownHive, Hive: "x"}, "`rbee list-hives`"},
		{operations.Error{Reason: operations.ReasonUnknownWorker, Subject: worker("nosuch")}, "nosuch"},
		{operations.Error{Reason: operations.ReasonVerifyFailed}, "a driver or a library"},
		{operations.Error{Reason: operations.ReasonDiskFull}, "free disk space"},
	} {
		if got := Hint(&c.e); !strings.Contains(got, c.want) {
			t.Errorf("Hint(%s) = %q, want %q in it", c.e.Reason, got, c.want)
		}
	}
}

func TestLiveRuntime(t *testing.T) {
	t.Parallel()
	l, s, clock := newTestLive(t, 90, 24)
	var output strings.Builder
	frame := func() {
		clock.advance(2 * time.Second)
		output.WriteString(strings.ReplaceAll(redrawn(l, s), "\x1b", "ESC") + "---\n")
	}
	worker := func(state operations.WorkerState, problem string) {
		w := operations.WorkerProcess{ID: "vllm-1a2b", State: state, Problem: problem}
		l.Handle(operations.Event{Type: operations.EventWorker, Hive: "gpu-1", Worker: &w})
	}
	progress := func(bytes int64) {
		l.Handle(operations.Event{Type: operations.EventProgress, Hive: "gpu-2", Bytes: bytes, Total: 4_000_000_000, Message: "model.gguf"})
	}
	l.Handle(operations.Event{Type: operations.EventPhase, Hive: "gpu-1", Phase: operations.PhaseConnecting})
	worker(operations.WorkerStarting, "")
	progress(1_000_000_000)
	frame()
	worker(operations.WorkerLoading, "")
	l.Handle(operations.Event{Type: operations.EventLog, Hive: "gpu-1", Text: "one\nloading \x1b[2Jweights\n\n"})
	progress(1_200_000_000)
	frame()
	l.Handle(operations.Event{Type: operations.EventNote, Hive: "gpu-1", Message: "compiling graphs"})
	l.Handle(operations.Event{Type: operations.EventNote, Hive: "gpu-2", Message: "a note"})
	progress(1_300_000_000)
	frame()
	worker(operations.WorkerReady, "")
	clock.advance(20 * time.Second)
	frame()
	worker(operations.WorkerFailed, "exit status 1")
	l.Handle(operations.Event{Type: operations.EventPhase, Hive: "gpu-2", Phase: operations.PhaseDone})
	frame()
	golden(t, "live_runtime", output.String())
}

func TestPlainRuntime(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	p := &Plain{W: &b}
	at := runtimeNow
	progress := func(after time.Duration, bytes int64) {
		at = at.Add(after)
		p.Handle(operations.Event{Time: at, Type: operations.EventProgress, Hive: "a", Bytes: bytes, Total: 1000_000_000, Message: "m.gguf"})
	}
	progress(0, 100e6)
	progress(time.Second, 210e6)           // another tenth, too soon
	progress(1500*time.Millisecond, 220e6) // a line
	progress(5*time.Second, 290e6)         // the same tenth
	progress(24*time.Second, 291e6)        // 30s after the last line
	progress(12*time.Second, 291e6)
	progress(0, 10e6) // a new transfer
	w := operations.WorkerProcess{ID: "echo-1", State: operations.WorkerFailed, Problem: "exit\nstatus 1"}
	p.Handle(operations.Event{Type: operations.EventWorker, Hive: "a", Worker: &w})
	p.Handle(operations.Event{Type: operations.EventLog, Hive: "a", Text: "only in verbose mode"})
	p.Handle(operations.Event{Type: operations.EventToken, Hive: "a", Text: "no"})
	p.Verbose = true
	p.Handle(operations.Event{Type: operations.EventLog, Hive: "a", Text: "x\nlast\n"})
	golden(t, "plain_runtime", b.String())
}

func TestMeter(t *testing.T) {
	t.Parallel()
	var m meter
	at := runtimeNow
	m.add(at, 5000) // resumed
	if got := m.parts(at, 10_000); got != nil {
		t.Errorf("parts before the second measurement = %q, want nil", got)
	}
	for range 10 {
		at = at.Add(time.Second)
		m.add(at, m.bytes+1000)
		m.add(at.Add(time.Millisecond), m.bytes+900_000) // too soon to count
	}
	if m.rate < 999 || m.rate > 1001 {
		t.Errorf("rate of 1000 bytes per second = %g, want 999 to 1001", m.rate)
	}
	at = at.Add(time.Second)
	m.add(at, m.bytes+10_000)
	if m.rate < 1500 || m.rate > 5000 {
		t.Errorf("rate after one fast second = %g, want 1500 to 5000", m.rate)
	}
	m.add(at.Add(time.Second), 0)
	if m.rate != 0 || m.bytes != 0 {
		t.Errorf("meter after a new transfer = %+v, want rate and bytes 0", m)
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		terminal bool
		pieces   []string
		want     string
	}{
		{false, []string{"a\x1b[31m\r", "\nb"}, "a\x1b[31m\r\nb\n"},
		{true, []string{"a\x1b]0;title\x07b\tc", "\u009b2J", "\u202eabc"}, "a]0;titleb\tc2Jabc\n"},
		{true, []string{"line\r", "\nnext\rover", "\r\n"}, "line\nnext\nover\n"},
		{true, []string{"\x1b", "Grüße 🐝"}, "Grüße 🐝\n"},
		{true, nil, ""},
	} {
		var b strings.Builder
		text := NewText(&b, c.terminal)
		for _, p := range c.pieces {
			text.Write(p)
		}
		if text.HasText() != (c.pieces != nil) {
			t.Errorf("HasText() after %q = %t, want %t", c.pieces, text.HasText(), c.pieces != nil)
		}
		text.EndLine()
		if b.String() != c.want {
			t.Errorf("Text() with terminal %t and pieces %q wrote %q, want %q", c.terminal, c.pieces, b.String(), c.want)
		}
	}
	text := NewText(failingWriter{}, false)
	text.Write("a")
	text.Write("b")
	if text.Err() == nil {
		t.Error("Err = nil after a failed write, want the error")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errors.New("closed") }

func TestAnswerStats(t *testing.T) {
	t.Parallel()
	for want, r := range map[string]operations.InferReport{
		"41 tokens, 12 prompt tokens, first after 200ms, 20.0 tokens/s, 2.2s total, echo-1 on a\n": {
			CompletionTokens: 41, PromptTokens: 12, FirstTokenSeconds: 0.2, DurationSeconds: 2.2, WorkerID: "echo-1", Hive: "a"},
		"1 token, first after 1.5s, 0.7 tokens/s, 1.5s total\n": {CompletionTokens: 1, FirstTokenSeconds: 1.5, DurationSeconds: 1.5},
		"0.0s total\n": {},
	} {
		var b strings.Builder
		if err := AnswerStats(&b, Style{}, &r); err != nil || b.String() != want {
			t.Errorf("AnswerStats() wrote %q and returned %v, want %q", b.String(), err, want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 1400 * time.Millisecond: "1s", 59 * time.Second: "59s", 5 * time.Minute: "5m", 90 * time.Minute: "1h30m", 47 * time.Hour: "47h00m", 50 * time.Hour: "2d",
	} {
		if got := format.Age(d); got != want {
			t.Errorf("Age(%v) = %q, want %q", d, got, want)
		}
	}
}
