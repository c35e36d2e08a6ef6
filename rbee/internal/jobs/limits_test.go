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
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// follow is an operation that only reports events.
var follow = ops.WorkerProcessLogs{Target: ops.Target{HiveID: "a"}, WorkerRef: ops.WorkerRef{PID: 1}, Follow: true}

// start starts a job.
func start(t testing.TB, c *client.Client, op ops.Operation) client.Job {
	t.Helper()
	job, err := c.Start(t.Context(), op)
	if err != nil {
		t.Fatal(err)
	}
	return job
}

// TestDrain checks that Drain waits for jobs, cancels jobs that only report events, and
// rejects new jobs.
func TestDrain(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, runnerFunc(func(ctx context.Context, op ops.Operation, handle ops.Handler) (ops.Report, error) {
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
	job, following := start(t, c, ops.HiveList{}), start(t, c, follow)

	short, cancel := context.WithCancelCause(t.Context())
	go func() {
		waittest.Until(t, "the following job is canceled", func() bool { return s.Running() == 1 })
		cancel(errors.New("no time"))
	}()
	if err := s.Drain(short); err == nil || !strings.Contains(err.Error(), "1 jobs are still running: no time") {
		t.Errorf("Drain() = %v, want an error about 1 running job", err)
	}
	if _, err := c.Start(t.Context(), ops.HiveList{}); err == nil || !strings.Contains(err.Error(), "shutting down") {
		t.Errorf("Start() during Drain() = %v, want an error about the shutdown", err)
	}
	if job, err := c.Job(t.Context(), job.ID); err != nil || job.State != client.JobRunning {
		t.Errorf("Job() during Drain() = %+v, %v, want state running", job, err)
	}
	close(release)
	if err := s.Drain(t.Context()); err != nil {
		t.Errorf("Drain() after all jobs ended = %v, want nil", err)
	}
	for id, want := range map[string]client.JobState{job.ID: client.JobDone, following.ID: client.JobCanceled} {
		if job, err := c.Job(t.Context(), id); err != nil || job.State != want {
			t.Errorf("Job(%s) = %+v, %v, want state %s", id, job, err, want)
		}
	}
}

// TestNoReaderTimeout checks that a job that only reports events is canceled after two minutes
// without a reader, and that other jobs continue.
func TestNoReaderTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := jobs.New(untilCanceled, jobs.Options{})
		do := func(ctx context.Context, method, path, body string) *httptest.ResponseRecorder {
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
			return do(t.Context(), http.MethodPost, "/v1/jobs", string(body)).Header().Get("Location")
		}
		state := func(path string) client.JobState {
			var job client.Job
			if err := json.Unmarshal(do(t.Context(), http.MethodGet, path, "").Body.Bytes(), &job); err != nil {
				t.Errorf("GET %s: cannot parse the job: %v", path, err)
			}
			return job.State
		}
		read := func(path string, d time.Duration) {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			do(ctx, http.MethodGet, path+"/stream", "")
		}
		other, unread, watched := create(ops.HiveList{}), create(follow), create(follow)
		read(watched, 3*time.Minute)
		if state(unread) != client.JobCanceled || state(watched) != client.JobRunning {
			t.Errorf("after three minutes the unread job is %s, the watched one %s, want canceled, running", state(unread), state(watched))
		}
		waittest.Advance(119 * time.Second)
		read(watched, time.Second) // a new reader
		waittest.Advance(119 * time.Second)
		if got := state(watched); got != client.JobRunning {
			t.Errorf("119 s after its last reader the job is %s, want running", got)
		}
		waittest.Advance(2 * time.Second)
		if state(watched) != client.JobCanceled || state(other) != client.JobRunning {
			t.Errorf("121 s after its last reader the job is %s, a job of another kind %s, want canceled, running", state(watched), state(other))
		}
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
		waittest.Advance(11 * time.Minute) // until the timers that drop the jobs fire
	})
}

// TestMaxBodyMemory checks that the server accepts a large operation, and rejects a second one
// while the first one is running.
func TestMaxBodyMemory(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, runnerFunc(func(_ context.Context, op ops.Operation, _ ops.Handler) (ops.Report, error) {
		if infer, ok := op.(ops.Infer); ok {
			<-release
			return &ops.InferReport{PromptTokens: len(infer.Prompt)}, nil
		}
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxBody: 2 << 20, MaxBodyMemory: 3 << 20})
	prompt := ops.Infer{Model: "m", Prompt: strings.Repeat("bee \"\n", 200_000), MaxTokens: 1} // 1.5 MiB as JSON
	job := start(t, c, prompt)
	var e *ops.Error
	if _, err := c.Start(t.Context(), prompt); !errors.As(err, &e) || !strings.Contains(e.Message, "too many operations in progress") {
		t.Errorf("second Start() = %v, want an error about the limit", err)
	}
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil { // small operations do not count
		t.Errorf("Run() of a small operation: error = %v, want nil", err)
	}
	body := struct{ io.Reader }{strings.NewReader(`{"operation":"hive_list"}`)} // no Content-Length
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+"/v1/jobs", body)
	req.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(req); err != nil || resp.StatusCode != http.StatusTooManyRequests {
		t.Errorf("POST without Content-Length = %v, %v, want status 429", resp, err)
	} else {
		resp.Body.Close()
	}
	close(release)
	report, err := c.Watch(t.Context(), job.ID, 0, nil)
	if r, ok := report.(*ops.InferReport); err != nil || !ok || r.PromptTokens != len(prompt.Prompt) {
		t.Errorf("Watch() = %+v, %v, want %d prompt tokens", report, err, len(prompt.Prompt))
	}
	waittest.Until(t, "no job is running", func() bool { return s.Running() == 0 })
	if _, err := c.Run(t.Context(), prompt, nil); err != nil {
		t.Errorf("Run() after the first job = %v, want nil", err)
	}
}

// largeReport returns a report with n bytes of files, and with two-byte characters that
// pieces must not split.
func largeReport(n int) *ops.InferReport {
	return &ops.InferReport{
		Text: strings.Repeat("ü", 300_000), Files: []ops.InferFile{{Name: "bee.png", Data: make([]byte, n)}},
	}
}

// TestLargeReport checks that a report that is too large for one event is sent in pieces in
// the stream, and complete in the job.
func TestLargeReport(t *testing.T) {
	t.Parallel()
	want := largeReport(1 << 20)
	_, c := serve(t, runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) { return want, nil }), jobs.Options{})
	job := start(t, c, ops.HiveList{}) // the type of the report does not matter here
	resp, body := do(t, "GET", c.URL+"/v1/jobs/"+job.ID+"/stream", "")
	pieces := strings.Count(body, "event: report\n")
	if pieces < 7 || !strings.HasSuffix(body, "\n\ndata: [DONE]\n\n") || !strings.Contains(body, `"report_bytes":`) {
		t.Errorf("stream = %s with %d pieces, want 7 or more, report_bytes and [DONE]", resp.Status, pieces)
	}
	for piece := range strings.SplitSeq(body, "\n\n") {
		if !utf8.ValidString(piece) || len(piece) > 300_000 {
			t.Fatalf("piece of %d bytes, valid UTF-8: %t, want at most 300000 bytes of valid UTF-8", len(piece), utf8.ValidString(piece))
		}
	}
	infer := ops.Infer{Model: "m", Prompt: "p", MaxTokens: 1}
	check := func(report ops.Report, err error) {
		t.Helper()
		if r, ok := report.(*ops.InferReport); err != nil || !ok || r.Text != want.Text || len(r.Files[0].Data) != 1<<20 {
			t.Errorf("report = %T, %v, want the complete report", report, err)
		}
	}
	check(c.Run(t.Context(), infer, nil))
	list, err := c.Jobs(t.Context())
	if err != nil || len(list) == 0 {
		t.Fatalf("Jobs() = %+v, %v, want jobs", list, err)
	}
	last, err := c.Job(t.Context(), list[len(list)-1].ID)
	check(last.Report, err)
}

// TestLargeReportBroken checks that a report is sent again from the beginning if the stream
// breaks.
func TestLargeReportBroken(t *testing.T) {
	t.Parallel()
	s := jobs.New(runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		return largeReport(1 << 20), nil
	}), jobs.Options{})
	defer s.Close(t.Context())
	var streams atomic.Int64
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/stream") && streams.Add(1) == 1 {
			w = &breakingWriter{ResponseWriter: w, left: 3}
		}
		s.ServeHTTP(w, r)
	}))
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
	report, err := c.Run(t.Context(), ops.Infer{Model: "m", Prompt: "p", MaxTokens: 1}, nil)
	if r, ok := report.(*ops.InferReport); err != nil || !ok || len(r.Files[0].Data) != 1<<20 || streams.Load() != 2 {
		t.Errorf("Run() = %T, %v in %d streams, want the report in 2", report, err, streams.Load())
	}
}

// breakingWriter aborts a response after some writes.
type breakingWriter struct {
	http.ResponseWriter
	left int
}

func (b *breakingWriter) Unwrap() http.ResponseWriter { return b.ResponseWriter }

func (b *breakingWriter) Write(p []byte) (int, error) {
	if b.left--; b.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return b.ResponseWriter.Write(p)
}

// TestKeepBytes checks that the server drops the oldest reports above the limit, but never the
// newest one.
func TestKeepBytes(t *testing.T) {
	t.Parallel()
	_, c := serve(t, runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		return &ops.HiveListReport{Hives: []ops.HiveSummary{{Alias: strings.Repeat("a", 1000)}}}, nil
	}), jobs.Options{KeepBytes: 4000})
	var last client.Job
	for range 6 {
		last = runJob(t, c)
	}
	if list, err := c.Jobs(t.Context()); err != nil || len(list) != 3 || list[2].ID != last.ID {
		t.Errorf("Jobs() = %d jobs, %v, want 3 including the last one", len(list), err)
	}

	_, c = serve(t, emptyReport, jobs.Options{KeepBytes: 1})
	runJob(t, c)
	last = runJob(t, c)
	if job, err := c.Job(t.Context(), last.ID); err != nil || job.Report == nil {
		t.Errorf("Job() of the last job = %+v, %v, want a report", job, err)
	}
}

// TestMaxBytes checks that only the job with the most events loses events above the limit.
func TestMaxBytes(t *testing.T) {
	t.Parallel()
	_, c := serve(t, runnerFunc(func(_ context.Context, op ops.Operation, handle ops.Handler) (ops.Report, error) {
		n := 10
		if op.Kind() == ops.KindModelList {
			n = 1000
		}
		for i := range n {
			handle(ops.Event{Type: ops.EventLog, Text: strings.Repeat("x", 1000), Message: fmt.Sprint(i)})
		}
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxBytes: 100_000})
	var small []client.Job
	for range 2 {
		small = append(small, runJob(t, c))
	}
	large := start(t, c, ops.ModelList{})
	if _, err := c.Watch(t.Context(), large.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, job := range append(small, large) {
		_, body := do(t, "GET", c.URL+"/v1/jobs/"+job.ID+"/stream", "")
		total += len(body)
		if dropped := strings.Contains(body, "events are missing"); dropped != (job.ID == large.ID) {
			t.Errorf("%s: events dropped: %t, want %t", job.Operation, dropped, !dropped)
		}
		if job.ID == large.ID && !strings.Contains(body, `"message":"999"`) {
			t.Error("the newest event was dropped, want it kept")
		}
	}
	if total < 80_000 || total > 101_000 { // results and a note are not counted
		t.Errorf("the streams have %d bytes in total, want 80000 to 101000", total)
	}
}

// TestRequestID checks that a job logs and forwards the request ID of its request, or its own
// ID if the request has none.
func TestRequestID(t *testing.T) {
	t.Parallel()
	ids := make(chan string, 1)
	var log syncBuffer
	_, hive := serve(t, runnerFunc(func(ctx context.Context, _ ops.Operation, _ ops.Handler) (ops.Report, error) {
		ids <- client.RequestID(ctx)
		return &ops.HiveListReport{}, nil
	}), jobs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	_, queen := serve(t, hive, jobs.Options{})

	job := start(t, queen, ops.HiveList{})
	if got := <-ids; got != job.ID {
		t.Errorf("request ID without a header = %q, want %q", got, job.ID)
	}
	if _, err := queen.Run(client.WithRequestID(t.Context(), "the-caller's"), ops.HiveList{}, nil); err != nil {
		t.Errorf("Run() error = %v, want nil", err)
	}
	if got := <-ids; got != "the-caller's" {
		t.Errorf("request ID with a header = %q, want the-caller's", got)
	}
	if text := log.String(); !strings.Contains(text, "request="+job.ID) || !strings.Contains(text, "request=the-caller's") {
		t.Errorf("log = %s, want both request IDs", text)
	}
	list, err := queen.Jobs(t.Context())
	if err != nil || len(list) != 2 || list[0].RequestID != job.ID || list[1].RequestID != "the-caller's" {
		t.Errorf("Jobs() = %+v, %v, want both request IDs", list, err)
	}
	for _, invalid := range []string{"", "a b", "a\nb", "ü", strings.Repeat("x", 129)} {
		if ctx := client.WithRequestID(t.Context(), invalid); client.RequestID(ctx) != "" {
			t.Errorf("RequestID() after WithRequestID(%q) = %q, want none for an invalid ID", invalid, client.RequestID(ctx))
		}
	}
}
