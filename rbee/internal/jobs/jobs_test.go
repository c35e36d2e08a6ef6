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
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// script is a runner.
type script func(ctx context.Context, op ops.Operation, events ops.Handler) (ops.Report, error)

func (s script) Run(ctx context.Context, op ops.Operation, events ops.Handler) (ops.Report, error) {
	return s(ctx, op, events)
}

// done ends at once.
var done script = func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
	return &ops.HiveListReport{}, nil
}

// untilCanceled runs until it is canceled.
var untilCanceled script = func(ctx context.Context, _ ops.Operation, _ ops.Handler) (ops.Report, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// note is the event with this number.
func note(n int) ops.Event {
	return ops.Event{Type: ops.EventNote, Message: fmt.Sprintf("event %d", n)}
}

// serve makes a jobs server and a client of it. Both end with the test.
func serve(t testing.TB, r ops.Runner, o jobs.Options) (*jobs.Server, *client.Client) {
	t.Helper()
	s := jobs.New(r, o)
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Close(ctx); err != nil {
			t.Error(err)
		}
		h.Close()
	})
	return s, &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
}

// eventually waits until the condition is true.
func eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !condition(); {
		if time.Now().After(end) {
			t.Fatalf("it never came to: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

// ask sends a request and returns the answer with its body.
func ask(t testing.TB, method, url, body string, header ...string) (*http.Response, string) {
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

func TestRefused(t *testing.T) {
	t.Parallel()
	_, c := serve(t, done, jobs.Options{MaxBody: 100})
	list := `{"operation":"hive_list"}`
	for _, test := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		code                     ops.Code
		message                  string
	}{
		{"no type", "POST", "/v1/jobs", list, nil, 415, ops.CodeBadOperation, "application/json"},
		{"a form", "POST", "/v1/jobs", list, []string{"Content-Type", "text/plain"}, 415, ops.CodeBadOperation, "text/plain"},
		{"too big", "POST", "/v1/jobs", `{"operation":"hive_list","config_path":"` + strings.Repeat("x", 1<<20) + `"}`, nil, 413, ops.CodeBadOperation, "100 bytes"},
		{"no JSON", "POST", "/v1/jobs", `hive_list`, nil, 400, ops.CodeBadOperation, "want a JSON object"},
		{"unknown field", "POST", "/v1/jobs", `{"operation":"hive_list","x":1}`, nil, 400, ops.CodeBadOperation, `"x"`},
		{"removed", "POST", "/v1/jobs", `{"operation":"hive_install"}`, nil, 400, ops.CodeRemovedOperation, "package_sync"},
		{"long key", "POST", "/v1/jobs", list, []string{"Idempotency-Key", strings.Repeat("k", 201)}, 400, ops.CodeBadOperation, "201"},
		{"bad age", "POST", "/v1/jobs", list, []string{"Idempotency-Age", "NaN"}, 400, ops.CodeBadOperation, "NaN"},
		{"method", "PUT", "/v1/jobs", "", nil, 405, ops.CodeUnsupported, "PUT"},
		{"method on one", "POST", "/v1/jobs/1", "", nil, 405, ops.CodeUnsupported, "POST"},
		{"method on a stream", "DELETE", "/v1/jobs/1/stream", "", nil, 405, ops.CodeUnsupported, "DELETE"},
		{"no job", "GET", "/v1/jobs/1", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"no job to cancel", "DELETE", "/v1/jobs/1", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"no stream", "GET", "/v1/jobs/1/stream", "", nil, 404, ops.CodeNotFound, `"1"`},
		{"elsewhere", "GET", "/v1/jobs/1/2/3", "", nil, 404, ops.CodeNotFound, "/v1/jobs/1/2/3"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			header := test.header
			if test.status != 415 {
				header = append([]string{"Content-Type", "application/json; charset=utf-8"}, header...)
			}
			resp, body := ask(t, test.method, c.URL+test.path, test.body, header...)
			var answer struct{ Error *ops.Error }
			if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Error == nil {
				t.Fatalf("%s: %q", resp.Status, body)
			}
			if resp.StatusCode != test.status || answer.Error.Code != test.code || !strings.Contains(answer.Error.Message, test.message) {
				t.Errorf("%s: %s", resp.Status, body)
			}
		})
	}
}

// A job is told of without what is secret in its operation.
func TestDescribed(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, script(func(_ context.Context, op ops.Operation, events ops.Handler) (ops.Report, error) {
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
		t.Errorf("%d run", n)
	}
	_, body := ask(t, "GET", c.URL+"/v1/jobs", "")
	if strings.Contains(body, "hidden") {
		t.Errorf("secrets in %s", body)
	}
	list, err := c.Jobs(t.Context())
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	first := list[0]
	if first.ID != ids[0] || first.State != client.JobRunning || first.HiveID != "gpu-1" || first.Model != "https://hub/m" || !first.EndedAt.IsZero() {
		t.Errorf("%+v", first)
	}
	close(release)
	eventually(t, "no job runs", func() bool { return s.Running() == 0 })

	failed, err := c.Job(t.Context(), ids[0])
	if err != nil || failed.State != client.JobFailed || ops.CodeOf(failed.Error) != ops.CodeNotFound || failed.Events != 1 || failed.EndedAt.IsZero() {
		t.Errorf("%+v, %v", failed, err)
	}
	well, err := c.Job(t.Context(), ids[1])
	if err != nil || well.State != client.JobDone || well.Outcome != ops.OutcomeOK {
		t.Errorf("%+v, %v", well, err)
	}
	if r, ok := well.Report.(*ops.HiveListReport); !ok || r.Hives[0].Alias != "gpu-7" {
		t.Errorf("report %+v", well.Report)
	}
	if list, err := c.Jobs(t.Context()); err != nil || list[1].Report != nil {
		t.Errorf("the list has reports: %v", err)
	}
}

// logs is a log that tests read while it is written.
type logs struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// unwritable is a report that JSON has no form for.
type unwritable struct {
	F func() `json:"f"`
}

func (unwritable) Outcome() ops.Outcome { return ops.OutcomeOK }

func TestRunnerMisbehaves(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		run  script
		want string
	}{
		"panics": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			panic("the bees are out")
		}, "the bees are out"},
		"exits": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			runtime.Goexit()
			return nil, nil
		}, "ended its goroutine"},
		"nothing": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return nil, nil
		}, "without a report"},
		"nil report": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return (*ops.SyncReport)(nil), nil
		}, "panicked"},
		"unwritable": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return unwritable{}, nil
		}, "cannot be written"},
		"plain error": {func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
			return nil, errors.New("two\nlines")
		}, "two\nlines"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logs
			s, c := serve(t, test.run, jobs.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			_, err := c.Run(t.Context(), ops.HiveList{}, nil)
			if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), test.want) {
				t.Errorf("%v", err)
			}
			list, err := c.Jobs(t.Context())
			if err != nil || len(list) != 1 || list[0].State != client.JobFailed {
				t.Errorf("%+v, %v", list, err)
			}
			eventually(t, "it does not run", func() bool { return s.Running() == 0 })
			if name == "panics" && (!strings.Contains(log.String(), "the bees are out") || !strings.Contains(log.String(), "jobs_test.go")) {
				t.Errorf("log without message and stack: %s", log.String())
			}
			_, stream := ask(t, "GET", c.URL+"/v1/jobs/"+list[0].ID+"/stream", "")
			if last := stream[strings.LastIndex(strings.TrimSpace(stream), "\n"):]; !strings.HasPrefix(last, "\ndata: [ERROR] ") {
				t.Errorf("last line %q", last)
			}
		})
	}
}

// Events that a runner sends after its end reach nobody.
func TestEventAfterEnd(t *testing.T) {
	t.Parallel()
	var late ops.Handler
	_, c := serve(t, script(func(_ context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
		events(note(1))
		late = events
		return &ops.HiveListReport{}, nil
	}), jobs.Options{})
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Watch(t.Context(), job.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	late(note(2))
	if job, err = c.Job(t.Context(), job.ID); err != nil || job.Events != 1 {
		t.Errorf("%d events, %v", job.Events, err)
	}
}

func TestTooManyAndClosed(t *testing.T) {
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
	resp, body := ask(t, "POST", c.URL+"/v1/jobs", `{"operation":"hive_list"}`, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "2 jobs run") {
		t.Errorf("%s %s", resp.Status, body)
	}
	if err := s.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := s.Running(); n != 0 {
		t.Errorf("%d run", n)
	}
	resp, body = ask(t, "POST", c.URL+"/v1/jobs", `{"operation":"hive_list"}`, "Content-Type", "application/json")
	if resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("%s %s", resp.Status, body)
	}
	if job, err := c.Job(t.Context(), first.ID); err != nil || job.State != client.JobCanceled || job.Error.Code != ops.CodeCanceled {
		t.Errorf("%+v, %v", job, err)
	}
}

// Close gives up on a job that does not listen, and says so.
func TestCloseStubborn(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	s, c := serve(t, script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		<-release
		return &ops.HiveListReport{}, nil
	}), jobs.Options{})
	if _, err := c.Start(t.Context(), ops.HiveList{}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("no time"))
	if err := s.Close(ctx); err == nil || !strings.Contains(err.Error(), "1 jobs have not ended: no time") {
		t.Errorf("%v", err)
	}
	close(release)
}

func TestForgotten(t *testing.T) {
	t.Parallel()
	_, c := serve(t, done, jobs.Options{KeepFinished: 3})
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
	eventually(t, "three are left", func() bool {
		list, err := c.Jobs(t.Context())
		return err == nil && len(list) == 3 && list[0].ID == ids[2]
	})
	if _, err := c.Watch(t.Context(), ids[0], 0, nil); ops.CodeOf(err) != ops.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// Whoever has read the end of a job may begin the next, also where only one may run.
func TestOneAfterAnother(t *testing.T) {
	t.Parallel()
	_, c := serve(t, done, jobs.Options{MaxRunning: 1})
	for range 200 {
		if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A report stays as it was when the job ended.
func TestReportIsACopy(t *testing.T) {
	t.Parallel()
	report := &ops.HiveListReport{Hives: []ops.HiveSummary{{Alias: "then"}}}
	_, c := serve(t, script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) { return report, nil }), jobs.Options{})
	job := finished(t, c)
	report.Hives[0].Alias = "later"
	job, err := c.Job(t.Context(), job.ID)
	if err != nil {
		t.Fatal(err)
	}
	if r, ok := job.Report.(*ops.HiveListReport); !ok || r.Hives[0].Alias != "then" {
		t.Errorf("%+v", job.Report)
	}
}
