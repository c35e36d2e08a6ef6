package comfyui

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/comfyui/comfytest"
)

// newClient starts a server below a path prefix and returns a client for it.
func newClient(t *testing.T) (*Client, *comfytest.Server) {
	t.Helper()
	s := comfytest.New()
	t.Cleanup(s.Close)
	srv := httptest.NewServer(http.StripPrefix("/before", s))
	t.Cleanup(srv.Close)
	return &Client{BaseURL: srv.URL + "/before/", PollInterval: time.Millisecond}, s
}

func mustParse(t *testing.T, text string) Workflow {
	t.Helper()
	w, err := ParseWorkflow([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const beeWorkflow = `{"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}, sharp", "seed": "{seed}"}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bee"}},
"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}`

func TestRun(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	w, found := mustParse(t, beeWorkflow).With(map[string]any{"prompt": "a bee", "seed": int64(7), "model_file": "x"})
	if !slices.Equal(found, []string{"prompt", "seed"}) {
		t.Errorf("With() found %q, want prompt and seed", found)
	}
	inputs := w["1"].(map[string]any)["inputs"].(map[string]any)
	if !reflect.DeepEqual(inputs, map[string]any{"text": "a bee, sharp", "seed": int64(7)}) {
		t.Errorf("With() inputs = %v, want the values of prompt and seed", inputs)
	}
	for _, want := range []string{"bee_00001_.png", "bee_00002_.png"} {
		r, err := c.Run(t.Context(), w, nil)
		if err != nil || len(r.Files) != 1 || r.Files[0].Node != "2" {
			t.Fatalf("Run() = %+v, %v, want one file of node 2", r, err)
		}
		name, data, err := c.Fetch(t.Context(), r.Files[0], 1<<20)
		if err != nil || name != want {
			t.Fatalf("Fetch() = %s, %v, want %s", name, err, want)
		}
		if _, err := png.Decode(bytes.NewReader(data)); err != nil {
			t.Errorf("decoding the data of Fetch() = %v, want a PNG image", err)
		}
		if _, _, err := c.Fetch(t.Context(), r.Files[0], int64(len(data))); err != nil {
			t.Errorf("Fetch() of a file of exactly the limit = %v, want nil", err)
		}
		if _, _, err := c.Fetch(t.Context(), r.Files[0], int64(len(data))-1); err == nil {
			t.Error("Fetch() of a file of one byte more than the limit = nil, want an error")
		}
	}
	if name, _, err := c.Fetch(t.Context(), File{Filename: "../../bee_00001_.png", Type: "output"}, 1<<20); err == nil {
		t.Errorf("Fetch(../../bee_00001_.png) = %s, want an error", name)
	}
}

func TestInvalidAndFailedWorkflows(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	for text, want := range map[string]string{
		`{"1": {"class_type": "Nope"}, "2": {"class_type": "SaveImage"}}`:                                                "ComfyUI rejected the workflow: Prompt outputs failed validation; node 1 (Nope): Node type not found: Nope",
		`{"1": {"class_type": "KSampler"}}`:                                                                              "ComfyUI rejected the workflow: Prompt outputs failed validation",
		`{"1": {"class_type": "Fail", "inputs": {"message": "out of memory\ntrace"}}, "2": {"class_type": "SaveImage"}}`: "the workflow failed at node 1 (Fail): out of memory",
	} {
		if _, err := c.Run(t.Context(), mustParse(t, text), nil); err == nil || err.Error() != want {
			t.Errorf("Run(%s) = %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{
		"[]": "want a JSON object", "{}": "has no nodes", `{"nodes": [], "links": []}`: "Save (API format)", `{"1": {"inputs": {}}}`: `node "1" has no class_type`,
	} {
		if _, err := ParseWorkflow([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseWorkflow(%s) = %v, want %q in the error", text, err, want)
		}
	}
	if w, err := ParseWorkflow([]byte(`{"prompt": ` + beeWorkflow + `}`)); err != nil || len(w) != 3 {
		t.Errorf("ParseWorkflow of an object with prompt = %v, %v, want 3 nodes", w, err)
	}
}

const sleepWorkflow = `{"1": {"class_type": "Sleep", "inputs": {"seconds": 3600}}, "2": {"class_type": "SaveImage"}}`

// TestCancelWorkflow checks that canceled workflows do not block the queue, and that a
// waiting workflow reports its position.
func TestCancelWorkflow(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	running, stopFirst := context.WithCancelCause(t.Context())
	started, first := make(chan struct{}), make(chan error, 1)
	signalStarted := sync.OnceFunc(func() { close(started) })
	cause := errors.New("test cancellation")
	go func() {
		_, err := c.Run(running, mustParse(t, sleepWorkflow), func(p Progress) {
			if p.Running {
				signalStarted()
			}
		})
		first <- err
	}()
	<-started
	waiting, stopSecond := context.WithCancelCause(t.Context())
	_, err := c.Run(waiting, mustParse(t, beeWorkflow), func(p Progress) {
		if p.Running || p.WorkflowsAhead != 1 {
			t.Errorf("progress = %+v, want it to wait for one workflow", p)
		}
		stopSecond(cause)
	})
	if !errors.Is(err, cause) {
		t.Errorf("Run() of a canceled waiting workflow = %v, want %v", err, cause)
	}
	stopFirst(cause)
	if err := <-first; !errors.Is(err, cause) {
		t.Errorf("Run() of a canceled running workflow = %v, want %v", err, cause)
	}
	if _, err := c.Run(t.Context(), mustParse(t, beeWorkflow), nil); err != nil {
		t.Errorf("Run() after canceled workflows = %v, want nil", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	c, s := newClient(t)
	_, err := c.Run(t.Context(), mustParse(t, sleepWorkflow), func(p Progress) {
		if p.Running {
			s.Forget()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "it was restarted") {
		t.Errorf("Run() after a restart = %v, want an error", err)
	}
	c.BaseURL = "http://127.0.0.1:1"
	if _, err := c.Run(t.Context(), mustParse(t, beeWorkflow), nil); err == nil || !strings.Contains(err.Error(), "cannot queue the workflow") {
		t.Errorf("Run() without a server = %v, want an error", err)
	}
}

// TestStalledServer checks that Run and Fetch return an error if the server stops sending
// data, before or during a response.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"/prompt":  "cannot queue the workflow: no data received for 200ms",
		"/history": "ComfyUI stopped responding: no data received for 200ms",
		"/queue":   "ComfyUI stopped responding: no data received for 200ms",
		"/view":    "cannot fetch bee_00001_.png: no data received for 200ms",
	} {
		for _, midResponse := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, mid-response %t", at, midResponse), func(t *testing.T) {
				t.Parallel()
				s := comfytest.New()
				t.Cleanup(s.Close)
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasPrefix(r.URL.Path, at) {
						s.ServeHTTP(w, r)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body) // otherwise the server does not detect that the client disconnects
					if midResponse {
						_, _ = w.Write([]byte("{"))
						_ = http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				}))
				t.Cleanup(srv.Close)
				c := &Client{BaseURL: srv.URL, PollInterval: time.Millisecond, StallTimeout: 200 * time.Millisecond}
				text := beeWorkflow
				if at == "/queue" {
					text = sleepWorkflow // the other workflow finishes before GET /queue
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				r, err := c.Run(ctx, mustParse(t, text), nil)
				if err == nil {
					_, _, err = c.Fetch(ctx, r.Files[0], 1<<20)
				}
				if err == nil || err.Error() != want {
					t.Errorf("Run() and Fetch() = %v, want %s", err, want)
				}
			})
		}
	}
}

func FuzzParseWorkflow(f *testing.F) {
	f.Add([]byte(beeWorkflow))
	f.Add([]byte(`{"prompt": {"1": {"class_type": "x", "inputs": {"a": ["1", 0], "b": "{prompt}{seed}"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := ParseWorkflow(data)
		if err != nil {
			return
		}
		if out, _ := w.With(map[string]any{"prompt": "p", "seed": 1}); len(out) != len(w) {
			t.Errorf("With() has %d nodes, want %d", len(out), len(w))
		}
	})
}
