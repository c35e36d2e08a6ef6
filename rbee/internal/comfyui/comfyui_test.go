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

func newClient(t *testing.T) (*Client, *comfytest.Server) {
	t.Helper()
	s := comfytest.New()
	t.Cleanup(s.Close)
	srv := httptest.NewServer(http.StripPrefix("/before", s))
	t.Cleanup(srv.Close)
	return &Client{Base: srv.URL + "/before/", Poll: time.Millisecond}, s
}

func parse(t *testing.T, text string) Workflow {
	t.Helper()
	w, err := ParseWorkflow([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return w
}

const bee = `{"1": {"class_type": "CLIPTextEncode", "inputs": {"text": "{prompt}, sharp", "seed": "{seed}"}},
"2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "bee"}},
"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}`

func TestRun(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	w, found := parse(t, bee).With(map[string]any{"prompt": "a bee", "seed": int64(7), "model_file": "x"})
	if !slices.Equal(found, []string{"prompt", "seed"}) {
		t.Errorf("found %q", found)
	}
	inputs := w["1"].(map[string]any)["inputs"].(map[string]any)
	if !reflect.DeepEqual(inputs, map[string]any{"text": "a bee, sharp", "seed": int64(7)}) {
		t.Errorf("%v", inputs)
	}
	for _, want := range []string{"bee_00001_.png", "bee_00002_.png"} {
		r, err := c.Run(t.Context(), w, nil)
		if err != nil || len(r.Files) != 1 || r.Files[0].Node != "2" {
			t.Fatalf("%+v, %v", r, err)
		}
		name, data, err := c.Fetch(t.Context(), r.Files[0], 1<<20)
		if err != nil || name != want {
			t.Fatalf("%s, %v", name, err)
		}
		if _, err := png.Decode(bytes.NewReader(data)); err != nil {
			t.Errorf("no picture: %v", err)
		}
		if _, _, err := c.Fetch(t.Context(), r.Files[0], int64(len(data))); err != nil {
			t.Errorf("no byte more than allowed: %v", err)
		}
		if _, _, err := c.Fetch(t.Context(), r.Files[0], int64(len(data))-1); err == nil {
			t.Error("a byte more than allowed")
		}
	}
	if name, _, err := c.Fetch(t.Context(), File{Filename: "../../bee_00001_.png", Type: "output"}, 1<<20); err == nil {
		t.Errorf("fetched %s", name)
	}
}

func TestRefusalsAndFailures(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	for text, want := range map[string]string{
		`{"1": {"class_type": "Nope"}, "2": {"class_type": "SaveImage"}}`:                                                "ComfyUI refuses the workflow: Prompt outputs failed validation; node 1 (Nope): Node type not found: Nope",
		`{"1": {"class_type": "KSampler"}}`:                                                                              "ComfyUI refuses the workflow: Prompt outputs failed validation",
		`{"1": {"class_type": "Fail", "inputs": {"message": "out of memory\ntrace"}}, "2": {"class_type": "SaveImage"}}`: "the workflow failed at node 1 (Fail): out of memory",
	} {
		if _, err := c.Run(t.Context(), parse(t, text), nil); err == nil || err.Error() != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	for text, want := range map[string]string{
		"[]": "no JSON object", "{}": "has no nodes", `{"nodes": [], "links": []}`: "Save (API format)", `{"1": {"inputs": {}}}`: `node "1" has no class_type`,
	} {
		if _, err := ParseWorkflow([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
	if w, err := ParseWorkflow([]byte(`{"prompt": ` + bee + `}`)); err != nil || len(w) != 3 {
		t.Errorf("%v, %v", w, err)
	}
}

const sleeper = `{"1": {"class_type": "Sleep", "inputs": {"seconds": 3600}}, "2": {"class_type": "SaveImage"}}`

// TestTakenBack holds that nothing runs on for somebody who has gone, and that
// one who waits is told for how many.
func TestTakenBack(t *testing.T) {
	t.Parallel()
	c, _ := newClient(t)
	running, stopFirst := context.WithCancelCause(t.Context())
	begun, first := make(chan struct{}), make(chan error, 1)
	begin := sync.OnceFunc(func() { close(begun) })
	enough := errors.New("enough")
	go func() {
		_, err := c.Run(running, parse(t, sleeper), func(p Progress) {
			if p.Running {
				begin()
			}
		})
		first <- err
	}()
	<-begun
	waiting, stopSecond := context.WithCancelCause(t.Context())
	_, err := c.Run(waiting, parse(t, bee), func(p Progress) {
		if p.Running || p.Ahead != 1 {
			t.Errorf("%+v", p)
		}
		stopSecond(enough)
	})
	if !errors.Is(err, enough) {
		t.Error(err)
	}
	stopFirst(enough)
	if err := <-first; !errors.Is(err, enough) {
		t.Error(err)
	}
	if _, err := c.Run(t.Context(), parse(t, bee), nil); err != nil {
		t.Errorf("the next: %v", err)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	c, s := newClient(t)
	_, err := c.Run(t.Context(), parse(t, sleeper), func(p Progress) {
		if p.Running {
			s.Forget()
		}
	})
	if err == nil || !strings.Contains(err.Error(), "it was started anew") {
		t.Error(err)
	}
	c.Base = "http://127.0.0.1:1"
	if _, err := c.Run(t.Context(), parse(t, bee), nil); err == nil || !strings.Contains(err.Error(), "queueing the workflow") {
		t.Error(err)
	}
}

// TestHungServer holds that a ComfyUI which accepts a request and falls silent, at
// any point, is given up.
func TestHungServer(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"/prompt":  "queueing the workflow: nothing came for 200ms",
		"/history": "ComfyUI does not answer any more: nothing came for 200ms",
		"/queue":   "ComfyUI does not answer any more: nothing came for 200ms",
		"/view":    "fetching bee_00001_.png: nothing came for 200ms",
	} {
		for _, begun := range []bool{false, true} {
			t.Run(fmt.Sprint(at, " ", begun), func(t *testing.T) {
				t.Parallel()
				s := comfytest.New()
				t.Cleanup(s.Close)
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if !strings.HasPrefix(r.URL.Path, at) {
						s.ServeHTTP(w, r)
						return
					}
					_, _ = io.Copy(io.Discard, r.Body) // only then is the client's end noticed
					if begun {
						_, _ = w.Write([]byte("{"))
						_ = http.NewResponseController(w).Flush()
					}
					<-r.Context().Done()
				}))
				t.Cleanup(srv.Close)
				c := &Client{Base: srv.URL, Poll: time.Millisecond, Stall: 200 * time.Millisecond}
				text := bee
				if at == "/queue" {
					text = sleeper // else it has ended before it is looked for
				}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				r, err := c.Run(ctx, parse(t, text), nil)
				if err == nil {
					_, _, err = c.Fetch(ctx, r.Files[0], 1<<20)
				}
				if err == nil || err.Error() != want {
					t.Errorf("got %v, want %s", err, want)
				}
			})
		}
	}
}

func FuzzParseWorkflow(f *testing.F) {
	f.Add([]byte(bee))
	f.Add([]byte(`{"prompt": {"1": {"class_type": "x", "inputs": {"a": ["1", 0], "b": "{prompt}{seed}"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := ParseWorkflow(data)
		if err != nil {
			return
		}
		if out, _ := w.With(map[string]any{"prompt": "p", "seed": 1}); len(out) != len(w) {
			t.Errorf("%d nodes became %d", len(w), len(out))
		}
	})
}
