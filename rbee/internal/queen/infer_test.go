package queen

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

func TestChoose(t *testing.T) {
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
	painter, graph := ready, []byte("{}")
	models := []operations.Model{{ID: "org/m:Q4", Repo: "org/m"}}
	short, long := ready, ready
	short.Model, short.ModelID, long.Model = "org/m", "org/m:Q4", "org/m:Q4"
	crashed := failed
	crashed.RestartAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	painter.ID, painter.API = "comfyui-1", catalog.APIComfyUI
	for _, c := range []struct {
		name    string
		workers []operations.WorkerProcess
		op      operations.Infer
		want    int
		why     string
	}{
		{"ready", []operations.WorkerProcess{ready, on(0, "")}, operations.Infer{Model: "m"}, 2, ""},
		{"runs workflows only", []operations.WorkerProcess{painter}, operations.Infer{Model: "m"}, 0, "comfyui-1 runs workflows only"},
		{"a workflow", []operations.WorkerProcess{ready, painter}, operations.Infer{Model: "m", Workflow: graph}, 1, ""},
		{"a workflow for any model", []operations.WorkerProcess{painter, other}, operations.Infer{Workflow: graph}, 1, ""},
		{"a workflow for another model", []operations.WorkerProcess{painter}, operations.Infer{Model: "n", Workflow: graph}, 0, "comfyui-1 serves m"},
		{"no workflows", []operations.WorkerProcess{ready}, operations.Infer{Workflow: graph}, 0, "echo-1 runs no workflows"},
		{"nobody", nil, operations.Infer{Model: "m"}, 0, "no worker runs there"},
		{"another model", []operations.WorkerProcess{other}, operations.Infer{Model: "m"}, 0, "echo-1 serves n"},
		{"loading", []operations.WorkerProcess{loading}, operations.Infer{Model: "m"}, 0, "echo-1 is loading"},
		{"failed", []operations.WorkerProcess{failed}, operations.Infer{Model: "m"}, 0, "echo-1 is failed: it exited with status 3"},
		{"crashed", []operations.WorkerProcess{crashed}, operations.Infer{Model: "m"}, 0, "echo-1 failed and is started again at 03:04:05: it exited with status 3"},
		{"asked for by the repository", []operations.WorkerProcess{short, long}, operations.Infer{Model: "org/m"}, 2, ""},
		{"by the model's id", []operations.WorkerProcess{short, long}, operations.Infer{Model: "org/m:Q4"}, 2, ""},
		{"in other letters", []operations.WorkerProcess{short, long}, operations.Infer{Model: "Org/M:q4"}, 2, ""},
		{"another quantisation", []operations.WorkerProcess{short}, operations.Infer{Model: "org/m:Q8"}, 0, "echo-1 serves org/m"},
		{"by id", []operations.WorkerProcess{ready, on(0, "")}, operations.Infer{Model: "m", WorkerID: "echo-2"}, 1, ""},
		{"by no id", []operations.WorkerProcess{ready}, operations.Infer{Model: "m", WorkerID: "x"}, 0, "no worker x runs there"},
		{"by device", []operations.WorkerProcess{ready, on(1, "GPU-a")}, operations.Infer{Model: "m", Device: "1"}, 1, ""},
		{"by vendor and device", []operations.WorkerProcess{ready, on(1, "GPU-a")}, operations.Infer{Model: "m", Device: "cuda:1"}, 1, ""},
		{"by UUID", []operations.WorkerProcess{ready, on(1, "GPU-a")}, operations.Infer{Model: "m", Device: "GPU-a"}, 1, ""},
		{"by no device", []operations.WorkerProcess{on(1, "GPU-a")}, operations.Infer{Model: "m", Device: "0"}, 0, "echo-2 is not on device 0"},
		{"on the CPU", []operations.WorkerProcess{ready, on(1, "GPU-a")}, operations.Infer{Model: "m", Device: "cpu"}, 1, ""},
	} {
		offers, why := choose(&operations.HiveSnapshot{Workers: c.workers, Models: models}, c.op)
		if len(offers) != c.want || why != c.why {
			t.Errorf("%s: %d offers, %q", c.name, len(offers), why)
		}
	}
}

func TestNoOffer(t *testing.T) {
	t.Parallel()
	down := &operations.Error{Code: operations.CodeUnreachable, Reason: "timeout", Hive: "a", Message: "no answer"}
	a, b := view{hive: config.Hive{Alias: "a"}, err: down}, view{hive: config.Hive{Alias: "b"}, err: errors.New("no worker runs there")}
	err := noOffer(operations.Infer{Model: "m"}, []view{a, b})
	if operations.CodeOf(err) != operations.CodeNotFound || err.Error() != "no ready worker serves m\n  a: no answer\n  b: no worker runs there" {
		t.Errorf("%v", err)
	}
	b.err = down
	if err := noOffer(operations.Infer{Model: "m"}, []view{a, b}); operations.CodeOf(err) != operations.CodeUnreachable {
		t.Errorf("%v", err)
	}
	if err := noOffer(operations.Infer{Model: "m"}, []view{a}); !errors.Is(err, down) {
		t.Errorf("%v", err)
	}
}

// TestPlaces holds where a model may be loaded: where it is whole, with an engine
// for its format, the config's first one, and most room first.
func TestPlaces(t *testing.T) {
	t.Parallel()
	free := uint64(8 << 30)
	model := operations.Model{ID: "org/m:Q4", Repo: "org/m", Format: "gguf", Complete: true}
	one := func(alias string, edit func(*operations.HiveSnapshot)) view {
		s := &operations.HiveSnapshot{
			Models:    []operations.Model{model},
			Installed: []operations.InstalledType{{Type: "llama-cpp", Formats: []string{"gguf"}}, {Type: "ollama", Formats: []string{"gguf"}}, {Type: "echo"}},
		}
		edit(s)
		return view{hive: config.Hive{Alias: alias, Workers: []config.Worker{{Type: "echo"}, {Type: "ollama"}, {Type: "llama-cpp"}}}, snapshot: s}
	}
	views := []view{
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
		{hive: config.Hive{Alias: "away"}},
	}
	list, why := places(views, "org/m")
	var got []string
	for _, p := range list {
		got = append(got, p.view.hive.Alias+" "+p.worker)
	}
	if want := "large ollama, reserved ollama, small ollama"; strings.Join(got, ", ") != want {
		t.Errorf("%q, want %q", got, want)
	}
	for alias, want := range map[string]string{
		"partial": "the model is not whole there", "without": "the model is not there", "other": "no engine for safetensors models is installed there",
	} {
		if why[alias] != want {
			t.Errorf("%s: %q", alias, why[alias])
		}
	}
	two := append(views[0].snapshot.Models, operations.Model{ID: "org/m:Q8", Repo: "org/m", Format: "gguf", Complete: true})
	if findModel(two, "org/m") != nil || findModel(two, "org/m:Q8") == nil {
		t.Error("of two models of a repository one was meant")
	}
}

func TestEachPiece(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, stream, want string
		cut                bool
	}{
		{"whole", "data: a\n\ndata: b\n\ndata: [DONE]\n\n", "a|b|", false},
		{"carriage returns, comments and names", ": hi\r\n\r\nevent: x\r\ndata:a\r\n\r\ndata: [DONE]\r\n", "a|", false},
		{"cut", "data: a\n\nda", "a|", true},
		{"empty", "", "", true},
	} {
		var got strings.Builder
		err := eachPiece(strings.NewReader(c.stream), func(data []byte) error { got.WriteString(string(data) + "|"); return nil })
		if got.String() != c.want || errors.Is(err, errCut) != c.cut {
			t.Errorf("%s: %q, %v", c.name, got.String(), err)
		}
	}
}

func TestComplaint(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		`{"error":{"message":"too long","code":400}}`: "too long",
		`{"error":"model not loaded"}`:                "model not loaded",
		"<html>\n  Bad Gateway </html>":               "<html> Bad Gateway </html>",
		"":                                            "",
	} {
		if got := complaint(strings.NewReader(in)); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestSpeaksNoChat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		body   string
		want   bool
	}{
		{http.StatusOK, "", false},
		{http.StatusNotFound, "", true},
		{http.StatusBadRequest, `{"error":{"message":"a chat template is not defined"}}`, true},
		{http.StatusBadRequest, `{"error":{"message":"max_tokens is too large"}}`, false},
		{http.StatusInternalServerError, "chat template", false},
	} {
		resp := &http.Response{StatusCode: c.status, Body: io.NopCloser(strings.NewReader(c.body))}
		if got := speaksNoChat(resp); got != c.want {
			t.Errorf("%d %s: %t", c.status, c.body, got)
		}
		if rest, _ := io.ReadAll(resp.Body); string(rest) != c.body {
			t.Errorf("%d: the body is lost", c.status)
		}
	}
}
