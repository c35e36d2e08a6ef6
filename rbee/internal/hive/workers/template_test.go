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

// prepared are options whose engine has a directory of its own, with a link to the
// model, and is asked something before it is ready.
func prepared(t *testing.T, body string) (Options, string) {
	t.Helper()
	o := options(t.TempDir())
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

// TestPrepare holds that an engine finds its model where it looks for it, and is
// only ready once what its recipe wants has been asked.
func TestPrepare(t *testing.T) {
	t.Parallel()
	o, model := prepared(t, `{"model": "{model}", "file": "{model_file}"}`)
	m := manager(t, o)
	r, err := m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: `a "quoted" name`}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if r.Worker.Serves != "m-ab12" || r.Worker.ModelFile != "tiny.gguf" {
		t.Errorf("%+v", r.Worker)
	}
	state := m.stateDir(r.Worker.ID)
	for _, link := range []string{"models/tiny.gguf", "blobs/sha256-ab12"} {
		if to, err := os.Readlink(filepath.Join(state, link)); err != nil || to != model {
			t.Errorf("%s leads to %q, %v", link, to, err)
		}
	}
	args, env := get(t, r.Worker.Port, "/args"), get(t, r.Worker.Port, "/environ")
	if !strings.Contains(args, `"/payload/main.py","--dir=`+state+`","--slots=1"]`) || strings.Contains(env, `"CTX=`) || !strings.Contains(env, `"STATE=`+state) {
		t.Errorf("started with %s\n%s", args, env)
	}
	if get(t, r.Worker.Port, "/prepared") != "true" {
		t.Error("ready, and not prepared")
	}
	if tail := strings.Join(m.logTail(r.Worker.ID, 20), "\n"); !strings.Contains(tail, `prepared with {"model": "a \"quoted\" name", "file": "tiny.gguf"}`) {
		t.Errorf("%s", tail)
	}
	if _, err := m.Stop(t.Context(), operations.WorkerRef{ID: r.Worker.ID}, StopOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("its directory stays: %v", err)
	}
	if data, err := os.ReadFile(model); err != nil || string(data) != "weights" {
		t.Errorf("the model: %q, %v", data, err)
	}
	r, err = m.Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x", ContextLength: 4096, Parallel: 3}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if args := get(t, r.Worker.Port, "/args"); !strings.Contains(args, `"--ctx=4096","--slots=3","--seats=3"]`) {
		t.Errorf("started with %s", args)
	}
}

// TestPrepareRefused holds that an engine that cannot be prepared is no ready one.
func TestPrepareRefused(t *testing.T) {
	t.Parallel()
	o, _ := prepared(t, `{"model": "refuse"}`)
	r, err := manager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "x"}, nil)
	if err != nil || r.Worker.State != operations.WorkerFailed || r.Worker.Problem != "preparing it: /prepare answers 404 Not Found: no such model" {
		t.Errorf("%+v, %v", r, err)
	}
	o, _ = prepared(t, "{}")
	o.Model = func(context.Context, string, int) (engine.Model, error) {
		return engine.Model{Path: "/models/many"}, nil
	}
	_, err = manager(t, o).Spawn(t.Context(), operations.WorkerSpawn{Worker: "fake", Model: "org/repo"}, nil)
	if err == nil || !strings.Contains(err.Error(), "fake wants one file of a model, and org/repo is several") {
		t.Errorf("%v", err)
	}
}
