package queen

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

// TestLinkStates holds what a hive is called, by how long it has been silent.
func TestLinkStates(t *testing.T) {
	t.Parallel()
	now := time.Now()
	away := &operations.Error{Code: operations.CodeUnreachable, Message: "no route"}
	for _, c := range []struct {
		name string
		link *link
		want operations.Link
		say  string
	}{
		{"not tried", &link{}, operations.LinkConnecting, ""},
		{"never reached", &link{failed: true, problem: away}, operations.LinkOffline, "no route"},
		{"just heard", &link{door: &door{}, seen: now}, operations.LinkOnline, ""},
		{"heard", &link{door: &door{}, seen: now.Add(-14 * time.Second)}, operations.LinkOnline, ""},
		{"silent", &link{door: &door{}, seen: now.Add(-16 * time.Second)}, operations.LinkStale, "not heard for 16s"},
		{"silent for long", &link{door: &door{}, seen: now.Add(-46 * time.Second)}, operations.LinkOffline, ""},
		{"cut", &link{seen: now, problem: away}, operations.LinkOffline, "no route"},
	} {
		if v := c.link.view(now); v.Link != c.want || v.Problem != c.say {
			t.Errorf("%s: %s, %q", c.name, v.Link, v.Problem)
		}
	}
}

type closing struct {
	pkgmgr.Host
	closed int
}

func (c *closing) Close() error { c.closed++; return nil }

// TestHeldHost holds that a connection which is given up stays open for those who
// are using it, and no longer.
func TestHeldHost(t *testing.T) {
	t.Parallel()
	c := &closing{}
	h := &heldHost{Host: c}
	first, second := h.lend(), h.lend()
	_ = first.Close()
	_ = first.Close()
	h.drop()
	if c.closed != 0 {
		t.Error("closed under somebody's hands")
	}
	_ = second.Close()
	if c.closed != 1 {
		t.Errorf("closed %d times", c.closed)
	}
	c = &closing{}
	h = &heldHost{Host: c}
	if h.drop(); c.closed != 1 {
		t.Error("not closed, and nobody uses it")
	}
}

func testQueen(t testing.TB) *Queen {
	t.Helper()
	dir := t.TempDir()
	q, err := New(Options{Version: "1", Paths: Paths{Home: dir, ConfigDir: filepath.Join(dir, "config"), StateDir: dir, CacheDir: dir}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = q.Close() })
	return q
}

// TestConfine holds that operations from elsewhere name files of the queen's
// directory alone, however they spell them.
func TestConfine(t *testing.T) {
	t.Parallel()
	q := testQueen(t)
	dir := q.opts.Paths.ConfigDir
	outside := filepath.Join(q.opts.Paths.Home, "outside")
	for _, d := range []string{dir, outside} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":                       "",
		dir + "/a/../hives.conf": filepath.Join(dir, "hives.conf"),
		dir + "/new/":            filepath.Join(dir, "new") + "/",
		filepath.Join(dir, "x"):  filepath.Join(dir, "x"),
		"~/config/x":             filepath.Join(dir, "x"),
		"/etc/passwd":            "outside",
		dir + "/link/x":          "outside",
		dir + "/link":            "outside",
		"~/x":                    "outside",
		dir + "-too":             "outside",
		"hives.conf":             "no absolute path", // the sender's directory is not known here
		"../outside/x":           "no absolute path",
	} {
		op, err := operations.WithPaths(operations.PackageMigrate{OutputPath: path}, q.inConfigDir)
		if refused := want != "" && !filepath.IsAbs(want); refused {
			if operations.CodeOf(err) != operations.CodeBadOperation || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, %v", path, op, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", path, err)
			continue
		}
		if m, ok := op.(operations.PackageMigrate); !ok || m.OutputPath != want {
			t.Errorf("%q: %+v, want %q", path, op, want)
		}
	}
	for _, op := range []operations.Operation{
		operations.PackageStatus{Scope: operations.Scope{ConfigPath: "/etc/hives.conf"}},
		operations.PackageSync{Change: operations.Change{BundlePath: "/tmp/x"}},
		operations.HiveGet{Alias: "a", ConfigPath: "x"},
		operations.WorkerProcessList{Target: operations.Target{ConfigPath: "x"}},
	} {
		if _, err := (&remote{q}).Run(t.Context(), op, nil); operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("%+v: %v", op, err)
		}
	}
}

func TestTraffic(t *testing.T) {
	t.Parallel()
	tr := newTraffic()
	w := operations.WorkerProcess{ID: "w", Hive: "h", Model: "m"}
	end, ok := tr.begin(w)
	if !ok {
		t.Fatal("a worker that serves takes no requests")
	}
	if tr.busy(w) != 1 || tr.report(0).InFlight != 1 || tr.idle(w, time.Now()) != 0 {
		t.Error("a request that is under way is not seen")
	}
	end()
	end()
	if tr.busy(w) != 0 || tr.report(3).Waiting != 3 {
		t.Error("a request that has ended is")
	}
	if idle := tr.idle(w, time.Now().Add(-time.Hour)); idle > time.Minute {
		t.Errorf("idle for %v, after a request just now", idle)
	}
	for i, status := range []int{200, 200, 502, 404} {
		s := gateway.Sample{Path: "/v1/chat/completions", Model: "m", Worker: "w", Hive: "h", Status: status, Stream: i > 0, FirstByte: time.Duration(i+1) * time.Second, CompletionTokens: 10}
		if status == 404 {
			s.Model, s.Worker, s.Hive, s.FirstByte, s.CompletionTokens = "a stranger's \"word\"\n", "", "", 0, 0
		}
		tr.Observe(s)
	}
	tr.Observe(gateway.Sample{Path: "/v1/models", Status: 200})
	r := tr.report(0)
	p := r.Points[len(r.Points)-1]
	if p.Requests != 4 || p.Errors != 1 || p.Tokens != 30 || p.FirstToken != 2 || len(r.Models) != 1 || r.Models[0].Requests != 3 {
		t.Errorf("%+v", r)
	}
	var b strings.Builder
	tr.set.WritePrometheus(&b)
	for _, want := range []string{
		`rbee_requests_total{path="/v1/chat/completions",code="200",model="m",hive="h",worker="w"} 2`,
		`rbee_requests_total{path="/v1/chat/completions",code="404",model="",hive="",worker=""} 1`,
		`rbee_generated_tokens_total{model="m",hive="h",worker="w"} 30`,
		`rbee_time_to_first_token_seconds_count{model="m",hive="h",worker="w"} 1`,
		`rbee_request_duration_seconds_count{model="m",hive="h",worker="w"} 3`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("%s is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "stranger") {
		t.Error("a stranger's word is a label")
	}
	if got := labels("a", "x\"\\\n\xff"); got != "{a=\"x\\\"\\\\\\n\uFFFD\"}" {
		t.Errorf("%s", got)
	}
	// Time without requests is there as points of nothing, and only so many are kept.
	tr.now(time.Now().Add(time.Hour))
	if len(tr.points) != pointsKept {
		t.Errorf("%d points", len(tr.points))
	}
	for i := 1; i < len(tr.points); i++ {
		if tr.points[i].Time.Sub(tr.points[i-1].Time) != pointEvery {
			t.Fatalf("a gap at %d", i)
		}
	}
}

// TestPick holds the order of workers: fewest requests, then most room, then the
// same for the same conversation; and never one that was tried already.
func TestPick(t *testing.T) {
	t.Parallel()
	q := testQueen(t)
	q.registry = newRegistry(q, "", slog.New(slog.DiscardHandler))
	f := newGatewayFleet(q, context.Background())
	add := func(alias string, free uint64, workers ...operations.WorkerProcess) {
		l := newLink(q.registry, config.Hive{Alias: alias})
		for i := range workers {
			workers[i].Hive, workers[i].State = alias, operations.WorkerReady
			workers[i].Devices = []operations.WorkerDevice{{UUID: "g"}}
		}
		l.host, l.seen = &heldHost{Host: &closing{}}, time.Now()
		l.door = &door{client: &operations.Client{URL: "http://" + alias, HTTP: &http.Client{Transport: http.DefaultTransport}}}
		l.snapshot = &operations.HiveSnapshot{Workers: workers, Machine: operations.HiveCapabilitiesReport{Devices: []gpu.Device{{UUID: "g", MemoryFree: &free}}}}
		q.registry.links[alias] = l
	}
	add("small", 1<<30, operations.WorkerProcess{ID: "w1", Model: "m"}, operations.WorkerProcess{ID: "x", Model: "other"})
	add("large", 9<<30, operations.WorkerProcess{ID: "w2", Model: "m"}, operations.WorkerProcess{ID: "pictures", Model: "m", API: catalog.APIComfyUI})
	take := func(wish gateway.Wish) *gateway.Lease {
		t.Helper()
		wish.Model = "m"
		l, away := f.pick(wish)
		if l == nil {
			t.Fatalf("nobody; away %v", away)
		}
		return l
	}
	one := take(gateway.Wish{})
	two := take(gateway.Wish{})
	if one.Worker != "w2" || two.Worker != "w1" {
		t.Errorf("%s, then %s", one.Worker, two.Worker)
	}
	if l := take(gateway.Wish{Avoid: []string{one.Instance}}); l.Worker != "w1" {
		t.Errorf("%s, which was tried", l.Worker)
	} else {
		l.Done(nil)
	}
	if l, _ := f.pick(gateway.Wish{Model: "m", Avoid: []string{one.Instance, two.Instance}}); l != nil {
		t.Errorf("%s", l.Worker)
	}
	one.Done(errors.New("it broke"))
	two.Done(nil)
	if l := take(gateway.Wish{}); l.Worker != "w1" {
		t.Errorf("%s, which has just failed", l.Worker)
	} else {
		l.Done(nil)
	}
	f.suspects = map[string]time.Time{}
	q.registry.links["large"].seen = time.Now().Add(-20 * time.Second)
	if l := take(gateway.Wish{}); l.Worker != "w1" {
		t.Errorf("%s, whose hive has been silent", l.Worker)
	} else {
		l.Done(nil)
	}
	q.registry.links["large"].seen = time.Now()
	*q.registry.links["large"].snapshot.Machine.Devices[0].MemoryFree = 1 << 30
	seen := map[string]bool{}
	for affinity := range uint64(64) {
		l := take(gateway.Wish{Affinity: affinity})
		l.Done(nil)
		again := take(gateway.Wish{Affinity: affinity})
		again.Done(nil)
		seen[l.Worker] = true
		if again.Worker != l.Worker {
			t.Errorf("conversation %d went to %s and %s", affinity, l.Worker, again.Worker)
		}
	}
	if len(seen) != 2 {
		t.Errorf("all conversations went to %v", seen)
	}
	q.registry.links["small"].door, q.registry.links["small"].failed = nil, true
	q.registry.links["large"].door, q.registry.links["large"].failed = nil, true
	if l, away := f.pick(gateway.Wish{Model: "m"}); l != nil || len(away) != 2 {
		t.Errorf("%v, %v", l, away)
	}
}

func TestReadSnapshot(t *testing.T) {
	t.Parallel()
	s, err := readSnapshot([]byte(`data: {"version":"1","workers":[{"id":"w"}],"models":[{"id":"m"}]}`), "gpu-1")
	if err != nil || s.Workers[0].Hive != "gpu-1" || s.Models[0].Hive != "gpu-1" || s.Machine.Alias != "gpu-1" {
		t.Errorf("%+v, %v", s, err)
	}
	if s, err := readSnapshot([]byte(": still here"), "a"); s != nil || err != nil {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := readSnapshot([]byte("data: {"), "a"); err == nil {
		t.Error("half a snapshot was read")
	}
}
