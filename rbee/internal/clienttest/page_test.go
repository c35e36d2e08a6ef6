package clienttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/rbee/internal/clienttest/browsertest"
	"github.com/rbee-keeper/rbee/rbee/internal/dashboard"
)

// fakeQueen serves the dashboard and the API that it uses, with data of the test.
type fakeQueen struct {
	*httptest.Server
	mu          sync.Mutex
	snapshot    operations.FleetSnapshot
	changed     chan struct{} // closed when the data changes
	unavailable bool          // the fleet stream fails with status 503
	key         string        // required API key; empty if none is required

	deleted  chan string // canceled jobs
	requests chan operations.WorkerProcessLogs
	lines    chan string // output of the worker
}

func newFakeQueen(t *testing.T, s operations.FleetSnapshot) *fakeQueen {
	q := &fakeQueen{snapshot: s, changed: make(chan struct{}), deleted: make(chan string, 1), requests: make(chan operations.WorkerProcessLogs, 1), lines: make(chan string, 10)}
	mux := http.NewServeMux()
	mux.Handle("/", dashboard.Handler())
	mux.HandleFunc("GET "+operations.FleetPath, q.fleet)
	mux.HandleFunc("POST /login", q.login)
	mux.HandleFunc("POST /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		var op operations.WorkerProcessLogs
		if err := json.NewDecoder(r.Body).Decode(&op); err != nil {
			t.Errorf("Decode() of the request of the page = %v, want nil", err)
		}
		q.requests <- op
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"job_id": "j1", "sse_url": "/v1/jobs/j1/stream"}`)
	})
	mux.HandleFunc("GET /v1/jobs/j1/stream", func(w http.ResponseWriter, r *http.Request) {
		for {
			select {
			case line := <-q.lines:
				data, _ := json.Marshal(operations.Event{Type: operations.EventLog, Text: line})
				_, _ = w.Write(sse.Append(nil, sse.Event{ID: 1, Data: data}))
				_ = http.NewResponseController(w).Flush()
			case <-r.Context().Done():
				return
			}
		}
	})
	mux.HandleFunc("DELETE /v1/jobs/{id}", func(_ http.ResponseWriter, r *http.Request) { q.deleted <- r.PathValue("id") })
	q.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		q.CloseClientConnections()
		q.Close()
	})
	return q
}

// update changes the data and sends it to the page.
func (s *fakeQueen) update(edit func(*fakeQueen)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(s)
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *fakeQueen) fleet(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", sse.ContentType)
	for {
		s.mu.Lock()
		data, err := json.Marshal(s.snapshot)
		changed, unavailable, key := s.changed, s.unavailable, s.key
		s.mu.Unlock()
		if cookie, _ := r.Cookie("key"); key != "" && (cookie == nil || cookie.Value != key) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		if unavailable || err != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		// Send two parts: the page must handle incomplete events.
		text := sse.Append(nil, sse.Event{Data: data})
		half := len(text) / 2
		_, _ = w.Write(text[:half])
		_ = http.NewResponseController(w).Flush()
		_, _ = w.Write(text[half:])
		_ = http.NewResponseController(w).Flush()
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *fakeQueen) login(w http.ResponseWriter, r *http.Request) {
	var body struct{ Key string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	s.mu.Lock()
	defer s.mu.Unlock()
	if body.Key != s.key {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	http.SetCookie(w, &http.Cookie{Name: "key", Value: body.Key, HttpOnly: true, SameSite: http.SameSiteStrictMode})
	w.WriteHeader(http.StatusNoContent)
}

// waitCanceled waits until the page cancels its job.
func (s *fakeQueen) waitCanceled(t *testing.T) {
	t.Helper()
	select {
	case id := <-s.deleted:
		if id != "j1" {
			t.Errorf("the page canceled job %q, want j1", id)
		}
	case <-time.After(time.Minute):
		t.Error("the page canceled no job within a minute, want j1")
	}
}

// scriptInjection is a name from a hive that runs a script if the page inserts it as HTML.
const scriptInjection = `<img src=x onerror="document.title='injected'">`

func ptr[T any](v T) *T { return &v }

// testFleet returns a fleet with every kind of data that the page shows.
func testFleet() operations.FleetSnapshot {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	const gib = 1 << 30
	points := make([]operations.TrafficPoint, 60)
	for i := range points {
		points[i] = operations.TrafficPoint{Time: now.Add(time.Duration(i-60) * 5 * time.Second), Requests: 5 * (i % 7), Errors: i % 3, FirstToken: float64(i%5) / 10}
	}
	return operations.FleetSnapshot{
		Time: now, Version: "1.0", Since: now.Add(-time.Hour), Config: "/home/me/hives.conf",
		Hives: []operations.HiveView{
			{Alias: "attic", Hostname: "10.0.0.3", Link: operations.LinkOffline, Problem: "cannot reach bee@10.0.0.3:22: no route to host", SeenAt: now.Add(-3 * time.Minute)},
			{Alias: "basement", Hostname: "10.0.0.2", Link: operations.LinkOnline, SeenAt: now, Snapshot: &operations.HiveSnapshot{
				Time: now, Version: "1.0", MachineAt: now,
				Machine: operations.HiveCapabilitiesReport{OS: "linux", Arch: "amd64", MemoryTotal: 64 * gib, MemoryAvailable: 48 * gib, DiskTotal: 900 * gib, DiskFree: 90 * gib, Devices: []gpu.Device{
					{Index: 0, Vendor: "nvidia", UUID: "GPU-0", Name: "NVIDIA GeForce RTX 4090", MemoryTotal: 24 * gib, MemoryUsed: ptr[uint64](18 * gib), Utilization: ptr(87.0), Temperature: ptr(61.0), Power: ptr(310.5)},
					{Index: 1, Vendor: "nvidia", UUID: "GPU-1", Name: "NVIDIA GeForce RTX 4090", Error: "Unable to determine the device handle: GPU is lost"},
				}},
				Workers: []operations.WorkerProcess{
					{ID: "llama-cpp-1", Worker: "llama-cpp", Version: "b7000", Model: "bees/honey", ModelID: "bees/honey:Q4_K_M", State: operations.WorkerReady, Devices: []operations.WorkerDevice{{Index: 0, Vendor: "nvidia"}}, Requests: 3, ReadyAt: now.Add(-2 * time.Hour)},
					{ID: "vllm-2", Worker: "vllm", Model: scriptInjection, State: operations.WorkerFailed, Problem: "it ended with exit status 1", LogTail: []string{"CUDA out of memory"}},
				},
				Models: []operations.Model{{ID: "bees/honey:Q4_K_M", Repo: "bees/honey", Bytes: 4 * gib, Complete: true}, {ID: "bees/wax", Repo: "bees/wax", Bytes: gib}},
			}},
			{Alias: "cellar", Hostname: "10.0.0.4", Link: operations.LinkStale, SeenAt: now.Add(-20 * time.Second)},
		},
		Traffic: operations.Traffic{IntervalSeconds: 5, Points: points, InFlight: 3, Waiting: 2},
		Drift:   []operations.Drift{{Hive: "basement", Issue: "missing_worker", Worker: "comfyui", Details: "Worker 'comfyui' not installed"}, {Hive: "cellar", Issue: "extra_worker", Worker: "sglang"}}, DriftAt: now.Add(-2 * time.Minute),
	}
}

// TestPage checks the content of the page and its updates.
func TestPage(t *testing.T) {
	t.Parallel()
	s := newFakeQueen(t, testFleet())
	page := browsertest.Open(t, 1280, 900)
	page.Do(chromedp.Navigate(s.URL))
	for _, text := range []string{
		"1 of 3 hives online, 1 stale, 1 offline, 2 devices, 1 worker ready, 3 requests in flight, 2 waiting", "live",
		"○ offline", "no route to host", "last seen 3 min ago", "● online", "linux/amd64, rbee 1.0", "◐ stale",
		"0 NVIDIA GeForce RTX 4090", "87 % · 61 °C · 311 W · 18.0 GiB of 24.0 GiB", "GPU is lost",
		"16.0 GiB of 64.0 GiB", "810.0 GiB of 900.0 GiB",
		"llama-cpp b7000", "● ready", "nvidia 0", "2 h", "✕ failed", "it ended with exit status 1", "CUDA out of memory", scriptInjection,
		"● loaded", "4.0 GiB", "◐ incomplete", "basement: Worker 'comfyui' not installed", "cellar: extra worker sglang", "Checked 2 min ago",
	} {
		page.Text(text)
	}
	page.Wait(`document.title === "rbee" && !document.querySelector("img")`)
	page.Wait(`document.querySelector("#hives progress").value / document.querySelector("#hives progress").max === 0.75`)
	page.Wait(`document.querySelector("#requests polyline").getAttribute("points").split(" ").length === 59`) // without the last, incomplete interval
	page.Wait(`document.querySelector("#requests polyline.errors") !== null && document.querySelector("#latency polyline") !== null`)
	page.Wait(`document.querySelector("#rate").textContent === "2.0, max 6.0, errors 0.2"`) // 58 % 7 = 2: the last complete interval
	page.Wait(`document.querySelector("#latency").getAttribute("aria-label").includes("300 ms, max 400 ms")`)

	// Updates change the content and preserve the focus.
	page.Do(chromedp.Focus(chromedp.CSS("#workers button")))
	s.update(func(s *fakeQueen) {
		s.snapshot.Hives[0].Link, s.snapshot.Hives[0].Problem = operations.LinkOnline, ""
		s.snapshot.Hives[1].Snapshot.Workers[1] = operations.WorkerProcess{ID: "vllm-2", Worker: "vllm", Model: "bees/wax", State: operations.WorkerLoading}
		s.snapshot.Drift, s.snapshot.ConfigProblem = nil, "line 3: unknown key"
	})
	page.Text("2 of 3 hives online, 1 stale, 2 devices")
	page.Text("◐ loading")
	page.Text("All components match the config.")
	page.Text("Cannot read the config: line 3: unknown key")
	page.Wait(`!document.body.innerText.includes("no route to host") && document.activeElement === document.querySelector("#workers button")`)

	// The page reconnects.
	s.update(func(s *fakeQueen) { s.unavailable = true })
	s.CloseClientConnections()
	page.Text("reconnecting")
	s.update(func(s *fakeQueen) { s.unavailable, s.snapshot.ConfigProblem = false, "" })
	page.Wait(`document.querySelector("#connection").textContent === "live" && document.querySelector("#problem").hidden`)
}

// TestLogs checks that the page follows the log of a worker until the dialog or the page is closed.
func TestLogs(t *testing.T) {
	t.Parallel()
	s := newFakeQueen(t, testFleet())
	page := browsertest.Open(t, 1280, 900)
	page.Do(chromedp.Navigate(s.URL), chromedp.WaitVisible(chromedp.CSS("#workers button")), chromedp.Click(chromedp.CSS("#workers button")))
	if op := <-s.requests; op.HiveID != "basement" || op.ID != "llama-cpp-1" || !op.Follow {
		t.Errorf("the page requested %+v, want to follow llama-cpp-1 on basement", op)
	}
	s.lines <- "loading tensors\n"
	page.Text("llama-cpp-1 on basement")
	page.Text("loading tensors")
	s.lines <- scriptInjection + "\n"
	page.Text(scriptInjection)
	s.lines <- strings.Repeat("a long story\n", 3000)
	page.Wait(`document.querySelector("#log").textContent.split("\n").length === 2000`)
	page.Wait(`(() => { const l = document.querySelector("#log"); return l.scrollTop > 0 && l.scrollTop + l.clientHeight >= l.scrollHeight - 4 })()`)
	page.Wait(`document.title === "rbee"`)
	page.Do(chromedp.Click(chromedp.CSS("#close")))
	s.waitCanceled(t)
	page.Wait(`!document.querySelector("#logs").open`)

	// Leaving the page cancels the job.
	page.Do(chromedp.Click(chromedp.CSS("#workers button")))
	<-s.requests
	s.lines <- "second dialog\n"
	page.Text("second dialog")
	page.Do(chromedp.Navigate("about:blank"))
	s.waitCanceled(t)
}

// TestLogin checks that the page shows a login form if a key is required, and an error for
// an invalid key.
func TestLogin(t *testing.T) {
	t.Parallel()
	s := newFakeQueen(t, testFleet())
	s.key = "rbee_right"
	page := browsertest.Open(t, 1280, 900)
	page.Do(chromedp.Navigate(s.URL), chromedp.WaitVisible(chromedp.CSS("#key")), chromedp.SendKeys(chromedp.CSS("#key"), "rbee_wrong\r"))
	page.Text("Invalid key: want an API key with the scope admin.")
	page.Wait(`document.querySelector("#fleet").hidden`)
	page.Do(chromedp.SendKeys(chromedp.CSS("#key"), "rbee_right\r"), chromedp.WaitVisible(chromedp.CSS("#fleet")))
	page.Text("● online")
	page.Wait(`document.querySelector("#login").hidden && document.querySelector("#key").value === ""`)
}

// TestPhone checks that the page fits the width of a phone.
func TestPhone(t *testing.T) {
	t.Parallel()
	s := newFakeQueen(t, testFleet())
	page := browsertest.Open(t, 360, 740)
	page.Do(chromedp.Navigate(s.URL), chromedp.WaitVisible(chromedp.CSS("#fleet")))
	page.Text("● online")
	page.Wait(`document.documentElement.scrollWidth === 360`)
	page.Do(chromedp.Click(chromedp.CSS("#workers button")))
	<-s.requests
	page.Wait(`document.querySelector("#logs").open && document.querySelector("#logs").getBoundingClientRect().width <= 360`)
}
