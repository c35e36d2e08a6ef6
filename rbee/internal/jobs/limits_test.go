package jobs_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// follow is an operation that only tells.
var follow = ops.WorkerProcessLogs{Target: ops.Target{HiveID: "a"}, WorkerRef: ops.WorkerRef{PID: 1}, Follow: true}

// start begins a job.
func start(t testing.TB, c *client.Client, op ops.Operation) client.Job {
	t.Helper()
	job, err := c.Start(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// A server that ends lets jobs end that will, cancels those that never would, and
// takes no new ones meanwhile.
func TestDrain(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, script(func(ctx context.Context, op ops.Operation, handle ops.Handler) (ops.Report, error) {
		if op == follow {
			return untilCanceled(ctx, op, handle)
		}
		select {
		case <-release:
			return &ops.HiveListReport{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}), jobs.Options{})
	work, watching := start(t, c, ops.HiveList{}), start(t, c, follow)

	short, cancel := context.WithCancelCause(t.Context())
	go func() {
		eventually(t, "who watches is told", func() bool { return s.Running() == 1 })
		cancel(errors.New("no time"))
	}()
	if err := s.Drain(short); err == nil || !strings.Contains(err.Error(), "1 jobs have not ended: no time") {
		t.Errorf("%v", err)
	}
	if _, err := c.Start(t.Context(), ops.HiveList{}); err == nil || !strings.Contains(err.Error(), "is ending") {
		t.Errorf("a new job: %v", err)
	}
	if job, err := c.Job(t.Context(), work.ID); err != nil || job.State != client.JobRunning {
		t.Errorf("it was cut off: %+v, %v", job, err)
	}
	close(release)
	if err := s.Drain(t.Context()); err != nil {
		t.Error(err)
	}
	for id, want := range map[string]client.JobState{work.ID: client.JobDone, watching.ID: client.JobCanceled} {
		if job, err := c.Job(t.Context(), id); err != nil || job.State != want {
			t.Errorf("%+v, %v, want %s", job, err, want)
		}
	}
}

// A job that only tells ends when nobody has listened for two minutes; any other
// goes on.
func TestUnheard(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := jobs.New(untilCanceled, jobs.Options{})
		ask := func(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(ctx, method, path, strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			s.ServeHTTP(w, r)
			synctest.Wait()
			return w
		}
		create := func(op ops.Operation) string {
			body, err := op.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			return ask(t.Context(), http.MethodPost, "/v1/jobs", string(body)).Header().Get("Location")
		}
		state := func(path string) client.JobState {
			var job client.Job
			if err := json.Unmarshal(ask(t.Context(), http.MethodGet, path, "").Body.Bytes(), &job); err != nil {
				t.Error(err)
			}
			return job.State
		}
		read := func(path string, d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			ask(ctx, http.MethodGet, path+"/stream", "")
		}
		work, never, watched := create(ops.HiveList{}), create(follow), create(follow)
		read(watched, 3*time.Minute)
		if state(never) != client.JobCanceled || state(watched) != client.JobRunning {
			t.Error("never read:", state(never), "read for three minutes:", state(watched))
		}
		time.Sleep(119 * time.Second)
		read(watched, time.Second) // somebody who comes back
		time.Sleep(119 * time.Second)
		if got := state(watched); got != client.JobRunning {
			t.Error("119 s after its last reader:", got)
		}
		time.Sleep(2 * time.Second)
		if state(watched) != client.JobCanceled || state(work) != client.JobRunning {
			t.Error("121 s after its last reader:", state(watched), "work that nobody reads:", state(work))
		}
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		time.Sleep(11 * time.Minute) // the timers that forget the jobs
	})
}

// Long prompts go through, and not many of them at once.
func TestLongPrompts(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, script(func(_ context.Context, op ops.Operation, _ ops.Handler) (ops.Report, error) {
		if infer, ok := op.(ops.Infer); ok {
			<-release
			return &ops.InferReport{PromptTokens: len(infer.Prompt)}, nil
		}
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxBody: 2 << 20, MaxBodyMemory: 3 << 20})
	prompt := ops.Infer{Model: "m", Prompt: strings.Repeat("bee \"\n", 200_000), MaxTokens: 1} // 1.6 MB as JSON
	job := start(t, c, prompt)
	var e *ops.Error
	if _, err := c.Start(t.Context(), prompt); !errors.As(err, &e) || !strings.Contains(e.Message, "no room beside them") {
		t.Errorf("a second one: %v", err)
	}
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil { // what is small has its place
		t.Error(err)
	}
	body := struct{ io.Reader }{strings.NewReader(`{"operation":"hive_list"}`)} // of a length that is not told
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+"/v1/jobs", body)
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("%v, %v", resp, err)
	} else {
		resp.Body.Close()
	}
	close(release)
	report, err := c.Watch(t.Context(), job.ID, 0, nil)
	if r, ok := report.(*ops.InferReport); err != nil || !ok || r.PromptTokens != len(prompt.Prompt) {
		t.Errorf("%+v, %v", report, err)
	}
	eventually(t, "it does not run", func() bool { return s.Running() == 0 })
	if _, err := c.Run(t.Context(), prompt, nil); err != nil {
		t.Errorf("after it: %v", err)
	}
}

// pictures is a report with so many bytes of pictures, and letters of two bytes that
// pieces may not cut.
func pictures(n int) *ops.InferReport {
	return &ops.InferReport{
		Text: strings.Repeat("ü", 300_000), Files: []ops.InferFile{{Name: "bee.png", Data: make([]byte, n)}},
	}
}

// A report that no event should hold arrives, by the stream and by asking for the job.
func TestBigReport(t *testing.T) {
	t.Parallel()
	want := pictures(1 << 20)
	_, c := serve(t, script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) { return want, nil }), jobs.Options{})
	job := start(t, c, ops.HiveList{}) // the kind of the report is the reader's to say
	resp, body := ask(t, "GET", c.URL+"/v1/jobs/"+job.ID+"/stream", "")
	pieces := strings.Count(body, "event: report\n")
	if pieces < 7 || !strings.HasSuffix(body, "\n\ndata: [DONE]\n\n") || !strings.Contains(body, `"report_bytes":`) {
		t.Errorf("%s, %d pieces", resp.Status, pieces)
	}
	for piece := range strings.SplitSeq(body, "\n\n") {
		if !utf8.ValidString(piece) || len(piece) > 300_000 {
			t.Fatalf("a letter was cut, or a piece of %d bytes", len(piece))
		}
	}
	infer := ops.Infer{Model: "m", Prompt: "p", MaxTokens: 1}
	check := func(report ops.Report, err error) {
		t.Helper()
		if r, ok := report.(*ops.InferReport); err != nil || !ok || r.Text != want.Text || len(r.Files[0].Data) != 1<<20 {
			t.Errorf("%T, %v", report, err)
		}
	}
	check(c.Run(t.Context(), infer, nil))
	list, err := c.Jobs(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatal(list, err)
	}
	told, err := c.Job(t.Context(), list[len(list)-1].ID)
	check(told.Report, err)
}

// A report whose stream breaks comes again from its beginning.
func TestBigReportCut(t *testing.T) {
	t.Parallel()
	s := jobs.New(script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) { return pictures(1 << 20), nil }), jobs.Options{})
	defer s.Close(t.Context())
	var streams atomic.Int64
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stream") && streams.Add(1) == 1 {
			w = &breaking{ResponseWriter: w, left: 3}
		}
		s.ServeHTTP(w, r)
	}))
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
	report, err := c.Run(t.Context(), ops.Infer{Model: "m", Prompt: "p", MaxTokens: 1}, nil)
	if r, ok := report.(*ops.InferReport); err != nil || !ok || len(r.Files[0].Data) != 1<<20 || streams.Load() != 2 {
		t.Errorf("%T, %v, in %d streams", report, err, streams.Load())
	}
}

// breaking aborts an answer after so many pieces.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *breaking) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// Reports that take too much together go, the first ones first; the last one stays.
func TestKeepBytes(t *testing.T) {
	t.Parallel()
	_, c := serve(t, script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		return &ops.HiveListReport{Hives: []ops.HiveSummary{{Alias: strings.Repeat("a", 1000)}}}, nil
	}), jobs.Options{KeepBytes: 4000})
	var last client.Job
	for range 6 {
		last = finished(t, c)
	}
	if list, err := c.Jobs(t.Context()); err != nil || len(list) != 3 || list[2].ID != last.ID {
		t.Errorf("%d jobs, %v", len(list), err)
	}

	_, c = serve(t, done, jobs.Options{KeepBytes: 1})
	finished(t, c)
	last = finished(t, c)
	if job, err := c.Job(t.Context(), last.ID); err != nil || job.Report == nil {
		t.Errorf("%+v, %v", job, err)
	}
}

// Events of all jobs have a bound together; the one that tells most loses them.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	_, c := serve(t, script(func(_ context.Context, op ops.Operation, handle ops.Handler) (ops.Report, error) {
		n := 10
		if op.Kind() == ops.KindModelList {
			n = 1000
		}
		for i := range n {
			handle(ops.Event{Type: ops.EventLog, Text: strings.Repeat("x", 1000), Message: fmt.Sprint(i)})
		}
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxBytes: 100_000})
	var quiet []client.Job
	for range 2 {
		quiet = append(quiet, finished(t, c))
	}
	loud := start(t, c, ops.ModelList{})
	if _, err := c.Watch(t.Context(), loud.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	bytes := 0
	for _, job := range append(quiet, loud) {
		_, body := ask(t, "GET", c.URL+"/v1/jobs/"+job.ID+"/stream", "")
		bytes += len(body)
		if lost := strings.Contains(body, "events are missing"); lost != (job.ID == loud.ID) {
			t.Errorf("%s: lost some: %v", job.Operation, lost)
		}
		if job.ID == loud.ID && !strings.Contains(body, `"message":"999"`) {
			t.Error("the newest is lost")
		}
	}
	if bytes < 80_000 || bytes > 101_000 { // ends and a note come to it
		t.Errorf("%d bytes", bytes)
	}
}

// A job works under the id of the request that asked for it, or its own, and hands
// it on.
func TestRequestID(t *testing.T) {
	t.Parallel()
	seen := make(chan string, 1)
	var log logs
	_, hive := serve(t, script(func(ctx context.Context, _ ops.Operation, _ ops.Handler) (ops.Report, error) {
		seen <- client.RequestID(ctx)
		return &ops.HiveListReport{}, nil
	}), jobs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, queen := serve(t, hive, jobs.Options{})

	job := start(t, queen, ops.HiveList{})
	if got := <-seen; got != job.ID {
		t.Errorf("a job's own: %q, want %q", got, job.ID)
	}
	if _, err := queen.Run(client.WithRequestID(t.Context(), "the-caller's"), ops.HiveList{}, nil); err != nil {
		t.Error(err)
	}
	if got := <-seen; got != "the-caller's" {
		t.Errorf("the caller's: %q", got)
	}
	if text := log.String(); !strings.Contains(text, "request="+job.ID) || !strings.Contains(text, "request=the-caller's") {
		t.Errorf("the log has none: %s", text)
	}
	list, err := queen.Jobs(t.Context())
	if err != nil || len(list) != 2 || list[0].RequestID != job.ID || list[1].RequestID != "the-caller's" {
		t.Errorf("%+v, %v", list, err)
	}
	for _, odd := range []string{"", "a b", "a\nb", "ü", strings.Repeat("x", 129)} {
		if ctx := client.WithRequestID(t.Context(), odd); client.RequestID(ctx) != "" {
			t.Errorf("%q is taken", odd)
		}
	}
}
