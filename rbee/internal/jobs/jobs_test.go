package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// runnerFunc is a runner that calls itself.
type runnerFunc func(ctx context.Context, op ops.Operation, events ops.Handler) (ops.Report, error)

func (f runnerFunc) Run(ctx context.Context, op ops.Operation, events ops.Handler) (ops.Report, error) {
	return f(ctx, op, events)
}

// emptyReport returns an empty report immediately.
var emptyReport runnerFunc = func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
	return &ops.HiveListReport{}, nil
}

// untilCanceled runs until it is canceled.
var untilCanceled runnerFunc = func(ctx context.Context, _ ops.Operation, _ ops.Handler) (ops.Report, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// note returns event number n.
func note(n int) ops.Event {
	return ops.Event{Type: ops.EventNote, Message: fmt.Sprintf("event %d", n)}
}

// serve starts a jobs server and returns it with a client. The cleanup of the test closes
// the server.
func serve(t testing.TB, r ops.Runner, o jobs.Options) (*jobs.Server, *client.Client) {
	t.Helper()
	s := jobs.New(r, o)
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
		h.Close()
	})
	return s, &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
}

// do sends a request and returns the response and its body.
func do(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(data)
}

// TestRequestErrors checks the responses to invalid requests.
func TestRequestErrors(t *testing.T) {
	t.Parallel()
	_, c := serve(t, emptyReport, jobs.Options{MaxBody: 100})
	list := `{"operation":"hive_list"}`
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     ops.Code
		message                  string
	}{
		{"no content type", "POST", "/v1/jobs", list, nil, 415, ops.CodeBadOperation, "application/json"},
		{"wrong content type", "POST", "/v1/jobs", list, []string{"Content-Type", "text/plain"}, 415, ops.CodeBadOperation, "text/plain"},
		{"too large", "POST", "/v1/jobs", `{"operation":"hive_list","config_path":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, ops.CodeBadOperation, "want at most 100 B"},
		{"not JSON", "POST", "/v1/jobs", `hive_list`, nil, 400, ops.CodeBadOperation, "want a JSON object"},
		{"unknown field", "POST", "/v1/jobs", `{"operation":"hive_list","x":1}`, nil, 400, ops.CodeBadOperation, `"x"`},
		{"removed operation", "POST", "/v1/jobs", `{"operation":"hive_install"}`, nil, 400, ops.CodeRemovedOperation, "package_sync"},
		{"long key", "POST", "/v1/jobs", list, []string{"Idempotency-Key", strings.Repeat("k", 201)}, 400, ops.CodeBadOperation, "201"},
		{"bad age", "POST", "/v1/jobs", list, []string{"Idempotency-Age", "NaN"}, 400, ops.CodeBadOperation, "NaN"},
		{"method", "PUT", "/v1/jobs", "", nil, 405, ops.CodeUnsupported, "PUT"},
		{"method of a job", "POST", "/v1/jobs/1", "", nil, 405, ops.CodeUnsupported, "POST"},
		{"method of a stream", "DELETE", "/v1/jobs/1/stream", "", nil, 405, ops.CodeUnsupported, "DELETE"},
		{"unknown job", "GET", "/v1/jobs/1", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"cancel unknown job", "DELETE", "/v1/jobs/1", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"stream of unknown job", "GET", "/v1/jobs/1/stream", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"unknown path", "GET", "/v1/jobs/1/2/3", "", nil, 404, ops.CodeNotFound, "/v1/jobs/1/2/3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header := test.header
			if test.status != 415 {
				header = append([]string{"Content-Type", "application/json; charset=utf-8"}, header...)
			}
			resp, body := do(t, test.method, c.URL+test.path, test.body, header...)
			var parsed struct{ Error *ops.Error }
			if err := json.Unmarshal([]byte(body), &parsed); err != nil || parsed.Error == nil {
				t.Fatalf("%s %s = %s %q, want an error", test.method, test.path, resp.Status, body)
			}
			if resp.StatusCode != test.status || parsed.Error.Code != test.code || !strings.Contains(parsed.Error.Message, test.message) {
				t.Errorf("%s %s = %s %s, want status %d, code %s, message with %q", test.method, test.path, resp.Status, body, test.status, test.code, test.message)
			}
		})
	}
}

// TestJobDescription checks the description of jobs, and that it contains no secrets.
func TestJobDescription(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, runnerFunc(func(_ context.Context, op ops.Operation, events ops.Handler) (ops.Report, error) {
		events(note(1))
		<-release
		if op.Kind() == ops.KindModelDownload {
			return nil, &ops.Error{Code: ops.CodeNotFound, Hive: "gpu-1", Message: "no such model"}
		}
		return &ops.HiveListReport{Hives: []ops.HiveSummary{{Alias: "gpu-7"}}}, nil
	}), jobs.Options{})

	target := ops.Target{HiveID: "gpu-1"}
	var ids []string
	for _, op := range []ops.Operation{
		ops.ModelDownload{Target: target, Model: "https://u:hidden@hub/m?sig=hidden#sha256=x", Token: "hidden"},
		ops.HiveList{},
	} {
		job, err := c.Start(t.Context(), op)
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	if n := s.Running(); n != 2 {
		t.Errorf("Running() = %d, want 2", n)
	}
	_, body := do(t, "GET", c.URL+"/v1/jobs", "")
	if strings.Contains(body, "hidden") {
		t.Errorf("jobs = %s, want no secrets", body)
	}
	list, err := c.Jobs(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatalf("Jobs() = %+v, %v, want 2 jobs", list, err)
	}
	first := list[0]
	if first.ID != ids[0] || first.State != client.JobRunning || first.HiveID != "gpu-1" || first.Model != "https://hub/m" || !first.EndedAt.IsZero() {
		t.Errorf("first job = %+v, want a running job without secrets", first)
	}
	close(release)
	waittest.Until(t, "no job is running", func() bool { return s.Running() == 0 })

	failed, err := c.Job(t.Context(), ids[0])
	if err != nil || failed.State != client.JobFailed || ops.CodeOf(failed.Error) != ops.CodeNotFound || failed.Events != 1 || failed.EndedAt.IsZero() {
		t.Errorf("Job() = %+v, %v, want state failed, code not_found, 1 event", failed, err)
	}
	succeeded, err := c.Job(t.Context(), ids[1])
	if err != nil || succeeded.State != client.JobDone || succeeded.Outcome != ops.OutcomeOK {
		t.Errorf("Job() = %+v, %v, want state done", succeeded, err)
	}
	if r, ok := succeeded.Report.(*ops.HiveListReport); !ok || r.Hives[0].Alias != "gpu-7" {
		t.Errorf("Job() has report %+v, want hive gpu-7", succeeded.Report)
	}
	if list, err := c.Jobs(t.Context()); err != nil || list[1].Report != nil {
		t.Errorf("Jobs() = %+v, %v, want no reports", list, err)
	}
}

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// unencodable is a report that cannot be encoded as JSON.
type unencodable struct {
	F func() `json:"f"`
}

func (unencodable) Outcome() ops.Outcome { return ops.OutcomeOK }

// TestRunnerFails checks the result of a job for each way in which a runner can fail.
func TestRunnerFails(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		run  runnerFunc
		want string
	}{
		"panics": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			panic("the bees are out")
		}, "the bees are out"},
		"exits goroutine": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			runtime.Goexit()
			return nil, nil
		}, "exited its goroutine"},
		"no report": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return nil, nil
		}, "neither a report nor an error"},
		"nil report": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return (*ops.SyncReport)(nil), nil
		}, "panicked"},
		"unencodable": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return unencodable{}, nil
		}, "cannot encode the report"},
		"plain error": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return nil, errors.New("two\nlines")
		}, "two\nlines"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log syncBuffer
			s, c := serve(t, test.run, jobs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			_, err := c.Run(t.Context(), ops.HiveList{}, nil)
			if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Run() = %v, want code failed, message with %q", err, test.want)
			}
			list, err := c.Jobs(t.Context())
			if err != nil || len(list) != 1 || list[0].State != client.JobFailed {
				t.Errorf("Jobs() = %+v, %v, want one failed job", list, err)
			}
			waittest.Until(t, "no job is running", func() bool { return s.Running() == 0 })
			if name == "panics" && (!strings.Contains(log.String(), "the bees are out") || !strings.Contains(log.String(), "jobs_test.go")) {
				t.Errorf("log = %s, want message and stack of the panic", log.String())
			}
			_, stream := do(t, "GET", c.URL+"/v1/jobs/"+list[0].ID+"/stream", "")
			if last := stream[strings.LastIndex(strings.TrimSpace(stream), "\n"):]; !strings.HasPrefix(last, "\ndata: [ERROR] ") {
				t.Errorf("last line = %q, want [ERROR]", last)
			}
		})
	}
}

// TestEventAfterEnd checks that events after the end of a job are ignored.
func TestEventAfterEnd(t *testing.T) {
	t.Parallel()
	var handler ops.Handler
	_, c := serve(t, runnerFunc(func(_ context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
		events(note(1))
		handler = events
		return &ops.HiveListReport{}, nil
	}), jobs.Options{})
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Watch(t.Context(), job.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	handler(note(2))
	if job, err = c.Job(t.Context(), job.ID); err != nil || job.Events != 1 {
		t.Errorf("Job() has %d events, error %v, want 1, nil", job.Events, err)
	}
}

// TestMaxRunningAndClose checks that requests above the limit and after Close are rejected.
func TestMaxRunningAndClose(t *testing.T) {
	t.Parallel()
	s, c := serve(t, untilCanceled, jobs.Options{MaxRunning: 2})
	var first client.Job
	for range 2 {
		job, err := c.Start(t.Context(), ops.HiveList{})
		if err != nil {
			t.Fatal(err)
		}
		first = job
	}
	resp, body := do(t, "POST", c.URL+"/v1/jobs", `{"operation":"hive_list"}`, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "2 jobs are") {
		t.Errorf("third job = %s %s, want 429 with Retry-After", resp.Status, body)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}
	if n := s.Running(); n != 0 {
		t.Errorf("after Close() Running() = %d, want 0", n)
	}
	resp, body = do(t, "POST", c.URL+"/v1/jobs", `{"operation":"hive_list"}`, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("job after Close() = %s %s, want 503", resp.Status, body)
	}
	if job, err := c.Job(t.Context(), first.ID); err != nil || job.State != client.JobCanceled || job.Error.Code != ops.CodeCanceled {
		t.Errorf("Job() = %+v, %v, want state and code canceled", job, err)
	}
}

// TestCloseTimeout checks that Close returns an error for a job that ignores cancellation.
func TestCloseTimeout(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		<-release
		return &ops.HiveListReport{}, nil
	}), jobs.Options{})
	if _, err := c.Start(t.Context(), ops.HiveList{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time"))
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 jobs are still running: no time") {
		t.Errorf("Close() = %v, want an error about 1 running job", err)
	}
	close(release)
}

// TestKeepFinished checks that the oldest ended jobs are dropped.
func TestKeepFinished(t *testing.T) {
	t.Parallel()
	_, c := serve(t, emptyReport, jobs.Options{KeepFinished: 3})
	var ids []string
	for range 5 {
		job, err := c.Start(t.Context(), ops.HiveList{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Watch(t.Context(), job.ID, 0, nil); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, job.ID)
	}
	waittest.Until(t, "three jobs are left", func() bool {
		list, err := c.Jobs(t.Context())
		return err == nil && len(list) == 3 && list[0].ID == ids[2]
	})
	if _, err := c.Watch(t.Context(), ids[0], 0, nil); ops.CodeOf(err) != ops.CodeNotFound {
		t.Errorf("Watch() of a dropped job = %v, want code not_found", err)
	}
}

// TestSequentialJobs checks that a client that has read the end of a job can start the next
// one, with a limit of one running job.
func TestSequentialJobs(t *testing.T) {
	t.Parallel()
	_, c := serve(t, emptyReport, jobs.Options{MaxRunning: 1})
	for range 200 {
		if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil {
			t.Fatalf("Run() error = %v, want nil", err)
		}
	}
}

// TestReportIsACopy checks that later changes of a report do not affect the job.
func TestReportIsACopy(t *testing.T) {
	t.Parallel()
	report := &ops.HiveListReport{Hives: []ops.HiveSummary{{Alias: "then"}}}
	_, c := serve(t, runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) { return report, nil }), jobs.Options{})
	job := runJob(t, c)
	report.Hives[0].Alias = "later"
	job, err := c.Job(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := job.Report.(*ops.HiveListReport); !ok || r.Hives[0].Alias != "then" {
		t.Errorf("Job() has report %+v, want hive then", job.Report)
	}
}
