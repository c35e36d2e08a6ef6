package workers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// preparedOptions returns the options of an engine with a state directory, links to the model
// and a prepare request with the given body, and the path of the model.
func preparedOptions(t *testing.T, body string) (Options, string) {
	t.Helper()
	o := testOptions(t.TempDir())
	model := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := os.WriteFile(model, []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	find := o.Engine
	o.Engine = func(ctx context.Context, typ string) (engine.Engine, error) {
		e, err := find(ctx, typ)
		e.Payload = "/payload"
		e.Launch.Args = []string{"engine", "{port}", "serve", "{payload}/main.py", "--dir={state}", "--ctx={context?}", "--slots={parallel}", "--seats={parallel?}"}
		e.Launch.Links = map[string]string{"models/{model_file}": "{model_path}", "blobs/sha256-{model_sha256}": "{model_path}"}
		e.Launch.Prepare = []wire.HTTPRequest{{Path: "/prepare", Body: body}}
		e.Launch.Serves = "m-{model_sha256}"
		e.Launch.Env = map[string]string{"CTX": "{context?}", "STATE": "{state}"}
		return e, err
	}
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		return engine.Model{Path: model, SHA256: "ab12"}, nil
	}
	return o, model
}

// TestPrepare checks the links, arguments, environment and prepare request of an engine.
func TestPrepare(t *testing.T) {
	t.Parallel()
	o, model := preparedOptions(t, `{"model": "{model}", "file": "{model_file}"}`)
	m := newManager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: `a "quoted" name`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Worker.ServedName != "m-ab12" || r.Worker.ModelFile != "tiny.gguf" {
		t.Errorf("Spawn() = %+v, want served name m-ab12 and model file tiny.gguf", r.Worker)
	}
	state := m.stateDir(r.Worker.ID)
	for _, link := range []string{"models/tiny.gguf", "blobs/sha256-ab12"} {
		if target, err := os.Readlink(filepath.Join(state, link)); err != nil || target != model {
			t.Errorf("Readlink(%q) = %q, %v, want %q", link, target, err, model)
		}
	}
	args, env := get(t, r.Worker.Port, "/args"), get(t, r.Worker.Port, "/environ")
	if !strings.Contains(args, `"/payload/main.py","--dir=`+state+`","--slots=1"]`) || strings.Contains(env, `"CTX=`) || !strings.Contains(env, `"STATE=`+state) {
		t.Errorf("arguments = %s, environment = %s, want expanded values and no CTX", args, env)
	}
	if get(t, r.Worker.Port, "/prepared") != "true" {
		t.Error("GET /prepared = false from a ready worker, want true")
	}
	if tail := strings.Join(m.logTail(r.Worker.ID, 20), "\n"); !strings.Contains(tail, `prepared with {"model": "a \"quoted\" name", "file": "tiny.gguf"}`) {
		t.Errorf("log = %s, want the expanded prepare request", tail)
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: r.Worker.ID}, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("Stat(%q) after Stop() = %v, want %v", state, err, os.ErrNotExist)
	}
	if data, err := os.ReadFile(model); err != nil || string(data) != "weights" {
		t.Errorf("model file after Stop = %q, %v, want it unchanged", data, err)
	}
	r, err = m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x", ContextLength: 4096, Parallel: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if args := get(t, r.Worker.Port, "/args"); !strings.Contains(args, `"--ctx=4096","--slots=3","--seats=3"]`) {
		t.Errorf("arguments = %s, want --ctx=4096 --slots=3 --seats=3", args)
	}
}

// TestPrepareFails checks that a worker fails if a prepare request fails.
func TestPrepareFails(t *testing.T) {
	t.Parallel()
	o, _ := preparedOptions(t, `{"model": "refuse"}`)
	r, err := newManager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil)
	if err != nil || r.Worker.State != operations.WorkerFailed || r.Worker.Problem != "cannot prepare the worker: /prepare: status 404 Not Found: no such model" {
		t.Errorf("Spawn() = %+v, %v, want a failed worker with the response to /prepare", r, err)
	}
	o, _ = preparedOptions(t, "{}")
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		return engine.Model{Path: "/models/many"}, nil
	}
	_, err = newManager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/repo"}, nil)
	if err == nil || !strings.Contains(err.Error(), "fake needs one file of a model, but org/repo has several") {
		t.Errorf("Spawn() with a model of several files = %v, want an error", err)
	}
}
