package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// otherContent returns a step as workerStep does, and its program, which differs from
// workerProgram only by a comment.
func otherContent(t *testing.T, comment string) (step wire.Step, data []byte) {
	t.Helper()
	data = append(workerProgram(t), "#"+comment...)
	step = worker("1.0", "", data)
	step.Worker.Type, step.Worker.Launch = "fake", workerStep(t).Worker.Launch
	return step, data
}

// TestInstallDuringWorkerStart checks that a worker that is starting, and waits for its model,
// keeps its build while another build of its version is installed.
func TestInstallDuringWorkerStart(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step := workerStep(t)
	step.Worker.Launch.Args = []string{"{port}", "{model_path}"}
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, workerProgram(t)); res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	waiting, proceed := make(chan struct{}), make(chan struct{})
	m := workers.New(workers.Options{
		Dir: h.Path(home.WorkerRecords), Logs: h.Path(home.WorkerLogs), Engine: h.Engine,
		Model: func(ctx context.Context, _ string, _ int) (engine.Model, error) {
			close(waiting)
			select {
			case <-proceed:
			case <-ctx.Done():
			}
			return engine.Model{Path: "/m"}, ctx.Err()
		},
	})
	if err := m.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.StopAll(context.Background(), ""); err != nil {
			t.Errorf("StopAll() = %v, want nil", err)
		}
		m.Close()
	})
	var r *operations.WorkerSpawnReport
	spawned := make(chan error, 1)
	go func() {
		var err error
		r, err = m.Spawn(context.Background(), operations.WorkerSpawn{Worker: "fake", Model: "m"}, nil)
		spawned <- err
	}()
	select {
	case <-waiting:
	case err := <-spawned:
		t.Fatalf("Spawn() = %v, want it to wait for the model", err)
	}
	other, data := otherContent(t, "other")
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{other}}, data); res.Errors[0] != "" {
		t.Errorf("install of other content = %q, want success", res.Errors)
	}
	close(proceed)
	if err := <-spawned; err != nil || r.Worker.State != operations.WorkerReady {
		t.Fatalf("Spawn() = %+v, %v, want a ready worker", r, err)
	}
	if got, err := os.ReadFile(r.Worker.Argv[0]); err != nil || !bytes.Equal(got, workerProgram(t)) {
		t.Errorf("the program of the worker contains %q (%v), want %q", got, err, workerProgram(t))
	}
}

// TestEntryPointIsLinkedLast checks that an install does not change the old build before it
// links the entry point to the new one, because a concurrent start may have read the old
// link.
func TestEntryPointIsLinkedLast(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{workerStep(t)}}, workerProgram(t)); res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	var before []byte
	var readErr error
	h.onTestPoint = func(point string) {
		if point == "renamed" {
			before, readErr = os.ReadFile(h.EntryPath("fake"))
		}
	}
	step, data := otherContent(t, "other")
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, data); res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	if readErr != nil || !bytes.Equal(before, workerProgram(t)) {
		t.Errorf("before Apply() replaces the link, the entry point contains %q (%v), want %q", before, readErr, workerProgram(t))
	}
	if after, err := os.ReadFile(h.EntryPath("fake")); err != nil || !bytes.Equal(after, data) {
		t.Errorf("after Apply(), the entry point contains %q (%v), want %q", after, err, data)
	}
}

// TestEngineUsesOneBuild checks that all fields of an engine belong to the same build while
// installs replace the build concurrently.
func TestEngineUsesOneBuild(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	content := t.TempDir()
	for _, version := range []string{"1.0", "2.0"} {
		dir := filepath.Join(content, version)
		m := installed.Manifest{Type: "w", Version: version, Entry: "run", Launch: &wire.Launch{Args: []string{version}}, Files: []installed.File{{Path: "run", Mode: installed.ModeProgram}}}
		err := errors.Join(
			os.MkdirAll(filepath.Join(dir, installed.PayloadDir), 0o700), os.WriteFile(filepath.Join(dir, installed.PayloadDir, "run"), nil, 0o700),
			os.Symlink(installed.PayloadDir+"/run", filepath.Join(dir, installed.EntryName)), atomicfile.WriteJSON(filepath.Join(dir, installed.ManifestName), m),
		)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(h.Path(wire.WorkersDir+"/w"), 0o700); err != nil {
		t.Fatal(err)
	}
	replaceBuild := func(n int) error { // creates builds as links, because that is fast
		version := []string{"1.0", "2.0"}[n%2]
		build := fmt.Sprintf("%s@%d", version, n+2)
		before, _ := os.Readlink(h.EntryPath("w"))
		err := os.Symlink(filepath.Join(content, version), h.BuildDir("w", build))
		err = errors.Join(err, h.replaceLink("w/"+build+"/"+installed.EntryName, h.EntryPath("w")))
		if before != "" {
			err = errors.Join(err, os.Remove(filepath.Dir(h.Path(wire.WorkersDir+"/"+before))))
		}
		return err
	}
	if err := replaceBuild(0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	stop := time.Now().Add(200 * time.Millisecond)
	go func() {
		var err error
		for n := 1; err == nil && time.Now().Before(stop); n++ {
			err = replaceBuild(n)
		}
		done <- err
	}()
	for time.Now().Before(stop) {
		e, err := h.Engine(t.Context(), "w")
		if err != nil || !strings.Contains(e.Entry, "/"+e.Version+"@") || e.Launch.Args[0] != e.Version || !strings.HasPrefix(e.Entry, e.Payload+"/") {
			t.Errorf("Engine() = %+v, %v, want all fields of one build", e, err)
			break
		}
	}
	if err := <-done; err != nil {
		t.Errorf("replaceBuild() = %v, want nil", err)
	}
}
