package pkgmgr_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// recipes returns a catalog of recipes and their directory. files maps file names to
// contents.
func recipes(t *testing.T, files map[string]string) (*catalog.Catalog, string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := catalog.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c, dir
}

// randomBytes returns n bytes that do not compress.
func randomBytes(n int) []byte {
	r := rand.NewChaCha8([32]byte{})
	b := make([]byte, n)
	_, _ = r.Read(b)
	return b
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func TestPushSendsCompleteFiles(t *testing.T) {
	t.Parallel()
	plain, archive := randomBytes(300<<10), randomBytes(200<<10)
	catalog, _ := recipes(t, map[string]string{
		"plain.yaml":    "type: plain\nsources:\n  - version: \"1.2\"\n    file: server\n",
		"packed.yaml":   "type: packed\nsources:\n  - version: \"3\"\n    file: packed.tar.gz\n    entry: bin/server\n",
		"server":        string(plain),
		"packed.tar.gz": string(archive),
	})
	c, machines := echoFleet(8)
	for i := range c.Hives {
		c.Hives[i] = echoHive(c.Hives[i].Alias, "plain", "packed")
	}
	cache := t.TempDir()
	var progress atomic.Int64
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) {
		o.Catalog, o.CacheDir, o.Uploads = catalog, cache, 2
		o.Events = func(e operations.Event) {
			if e.Type == operations.EventProgress && e.Step.Worker == "packed" && e.Bytes == e.Total {
				progress.Add(1)
			}
		}
	})
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	if r.Status != operations.StatusSuccess || r.Summary.WorkersInstalled != 24 {
		t.Fatalf("sync: status %s, summary %+v, first error %v; want success with 24 workers installed", r.Status, r.Summary, r.Hives[0].Error)
	}
	for alias, m := range machines {
		if !bytes.Equal(m.Artifact("plain"), plain) || !bytes.Equal(m.Artifact("packed"), archive) {
			t.Errorf("%s: the artifacts have %d and %d bytes, want the bytes of the files (%d and %d)", alias, len(m.Artifact("plain")), len(m.Artifact("packed")), len(plain), len(archive))
		}
		for _, w := range m.State().Workers {
			if want := map[string]string{"echo": "1.0.0", "plain": "1.2", "packed": "3"}[w.Type]; w.Version != want {
				t.Errorf("%s: worker %+v, want version %q", alias, w, want)
			}
		}
	}
	if progress.Load() != 8 {
		t.Errorf("%d hives reported that all bytes were sent, want 8", progress.Load())
	}
	// A plain file is compressed once for all hives; an archive is sent unchanged.
	cached, err := os.ReadDir(filepath.Join(cache, "artefacts"))
	if err != nil || len(cached) != 1 || cached[0].Name() != hexSum(plain)+".gz" {
		t.Errorf("the cache contains %v, %v, want only the compressed plain file", cached, err)
	}
}

func TestPushDownloads(t *testing.T) {
	t.Parallel()
	body := randomBytes(50 << 10)
	var requests atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/good":
			requests.Add(1)
			_, _ = w.Write(body)
		case "/changed":
			_, _ = w.Write(body[1:])
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(server.Close)
	recipe := func(name, path, sum string) string {
		return fmt.Sprintf("type: %s\nsources:\n  - version: \"1\"\n    url: %s/%s\n    sha256: %s\n", name, server.URL, path, sum)
	}
	catalog, _ := recipes(t, map[string]string{
		"a.yaml": recipe("good", "good", hexSum(body)),
		"b.yaml": recipe("changed", "changed", hexSum(body[2:])),
		"c.yaml": recipe("lost", "lost", hexSum(body[3:])),
		"d.yaml": recipe("again", "good?again", hexSum(body)), // the same content, which is fetched once
	})
	c, machines := echoFleet(4)
	for i := range c.Hives {
		c.Hives[i] = echoHive(c.Hives[i].Alias, "good", "changed", "lost", "again")
	}
	failed := map[string]string{}
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) {
		o.Catalog, o.Push = catalog, true
		o.Events = func(e operations.Event) {
			if e.StepStatus == operations.StepFailed {
				failed[e.Step.Worker] = e.Error.Message
			}
		}
	})
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	want := map[string]string{"changed": "its SHA-256 is " + hexSum(body[1:]), "lost": "404"}
	for _, h := range r.Hives {
		if h.Status != operations.HiveFailed || len(h.FailedSteps) != 2 || len(h.Steps) != 5 {
			t.Errorf("sync: report %+v, want 5 steps and 2 failed steps", h)
		}
		for _, s := range h.FailedSteps {
			if !strings.Contains(s.Error.Message, want[s.Step.Worker]) {
				t.Errorf("%s: error %q, want %q in it", s.Step.Worker, s.Error.Message, want[s.Step.Worker])
			}
		}
	}
	for worker, message := range want {
		if !strings.Contains(failed[worker], message) {
			t.Errorf("%s: the event has error %q, want %q in it", worker, failed[worker], message)
		}
	}
	for alias, m := range machines {
		if !bytes.Equal(m.Artifact("good"), body) || !bytes.Equal(m.Artifact("again"), body) || m.Artifact("changed") != nil {
			t.Errorf("%s: artifacts good, again and changed have %d, %d and %d bytes, want the content of the server for good and again, and none for changed", alias, len(m.Artifact("good")), len(m.Artifact("again")), len(m.Artifact("changed")))
		}
	}
	if n := requests.Load(); n < 1 || n > 2 {
		t.Errorf("the file was fetched %d times, want 1 or 2", n)
	}
}

// TestFailedURLDoesNotAffectOthers checks that an artifact is fetched even if the download of
// another URL with the same content fails.
func TestFailedURLDoesNotAffectOthers(t *testing.T) {
	t.Parallel()
	body := randomBytes(100)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/second" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(body)
	}))
	t.Cleanup(server.Close)
	text := "type: %s\nsources:\n  - version: \"1\"\n    url: " + server.URL + "/%[1]s\n    sha256: " + hexSum(body) + "\n"
	catalog, _ := recipes(t, map[string]string{"a.yaml": fmt.Sprintf(text, "first"), "b.yaml": fmt.Sprintf(text, "second")})
	c, machines := echoFleet(1)
	c.Hives[0] = echoHive("gpu-00", "first", "second")
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog, o.Push = catalog, true })
	r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{})
	m := machines["gpu-00"]
	if failed := r.Hives[0].FailedSteps; len(failed) != 1 || failed[0].Step.Worker != "first" || !bytes.Equal(m.Artifact("second"), body) {
		t.Errorf("sync: report %+v, want only first to fail, and second installed", r.Hives[0])
	}
}

func TestHiveDownloadsURL(t *testing.T) {
	t.Parallel()
	catalog, _ := recipes(t, map[string]string{
		"a.yaml": "type: far\nsources:\n  - version: \"1\"\n    url: https://far.example/{os}/{arch}\n    sha256: " + hexSum(nil) + "\n",
	})
	c, machines := echoFleet(1)
	c.Hives[0] = echoHive("gpu-00", "far")
	var got wire.InstallStep
	machines["gpu-00"].OnStep = func(s wire.Step) error {
		if s.Worker != nil && s.Worker.Type == "far" {
			got = s.Worker.Steps[0]
		}
		return nil
	}
	syncFleet(t.Context(), openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = catalog }), plan.Options{}, pkgmgr.ApplyOptions{})
	if a := got.Artifact; got.Kind != wire.StepFile || a.URL != "https://far.example/linux/amd64" || a.SHA256 != hexSum(nil) {
		t.Errorf("the hive got step %+v, want the URL https://far.example/linux/amd64", got)
	}
}

// TestApplyCanceled cancels a run between two steps of one hive, before the steps of another
// hive start.
func TestApplyCanceled(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	ctx, cancel := context.WithCancel(t.Context())
	machines["gpu-00"].OnStep = func(s wire.Step) error {
		if s.Action == wire.ActionInstallWorker {
			cancel()
		}
		return nil
	}
	f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Parallel = 1 })
	r := syncFleet(ctx, f, plan.Options{}, pkgmgr.ApplyOptions{})
	if got := results(r.Hives); got != "gpu-00=canceled gpu-01=canceled" {
		t.Fatalf("sync: %s, want both hives canceled: %+v", got, r.Hives)
	}
	for _, h := range r.Hives {
		if h.Error == nil || h.Error.Code != operations.CodeCanceled || !errors.Is(h.Error, context.Canceled) {
			t.Errorf("%s: error %+v, want code %s", h.Alias, h.Error, operations.CodeCanceled)
		}
	}
	if len(r.Hives[0].Steps) == 0 || r.Hives[0].Steps[0].Action != operations.ActionInstallHive {
		t.Errorf("sync: report %+v, want the completed step install_hive", r.Hives[0])
	}
	if machines["gpu-00"].State().Daemon.Running || machines["gpu-01"].State().Rbee != nil {
		t.Error("steps ran after the context was canceled, want none")
	}
}

func TestApplyWithCanceledContext(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(3)
	f := openFleet(t, c, machines, nil)
	f.Read(t.Context(), pkgmgr.ReadOptions{})
	changes := f.Plan(t.Context(), plan.Options{Fetch: true})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := results(f.Apply(ctx, changes, pkgmgr.ApplyOptions{})); got != "gpu-00=canceled gpu-01=canceled gpu-02=canceled" {
		t.Errorf("Apply() = %s, want all hives canceled", got)
	}
	f.Read(ctx, pkgmgr.ReadOptions{})
	for _, s := range f.States() {
		if s.State != nil || s.Err == nil || s.Err.Code != operations.CodeCanceled {
			t.Errorf("%s: Read() with a canceled context: state %+v, error %v, want code %s", s.Hive.Alias, s.State, s.Err, operations.CodeCanceled)
		}
	}
	if plan := f.Plan(t.Context(), plan.Options{Fetch: true}); len(plan.Steps) != 0 {
		t.Errorf("Plan() of hives that were not read has steps %+v, want none", plan.Steps)
	}
}

func TestApplyLockedHive(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	m := machines["gpu-00"]
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	m.LockHolder = "ann@desk, pid 7"
	c.Hives[0].Labels = []string{"new"} // only the settings change, which are part of the request
	for _, tt := range []struct {
		wait    time.Duration
		waiting int
	}{{0, 1}, {time.Minute, 1}, {-1, 0}} {
		waiting := 0
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) {
			o.Events = func(e operations.Event) {
				if e.Phase == operations.PhaseWaiting && strings.Contains(e.Message, "locked by ann@desk, pid 7 since") {
					waiting++
				}
			}
		})
		r := syncFleet(t.Context(), f, plan.Options{}, pkgmgr.ApplyOptions{LockWait: tt.wait})
		h := r.Hives[0]
		if h.Status != operations.HiveLocked || h.Error.Code != operations.CodeLocked || !strings.Contains(h.Error.Message, "ann@desk, pid 7") {
			t.Errorf("LockWait %s: report %+v, want it locked by ann@desk, pid 7", tt.wait, h)
		}
		if len(h.Steps) != 0 || len(h.FailedSteps) != 0 || waiting != tt.waiting || r.Outcome() != operations.OutcomeLocked {
			t.Errorf("LockWait %s: report %+v, %d waiting events, outcome %s; want no steps, %d events, %s", tt.wait, h, waiting, r.Outcome(), tt.waiting, operations.OutcomeLocked)
		}
	}
	if len(m.State().Settings.Labels) != 0 {
		t.Error("the settings of the locked hive changed, want them unchanged")
	}
}

// TestConcurrentRunsWaitForLock checks that a second run waits for the lock of the first.
// The first run continues once the second one waits.
func TestConcurrentRunsWaitForLock(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	working, waiting := make(chan struct{}), make(chan struct{})
	var workingOnce, waitingOnce sync.Once
	machines["gpu-00"].OnStep = func(wire.Step) error {
		workingOnce.Do(func() {
			close(working)
			select {
			case <-waiting:
			case <-t.Context().Done():
			}
		})
		return nil
	}
	first := make(chan *operations.SyncReport, 1)
	f1, f2 := openFleet(t, c, machines, nil), openFleet(t, c, machines, func(o *pkgmgr.Options) {
		o.Events = func(e operations.Event) {
			if e.Phase == operations.PhaseWaiting {
				waitingOnce.Do(func() { close(waiting) })
			}
		}
	})
	f2.Read(t.Context(), pkgmgr.ReadOptions{})
	changes := f2.Plan(t.Context(), plan.Options{Fetch: true})
	go func() { first <- syncFleet(t.Context(), f1, plan.Options{}, pkgmgr.ApplyOptions{}) }()
	<-working
	second := f2.Apply(t.Context(), changes, pkgmgr.ApplyOptions{})
	if got := results(append((<-first).Hives, second...)); got != "gpu-00=installed gpu-00=installed" {
		t.Errorf("results of both runs = %s, want installed twice", got)
	}
}

// silentHost is a machine whose rbee exits without output.
type silentHost struct{ pkgmgr.Host }

func (silentHost) Run(_ context.Context, _ []string, _ io.Reader, _, stderr io.Writer) error {
	_, err := io.WriteString(stderr, "rbee: killed\n")
	return err
}

func TestApplyFailureOnMachine(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(1)
	m := machines["gpu-00"]
	syncFleet(t.Context(), openFleet(t, c, machines, nil), plan.Options{}, pkgmgr.ApplyOptions{})
	m.Corrupt("echo", "run is missing")
	apply := func(connect pkgmgr.Connect, before func(*wire.State), want string) {
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Connect = connect })
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		plan := f.Plan(t.Context(), plan.Options{Fetch: true})
		m.Edit(before)
		r := f.Apply(t.Context(), plan, pkgmgr.ApplyOptions{})[0]
		if r.Status != operations.HiveFailed || !strings.Contains(r.Error.Message, want) || len(plan.Steps) != 1 || len(r.FailedSteps) != 1 {
			t.Errorf("Apply() = %+v with error %v, want %q in it and one failed step", r, r.Error, want)
		}
	}
	apply(func(ctx context.Context, h config.Hive) (pkgmgr.Host, error) {
		host, err := machines.Connect(ctx, h)
		return silentHost{host}, err
	}, func(*wire.State) {}, "rbee: killed")
	apply(machines.Connect, func(s *wire.State) { s.Home = "/elsewhere" }, "`rbee hive apply` failed on the machine: exit status 127")
}
