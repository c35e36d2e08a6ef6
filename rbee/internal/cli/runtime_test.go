package cli

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/creack/pty"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
)

// fleetRunner is a fake runner with hives, workers and models. It returns an empty
// report for operations without a response.
type fleetRunner struct {
	hives   []string
	workers []operations.WorkerProcess
	models  []operations.Model
	errs    []*operations.Error // errors of hives in lists
	respond func(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error)

	mu     sync.Mutex
	got    []string // encoded operations
	closed int
}

func (f *fleetRunner) Close() error { f.closed++; return nil }

func (f *fleetRunner) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	wire, err := op.MarshalJSON()
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.got = append(f.got, string(wire))
	f.mu.Unlock()
	if events == nil {
		events = func(operations.Event) {}
	}
	if f.respond != nil {
		if report, err := f.respond(ctx, op, events); report != nil || err != nil {
			return report, err
		}
	}
	switch op.(type) {
	case operations.HiveList:
		list := &operations.HiveListReport{Hives: []operations.HiveSummary{{Alias: "old", InRecord: true}}}
		for _, alias := range f.hives {
			list.Hives = append(list.Hives, operations.HiveSummary{Alias: alias, InConfig: true})
		}
		return list, nil
	case operations.WorkerProcessList:
		return &operations.WorkerListReport{Workers: f.workers, Errors: f.errs}, nil
	case operations.ModelList:
		return &operations.ModelListReport{Models: f.models, Errors: f.errs}, nil
	}
	return operations.ParseReport(op.Kind(), []byte("{}"))
}

// command runs one command line. edit, if not nil, changes its Process.
func (f *fleetRunner) command(t *testing.T, edit func(*Process), args ...string) result {
	t.Helper()
	var out, errOut strings.Builder
	p := Process{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut, Version: "1.2.3",
		Env:  []string{"HOME=/home/me", "HERE=local", "HF_TOKEN=hf_secret", "HF_ENDPOINT=https://mirror"},
		Open: func(controller.Options) (Runner, error) { return f, nil },
	}
	if edit != nil {
		edit(&p)
	}
	code := Run(t.Context(), p)
	return result{code, out.String(), errOut.String()}
}

// stdin returns an edit that sets stdin.
func stdin(text string) func(*Process) {
	return func(p *Process) { p.Stdin = strings.NewReader(text) }
}

var twoHives = []string{"gpu-1", "gpu-2"}

// readyWorker returns a ready worker.
func readyWorker(hive, id string, pid int) operations.WorkerProcess {
	return operations.WorkerProcess{ID: id, Hive: hive, PID: pid, State: operations.WorkerReady}
}

func TestRuntimeFlagsSetOperations(t *testing.T) {
	t.Parallel()
	const (
		hives   = `{"operation":"hive_list"}`
		workers = `{"operation":"worker_process_list","all":true}`
		models  = `{"operation":"model_list"}`
		get     = `{"operation":"worker_process_get","hive_id":`
	)
	fleet := &fleetRunner{
		hives:   twoHives,
		workers: []operations.WorkerProcess{readyWorker("gpu-1", "echo-1a2b", 70), readyWorker("gpu-2", "vllm-1a2b", 71), readyWorker("gpu-2", "vllm-1a2b-3", 72)},
		models:  []operations.Model{{ID: "org/one", Hive: "gpu-1"}, {ID: "org/two:f.gguf", Hive: "gpu-2"}, {ID: "org/two:g.gguf", Hive: "gpu-2"}},
	}
	one := &fleetRunner{hives: []string{"only"}}
	for _, c := range []struct {
		fleet *fleetRunner
		line  string
		want  []string
	}{
		{one, "hive-capabilities", []string{hives, `{"operation":"hive_capabilities","alias":"only"}`}},
		{fleet, "hive-capabilities gpu-2 -c f", []string{`{"operation":"hive_capabilities","alias":"gpu-2","config_path":"f"}`}},
		{fleet, "hive-capabilities", []string{hives, `{"operation":"hive_capabilities","alias":"gpu-1"}`, `{"operation":"hive_capabilities","alias":"gpu-2"}`}},

		{one, "spawn-worker --worker echo --model m", []string{hives, `{"operation":"worker_spawn","hive_id":"only","model":"m","worker":"echo"}`}},
		{fleet, "spawn-worker --hive a --worker vllm --model o/r --device 0,1 --port 9 --context 8192 --env A=1,2=3 --env HERE --env B= --detach -c f -- --eager -x", []string{
			`{"operation":"worker_spawn","hive_id":"a","config_path":"f","model":"o/r","worker":"vllm","device":"0,1","port":9,"context_length":8192,` +
				`"env":{"A":"1,2=3","B":"","HERE":"local"},"args":["--eager","-x"],"detach":true}`}},

		{fleet, "list-workers", []string{`{"operation":"worker_process_list"}`}},
		{fleet, "list-workers --hive a --all", []string{`{"operation":"worker_process_list","hive_id":"a","all":true}`}},
		{one, "get-worker ec", []string{hives, get + `"only","id":"ec"}`}},
		{fleet, "get-worker ec --hive a", []string{get + `"a","id":"ec"}`}},
		{fleet, "get-worker ec", []string{hives, workers, get + `"gpu-1","id":"echo-1a2b"}`}},
		{fleet, "get-worker vllm-1a2b", []string{hives, workers, get + `"gpu-2","id":"vllm-1a2b"}`}},
		{fleet, "get-worker 71", []string{hives, workers, get + `"gpu-2","pid":71}`}},
		{fleet, "stop-worker echo --grace 1m30s --force", []string{hives, workers,
			`{"operation":"worker_process_delete","hive_id":"gpu-1","id":"echo-1a2b","grace_seconds":90,"force":true}`}},
		{fleet, "worker-logs echo --hive a", []string{`{"operation":"worker_process_logs","hive_id":"a","id":"echo","lines":100}`}},
		{fleet, "worker-logs 70 -n 0 -f", []string{hives, workers, `{"operation":"worker_process_logs","hive_id":"gpu-1","pid":70,"lines":-1,"follow":true}`}},

		{one, "download-model o/r:Q4", []string{hives, `{"operation":"model_download","hive_id":"only","model":"o/r:Q4","token":"hf_secret","endpoint":"https://mirror"}`}},
		{fleet, "download-model o/r --hive b,a --hive a", []string{
			`{"operation":"model_download","hive_id":"a","model":"o/r","token":"hf_secret","endpoint":"https://mirror"}`,
			`{"operation":"model_download","hive_id":"b","model":"o/r","token":"hf_secret","endpoint":"https://mirror"}`}},
		{one, "download-model o/r --all-hives", []string{hives, `{"operation":"model_download","hive_id":"only","model":"o/r","token":"hf_secret","endpoint":"https://mirror"}`}},
		{fleet, "list-models", []string{models}},
		{fleet, "list-models --hive a", []string{`{"operation":"model_list","hive_id":"a"}`}},
		{fleet, "get-model org/one", []string{hives, models, `{"operation":"model_get","hive_id":"gpu-1","id":"org/one"}`}},
		{fleet, "get-model org/two:Q4@v1", []string{hives, models, `{"operation":"model_get","hive_id":"gpu-2","id":"org/two:Q4@v1"}`}},
		{one, "get-model x", []string{hives, `{"operation":"model_get","hive_id":"only","id":"x"}`}},
		{fleet, "delete-model x --hive a --yes", []string{`{"operation":"model_delete","hive_id":"a","id":"x"}`}},

		{fleet, "infer hello --model m", []string{`{"operation":"infer","model":"m","prompt":"hello","max_tokens":256,"temperature":0.7,"stream":true}`}},
		{fleet, "infer hello --model m --json", []string{`{"operation":"infer","model":"m","prompt":"hello","max_tokens":256,"temperature":0.7,"stream":false}`}},
		{fleet, "infer hello --model m --system be-brief --no-spawn --seed 4", []string{
			`{"operation":"infer","model":"m","prompt":"hello","seed":4,"max_tokens":256,"temperature":0.7,"no_spawn":true,"system":"be-brief","stream":true}`}},
		{fleet, "infer hello --model m --hive a --worker-id w --device 1 --max-tokens 5 --temperature 0 --top-p 0.9 --top-k 40 --no-stream", []string{
			`{"operation":"infer","hive_id":"a","model":"m","prompt":"hello","max_tokens":5,"temperature":0,"top_p":0.9,"top_k":40,"device":"1","worker_id":"w","stream":false}`}},
	} {
		c.fleet.got, c.fleet.closed = nil, 0
		r := c.fleet.command(t, nil, strings.Fields(c.line)...)
		if r.code != 0 && !strings.Contains(c.line, "-worker") { // an empty report of a worker is a failure
			t.Errorf("%s: exit code %d, want 0; stderr: %s", c.line, r.code, r.errOut)
		}
		slices.Sort(c.fleet.got[max(0, len(c.fleet.got)-len(twoHives)):]) // these run in parallel
		slices.Sort(c.want[max(0, len(c.want)-len(twoHives)):])
		if !slices.Equal(c.fleet.got, c.want) {
			t.Errorf("%s runs\n     %s\nwant %s", c.line, strings.Join(c.fleet.got, "\n     "), strings.Join(c.want, "\n     "))
		}
		if c.fleet.closed != 1 {
			t.Errorf("%s closed the runner %d times, want once", c.line, c.fleet.closed)
		}
		if strings.Contains(r.out+r.errOut, "hf_secret") {
			t.Errorf("%s prints the token, want a hidden token: %s%s", c.line, r.out, r.errOut)
		}
	}
}

func TestRuntimeUsageErrors(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"spawn-worker --worker echo --model m":                        "missing flag: --hive ALIAS; the config has gpu-1, gpu-2\n   hint: add --hive gpu-1",
		"spawn-worker --worker echo":                                  "--model",
		"spawn-worker --hive a --worker echo --model m m2":            `unexpected argument "m2"`,
		"spawn-worker --hive a --worker echo --model m m2 -- -x":      "unexpected argument",
		"spawn-worker --hive a --worker echo --model m --env NOT_SET": "--env NOT_SET: the variable is not set",
		"spawn-worker --hive a --worker echo --model m --env =x":      `"env"`,
		"spawn-worker --hive a --worker echo --model m --device gpu":  `"gpu"`,
		"spawn-worker --hive a --worker echo --model m --port 70000":  "70000",
		"get-worker 0":                                 "invalid PID 0",
		"get-worker":                                   "missing argument: ID",
		"stop-worker x --hive a --grace=-1s":           "grace_seconds",
		"worker-logs x --hive a --lines=-3":            "invalid --lines -3",
		"worker-logs x --hive a -f --json":             "--follow and --json",
		"download-model o/r":                           "the config has gpu-1, gpu-2",
		"download-model o/r --hive a --all-hives":      "--all-hives and --hive",
		"delete-model o/r --hive a":                    "use --yes",
		"infer --model m":                              "the prompt is empty",
		"infer - --model m":                            "the prompt is empty",
		"infer hi":                                     "--model",
		"infer hi --model m --temperature 3":           "temperature",
		"infer hi --model m --top-p 0":                 "top_p",
		"infer hi --model m --max-tokens 0 --hive a":   "max_tokens",
		"hive-capabilities a b":                        `unexpected argument "b"`,
		"spawn-worker --hive a --worker echo --modl m": `did you mean "--model"`,
	} {
		r := (&fleetRunner{hives: twoHives}).command(t, nil, strings.Fields(line)...)
		if r.code != exitUsage || !strings.Contains(r.out+r.errOut, want) {
			t.Errorf("%s exits with %d and prints %s%s, want exit code 64 and %q", line, r.code, r.out, r.errOut, want)
		}
	}
	r := (&fleetRunner{}).command(t, nil, "spawn-worker", "--worker", "echo", "--model", "m")
	if r.code != exitFailed || !strings.Contains(r.errOut, "the config has no hives") {
		t.Errorf("spawn-worker without hives exits with %d and prints %s, want exit code 1", r.code, r.errOut)
	}
}

func TestFindWorker(t *testing.T) {
	t.Parallel()
	down := &operations.Error{Code: operations.CodeUnreachable, Reason: "daemon", Hive: "gpu-3", Message: "daemon stopped"}
	both := []operations.WorkerProcess{readyWorker("gpu-1", "echo-1a2b", 70), readyWorker("gpu-2", "echo-3c4d", 70)}
	for _, c := range []struct {
		line    string
		workers []operations.WorkerProcess
		errs    []*operations.Error
		code    int
		want    string
	}{
		{"get-worker echo", both, nil, 1, `2 workers match "echo": echo-1a2b on gpu-1, echo-3c4d on gpu-2` + "\n   hint: pass more of the ID, or the hive with --hive"},
		{"stop-worker 70", both, nil, 1, `2 workers match "70": echo-1a2b on gpu-1, echo-3c4d on gpu-2`},
		{"worker-logs vllm", both, nil, 1, `no worker "vllm" on any hive (found echo-1a2b on gpu-1, echo-3c4d on gpu-2)` + "\n   hint: run `rbee list-workers --all`"},
		{"get-worker vllm", nil, nil, 1, `no worker "vllm" on any hive (found none)`},
		{"get-worker vllm", both, []*operations.Error{down}, 4, "no response from gpu-3 (daemon stopped)"},
		{"stop-worker echo-3", both, []*operations.Error{down}, 4, `"echo-3" matches echo-3c4d on gpu-2, but some hives did not respond: gpu-3 (daemon stopped)` + "\n   hint: add --hive gpu-2"},
		{"get-worker echo-3c4d", both, []*operations.Error{down}, 0, ""},
	} {
		f := &fleetRunner{hives: twoHives, workers: c.workers, errs: c.errs}
		r := f.command(t, nil, strings.Fields(c.line)...)
		if r.code != c.code || !strings.Contains(r.errOut, c.want) {
			t.Errorf("%s exits with %d and prints %q to stderr, want exit code %d and %q", c.line, r.code, r.errOut, c.code, c.want)
		}
	}
	models := []operations.Model{{ID: "o/r", Hive: "gpu-1"}, {ID: "o/r", Hive: "gpu-2"}}
	r := (&fleetRunner{hives: twoHives, models: models}).command(t, nil, "get-model", "o/r")
	if want := `2 models match "o/r": o/r on gpu-1, o/r on gpu-2`; r.code != 1 || !strings.Contains(r.errOut, want) {
		t.Errorf("get-model o/r exits with %d and prints %q to stderr, want exit code 1 and %q", r.code, r.errOut, want)
	}
}

func TestSpawnPrintsResult(t *testing.T) {
	t.Parallel()
	w := operations.WorkerProcess{ID: "echo-1a2b", Hive: "gpu-1", Worker: "echo", Model: "m", State: operations.WorkerReady, PID: 123, Port: 43123}
	f := &fleetRunner{respond: func(_ context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
		if _, ok := op.(operations.WorkerSpawn); !ok {
			return nil, nil
		}
		loading := w
		loading.State = operations.WorkerLoading
		events(operations.Event{Type: operations.EventWorker, Hive: "gpu-1", Worker: &loading})
		return &operations.WorkerSpawnReport{Worker: w, Reason: "8 GiB of 80 GiB", DurationSeconds: 0.1}, nil
	}}
	line := []string{"spawn-worker", "--hive", "gpu-1", "--worker", "echo", "--model", "m"}
	r := f.command(t, nil, line...)
	if r.code != 0 || r.out != "✅ Spawned echo-1a2b on gpu-1: echo serves m on port 43123 (PID 123, CPU, ready after 0.1s)\n" || r.errOut != "gpu-1: echo-1a2b: loading\n" {
		t.Errorf("spawn-worker exits with %d and prints %q to stdout and %q to stderr, want exit code 0 and the worker", r.code, r.out, r.errOut)
	}
	if r = f.command(t, nil, append(line, "--verbose")...); !strings.Contains(r.out, "8 GiB of 80 GiB") {
		t.Errorf("spawn-worker --verbose prints %q, want the reason", r.out)
	}
	w.State, w.Problem, w.LogTail = operations.WorkerFailed, "exit status 3", []string{"out of memory"}
	if r = f.command(t, nil, line...); r.code != 1 || !strings.Contains(r.out, "❌ gpu-1: echo-1a2b failed: exit status 3\n") || !strings.Contains(r.out, "     out of memory\n") {
		t.Errorf("spawn-worker of a failing worker exits with %d and prints %q, want exit code 1 and the log", r.code, r.out)
	}
	canceled := &fleetRunner{respond: func(context.Context, operations.Operation, operations.Handler) (operations.Report, error) {
		return nil, &operations.Error{Code: operations.CodeCanceled, Hive: "gpu-1", Message: "echo-1a2b was stopped before it was ready"}
	}}
	if r = canceled.command(t, nil, line...); r.code != exitInterrupted || !strings.Contains(r.errOut, "stopped before it was ready\n   hint: use --detach") {
		t.Errorf("canceled spawn-worker exits with %d and prints %q to stderr, want exit code 130 and a hint", r.code, r.errOut)
	}
	if r = f.command(t, nil, append(line, "--json")...); r.code != 1 || !json.Valid([]byte(r.out)) || !strings.Contains(r.out, `"state": "failed"`) {
		t.Errorf("spawn-worker --json exits with %d and prints %q, want exit code 1 and the report", r.code, r.out)
	}
}

func TestDownloadToSeveralHives(t *testing.T) {
	t.Parallel()
	f := &fleetRunner{hives: []string{"gpu-2", "gpu-1"}, respond: func(_ context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
		d, ok := op.(operations.ModelDownload)
		switch {
		case !ok:
			return nil, nil
		case d.HiveID == "gpu-2":
			return nil, &operations.Error{Code: operations.CodeUnreachable, Reason: "daemon", Hive: "gpu-2", Message: "daemon stopped"}
		}
		events(operations.Event{Type: operations.EventNote, Message: "without hive"})
		return &operations.ModelDownloadReport{Model: operations.Model{ID: "o/r", Hive: "gpu-1"}, DownloadedBytes: 2e9, DurationSeconds: 2}, nil
	}}
	r := f.command(t, nil, "download-model", "o/r", "--all-hives")
	want := "✅ Downloaded o/r to gpu-1: 1.9 GiB in 2.0s (953.7 MiB/s)\n❌ gpu-2: daemon stopped\n   hint: run `rbee start-hive gpu-2` to start it\n"
	if r.code != exitUnreachable || r.out != want || !strings.Contains(r.errOut, "gpu-1: without hive\n") {
		t.Errorf("download-model exits with %d and prints %q to stdout and %q to stderr, want exit code 4 and %q", r.code, r.out, r.errOut, want)
	}
	r = f.command(t, nil, "download-model", "o/r", "--hive", "gpu-1", "--hive", "gpu-2", "--json", "-q")
	var doc struct {
		Hives []struct {
			Alias  string
			Report *operations.ModelDownloadReport
			Error  *operations.Error
		}
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || len(doc.Hives) != 2 || doc.Hives[0].Report.DownloadedBytes != 2e9 || doc.Hives[1].Error.Reason != "daemon" || r.errOut != "" {
		t.Errorf("download-model --json prints %q to stdout (%v) and %q to stderr, want both results as JSON", r.out, err, r.errOut)
	}
}

// respondLogs responds with the pieces of a log and another event.
func respondLogs(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	logs, ok := op.(operations.WorkerProcessLogs)
	if !ok {
		return nil, nil
	}
	events(operations.Event{Type: operations.EventPhase, Hive: "a", Phase: operations.PhaseConnecting})
	for _, text := range []string{"one\ntw", "o\n\x1b[31mred", "\n"} {
		events(operations.Event{Type: operations.EventLog, Hive: "a", Text: text})
	}
	if logs.ID == "endless" {
		<-ctx.Done()
		return nil, &operations.Error{Code: operations.CodeCanceled, Message: "canceled"}
	}
	return &operations.WorkerLogsReport{ID: "echo-1", Path: "/l", State: operations.WorkerStopped}, nil
}

func TestWorkerLogsOutput(t *testing.T) {
	t.Parallel()
	f := &fleetRunner{respond: respondLogs}
	const text = "one\ntwo\n\x1b[31mred\n"
	for line, errOut := range map[string]string{
		"worker-logs e --hive a": "", "worker-logs e --hive a -f": "echo-1 is stopped\n", "worker-logs e --hive a -f -q": "",
	} {
		if r := f.command(t, nil, strings.Fields(line)...); r.code != 0 || r.out != text || r.errOut != errOut {
			t.Errorf("%s exits with %d and prints %q to stdout and %q to stderr, want %q and %q", line, r.code, r.out, r.errOut, text, errOut)
		}
	}
	r := f.command(t, nil, "worker-logs", "e", "--hive", "a", "--json")
	var doc struct {
		Lines []string
		ID    string
		State string
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil || !slices.Equal(doc.Lines, []string{"one", "two", "\x1b[31mred"}) || doc.ID != "echo-1" || doc.State != "stopped" {
		t.Errorf("worker-logs --json prints %q (%v), want the lines and the state", r.out, err)
	}
}

func TestInterruptedStreamPrintsNoError(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	f := &fleetRunner{respond: respondLogs}
	read, write := io.Pipe()
	go func() {
		_, _ = io.ReadFull(read, make([]byte, len("one\ntwo\n\x1b[31mred\n")))
		cancel()
		_, _ = io.Copy(io.Discard, read)
	}()
	var errOut strings.Builder
	code := Run(ctx, Process{
		Args: strings.Fields("worker-logs endless --hive a -f"), Stdin: strings.NewReader(""), Stdout: write, Stderr: &errOut,
		Env: []string{"HOME=/home/me"}, Open: func(controller.Options) (Runner, error) { return f, nil },
	})
	if code != exitInterrupted || errOut.String() != "" {
		t.Errorf("interrupted worker-logs exits with %d and prints %q to stderr, want exit code 130 and nothing", code, errOut.String())
	}
}

// respondInfer responds to an infer operation, as a stream if requested.
func respondInfer(_ context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	infer, ok := op.(operations.Infer)
	if !ok {
		return nil, nil
	}
	events(operations.Event{Type: operations.EventNote, Message: "waiting for echo-1"})
	r := &operations.InferReport{Text: infer.Prompt + "\x1b[2J!", Model: "m", Hive: "a", WorkerID: "echo-1", FinishReason: "stop", CompletionTokens: 3, FirstTokenSeconds: 0.5, DurationSeconds: 1.5}
	if infer.Stream {
		events(operations.Event{Type: operations.EventToken, Text: infer.Prompt})
		events(operations.Event{Type: operations.EventToken, Text: "\x1b[2J"})
		events(operations.Event{Type: operations.EventNote, Message: "note in the stream"})
		if infer.Prompt == "break" {
			return nil, errors.New("worker exited")
		}
		events(operations.Event{Type: operations.EventToken, Text: "!"})
	}
	if infer.MaxTokens == 3 {
		r.FinishReason = "length"
	}
	return r, nil
}

func TestInfer(t *testing.T) {
	t.Parallel()
	const note, stats = "waiting for echo-1\n", "3 tokens, first after 500ms, 2.0 tokens/s, 1.5s total, echo-1 on a\n"
	for _, c := range []struct {
		line, stdin string
		code        int
		out, errOut string
	}{
		{"infer hello --model m", "not read", 0, "hello\x1b[2J!\n", note},
		{"infer hello --model m --quiet", "", 0, "hello\x1b[2J!\n", ""},
		{"infer hello --model m --no-stream", "", 0, "hello\x1b[2J!\n", note},
		{"infer hello --model m --verbose", "", 0, "hello\x1b[2J!\n", note + "note in the stream\n" + stats},
		{"infer --model m", "from\nstdin\r\n\n", 0, "from\nstdin\x1b[2J!\n", note},
		{"infer - --model m", " x ", 0, " x \x1b[2J!\n", note},
		{"infer hello --model m --max-tokens 3", "", 0, "hello\x1b[2J!\n", note + "⚠️  answer cut at 3 tokens\n   hint: use --max-tokens to allow more\n"},
		{"infer break --model m", "", 1, "break\x1b[2J\n", note + "❌ worker exited\n"},
	} {
		r := (&fleetRunner{respond: respondInfer}).command(t, stdin(c.stdin), strings.Fields(c.line)...)
		if r.code != c.code || r.out != c.out || r.errOut != c.errOut {
			t.Errorf("%s: exit code %d, want %d\nstdout %q\n  want %q\nstderr %q\n  want %q", c.line, r.code, c.code, r.out, c.out, r.errOut, c.errOut)
		}
	}
	r := (&fleetRunner{respond: respondInfer}).command(t, nil, "infer", "hello", "--model", "m", "--json", "-v")
	var report operations.InferReport
	if err := json.Unmarshal([]byte(r.out), &report); err != nil || report.Text != "hello\x1b[2J!" || r.errOut != "waiting for echo-1\n" {
		t.Errorf("infer --json prints %q to stdout (%v) and %q to stderr, want the report and a note", r.out, err, r.errOut)
	}
}

// onTTY runs a command on a terminal, types answer at the first prompt, and returns the
// output.
func (f *fleetRunner) onTTY(t *testing.T, answer string, args ...string) result {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Skipf("cannot open a pseudo-terminal: %v", err)
	}
	defer terminal.Close()
	if err := pty.Setsize(tty, &pty.Winsize{Rows: 24, Cols: 100}); err != nil {
		t.Fatal(err)
	}
	screen := make(chan string)
	go func() {
		var seen strings.Builder
		buf := make([]byte, 4096)
		for {
			n, err := terminal.Read(buf)
			seen.Write(buf[:n])
			if answer != "" && strings.HasSuffix(seen.String(), "[y/N] ") {
				_, _ = terminal.WriteString(answer + "\n")
				answer = ""
			}
			if err != nil || strings.HasSuffix(seen.String(), "THE END") {
				screen <- seen.String()
				return
			}
		}
	}()
	r := f.command(t, func(p *Process) {
		p.Stdin, p.Stdout, p.Stderr = tty, tty, tty
		p.Env = append(p.Env, "TERM=xterm", "LC_ALL=C.UTF-8")
	}, args...)
	_, _ = tty.WriteString("THE END")
	select {
	case r.out = <-screen:
	case <-time.After(10 * time.Second):
		t.Fatal("the output did not end within 10s")
	}
	_ = tty.Close()
	r.out = strings.ReplaceAll(strings.TrimSuffix(r.out, "THE END"), "\r\n", "\n")
	return r
}

func TestAnswersCannotControlTerminal(t *testing.T) {
	t.Parallel()
	r := (&fleetRunner{respond: respondInfer}).onTTY(t, "", "infer", "hello", "--model", "m")
	if r.code != 0 || r.out != "waiting for echo-1\nhello[2J!\n" {
		t.Errorf("infer exits with %d and prints %q, want no escape codes", r.code, r.out)
	}
	r = (&fleetRunner{respond: respondLogs}).onTTY(t, "", "worker-logs", "x", "--hive", "a")
	if r.code != 0 || r.out != "one\ntwo\n[31mred\n" {
		t.Errorf("worker-logs exits with %d and prints %q, want no escape codes", r.code, r.out)
	}
	if r = (&fleetRunner{}).onTTY(t, "", "infer", "--model", "m"); r.code != exitUsage || !strings.Contains(r.out, "the prompt is empty") {
		t.Errorf("infer without a prompt exits with %d and prints %q, want exit code 64", r.code, r.out)
	}
}

func TestDeleteModelPrompt(t *testing.T) {
	t.Parallel()
	for answer, deleted := range map[string]bool{"y": true, "n": false} {
		f := &fleetRunner{respond: func(_ context.Context, op operations.Operation, _ operations.Handler) (operations.Report, error) {
			if _, ok := op.(operations.ModelGet); ok {
				return &operations.ModelGetReport{Model: operations.Model{ID: "o/r", Hive: "a", Bytes: 4e9, Complete: true}}, nil
			}
			return nil, nil
		}}
		r := f.onTTY(t, answer, "delete-model", "o/r", "--hive", "a")
		last := f.got[len(f.got)-1]
		if strings.Contains(last, "model_delete") != deleted || !strings.Contains(r.out, "3.7 GiB") || (r.code == 0) != deleted {
			t.Errorf("delete-model with answer %q: exit code %d, last operation %s, want deletion %t; screen:\n%s", answer, r.code, last, deleted, r.out)
		}
		if !deleted && !strings.Contains(r.out, "nothing was deleted") {
			t.Errorf("delete-model with answer %q prints\n%s\nwant that nothing was deleted", answer, r.out)
		}
	}
}

func TestRuntimeCompletion(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"spawn-worker --device ":          "auto\nnone\n",
		"infer --device ":                 "",
		"spawn-worker --hive gpu-":        "gpu-1\ngpu-2\n",
		"download-model x --hive gpu-2":   "gpu-2\n",
		"hive-capabilities gpu-1":         "gpu-1\n",
		"spawn-worker --worker ech":       "echo\n",
		"get-worker e":                    "",
		"spawn-worker --model m -- --dev": "",
		"spawn-worker --det":              "--detach\tDo not wait until the worker is ready\n",
		"worker-l":                        "worker-logs\tPrint the log of a worker\n",
	} {
		f := &fleetRunner{hives: twoHives}
		if r := f.command(t, nil, append([]string{"__complete", "--"}, strings.Split(line, " ")...)...); r.out != want {
			t.Errorf("completion of %q = %q, want %q", line, r.out, want)
		}
		for _, op := range f.got {
			if op != `{"operation":"hive_list"}` {
				t.Errorf("completion of %q runs operation %s, want only hive_list", line, op)
			}
		}
	}
}
