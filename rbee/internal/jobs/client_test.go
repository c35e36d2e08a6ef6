package jobs_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// breakingListener is a listener whose connections break after some hundred bytes.
type breakingListener struct {
	net.Listener
	breaks atomic.Int64
}

func (l *breakingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &breakingConn{Conn: conn, left: 600 + rand.IntN(2000), breaks: &l.breaks}, nil
}

type breakingConn struct {
	net.Conn
	left   int
	breaks *atomic.Int64
}

func (c *breakingConn) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:c.left])
	c.Conn.Close()
	c.breaks.Add(1)
	return n, net.ErrClosed
}

// TestBrokenStream checks that the client receives every event once and in order, although
// connections break repeatedly.
func TestBrokenStream(t *testing.T) {
	t.Parallel()
	const events = 400
	s := jobs.New(count(events), jobs.Options{})
	defer s.Close(t.Context())
	h := httptest.NewUnstartedServer(s)
	broken := &breakingListener{Listener: h.Listener}
	h.Listener = broken
	h.Start()
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
	n := 0
	report, err := c.Run(t.Context(), ops.HiveList{}, func(e ops.Event) {
		if n++; e.Message != fmt.Sprint("event ", n) {
			t.Fatalf("event %d = %q, want event %d", n, e.Message, n)
		}
	})
	if err != nil || n != events {
		t.Fatalf("Run() sent %d events and returned %v, want %d, nil", n, err, events)
	}
	if _, ok := report.(*ops.HiveListReport); !ok {
		t.Errorf("Run() = %T, want *HiveListReport", report)
	}
	if broken.breaks.Load() < 10 {
		t.Errorf("%d connections broke, want 10 or more", broken.breaks.Load())
	}
}

// TestProgressReplaced checks that a late reader receives only the latest progress.
func TestProgressReplaced(t *testing.T) {
	t.Parallel()
	_, c := serve(t, runnerFunc(func(_ context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
		for i := range int64(1000) {
			events(ops.Event{Type: ops.EventProgress, Hive: "a", Bytes: i, Total: 999})
		}
		events(ops.Event{Type: ops.EventProgress, Hive: "b", Bytes: 1})
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxEvents: 10})
	job := runJob(t, c)
	var got []string
	if _, err := c.Watch(t.Context(), job.ID, 0, func(e ops.Event) { got = append(got, fmt.Sprint(e.Hive, e.Bytes, e.Message)) }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[a999 b1]" {
		t.Errorf("Watch() sent %v, want [a999 b1]", got)
	}
}

// TestRestart checks the error of a client whose server restarts.
func TestRestart(t *testing.T) {
	t.Parallel()
	old := jobs.New(untilCanceled, jobs.Options{})
	first := httptest.NewServer(old)
	address := first.Listener.Addr().String()
	c := &client.Client{URL: first.URL, HTTP: &http.Client{Transport: &http.Transport{}}, Retry: 5 * time.Second}
	result := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		result <- err
	}()
	waittest.Until(t, "the job is running", func() bool { return old.Running() == 1 })
	first.Listener.Close()
	first.CloseClientConnections()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := jobs.New(emptyReport, jobs.Options{})
	second := &httptest.Server{Listener: l, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}}
	second.Start()
	defer second.Close()
	err = <-result
	if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "no longer exists: rbee was restarted") {
		t.Errorf("Run() = %v, want the error of a restarted server", err)
	}
	if err := old.Close(t.Context()); err != nil {
		t.Errorf("Close() = %v, want nil", err)
	}
	first.Close()
}

// TestServerGone checks that the client stops reconnecting after its retry time.
func TestServerGone(t *testing.T) {
	t.Parallel()
	s := jobs.New(untilCanceled, jobs.Options{})
	h := httptest.NewServer(s)
	defer s.Close(t.Context())
	c := &client.Client{URL: h.URL, HTTP: &http.Client{Transport: &http.Transport{}}, Retry: 100 * time.Millisecond}
	result := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		result <- err
	}()
	waittest.Until(t, "the job is running", func() bool { return s.Running() == 1 })
	h.Listener.Close()
	h.CloseClientConnections()
	var e *ops.Error
	if err := <-result; !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != "lost" || !strings.Contains(e.Message, "may still be running") {
		t.Errorf("Run() = %#v, want code unreachable, reason lost", err)
	}
	_, err := c.Run(t.Context(), ops.HiveList{}, nil)
	if !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != "refused" {
		t.Errorf("second Run() = %#v, want code unreachable, reason refused", err)
	}
}

// TestCancel checks the result of a canceled job.
func TestCancel(t *testing.T) {
	t.Parallel()
	partial := &ops.SyncReport{Status: ops.StatusPartial, Hives: []ops.HiveReport{{Alias: "gpu-1", Status: ops.HiveCanceled}}}
	for name, test := range map[string]struct {
		result func(error) (ops.Report, error)
		state  client.JobState
		report bool
	}{
		"partial report":  {func(error) (ops.Report, error) { return partial, nil }, client.JobCanceled, true},
		"complete report": {func(error) (ops.Report, error) { return &ops.SyncReport{}, nil }, client.JobDone, true},
		"error of ctx":    {func(err error) (ops.Report, error) { return nil, err }, client.JobCanceled, false},
		"another error":   {func(error) (ops.Report, error) { return nil, errors.New("the copy broke") }, client.JobCanceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := serve(t, runnerFunc(func(ctx context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
				events(note(1))
				<-ctx.Done()
				events(note(2))
				return test.result(ctx.Err())
			}), jobs.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			report, err := c.Run(ctx, ops.PackageSync{}, func(e ops.Event) {
				got = append(got, e.Message)
				cancel()
			})
			if len(got) != 2 {
				t.Errorf("Run() sent events %q, want two", got)
			}
			if test.report && (err != nil || report == nil) || !test.report && (ops.CodeOf(err) != ops.CodeCanceled || !errors.Is(err, context.Canceled)) {
				t.Errorf("Run() = %v, %v, want a report: %t, or code canceled", report, err, test.report)
			}
			list, err := c.Jobs(t.Context())
			if err != nil || list[0].State != test.state {
				t.Errorf("Jobs() = %+v, %v, want state %s", list, err, test.state)
			}
			if err := c.Cancel(t.Context(), list[0].ID); err != nil {
				t.Errorf("Cancel() of an ended job = %v, want nil", err)
			}
		})
	}
}

// TestCanceledByOtherClient checks that a client receives the error of a job that another
// client canceled.
func TestCanceledByOtherClient(t *testing.T) {
	t.Parallel()
	s, c := serve(t, untilCanceled, jobs.Options{})
	result := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		result <- err
	}()
	waittest.Until(t, "the job is running", func() bool { return s.Running() == 1 })
	list, err := c.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resp, body := do(t, "DELETE", c.URL+"/v1/jobs/"+list[0].ID, "")
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("DELETE = %s %s, want 202", resp.Status, body)
	}
	if err := <-result; ops.CodeOf(err) != ops.CodeCanceled {
		t.Errorf("Run() = %v, want code canceled", err)
	}
	if resp, _ = do(t, "DELETE", c.URL+"/v1/jobs/"+list[0].ID, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("second DELETE = %s, want 200", resp.Status)
	}
}

// loseResponse returns a handler that passes the first POST to one server and drops its
// response, and passes all later requests to another server.
func loseResponse(first, then http.Handler) http.Handler {
	var lost atomic.Bool
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || lost.Swap(true) {
			then.ServeHTTP(w, r)
			return
		}
		first.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	})
}

// TestLostResponse checks that a request is repeated after a lost response, and runs once.
func TestLostResponse(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	counting := runnerFunc(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		runs.Add(1)
		return &ops.HiveListReport{}, nil
	})
	s := jobs.New(counting, jobs.Options{})
	defer s.Close(t.Context())
	h := httptest.NewServer(loseResponse(s, s))
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client()}
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil {
		t.Errorf("Run() error = %v, want nil", err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("the operation ran %d times, want 1", n)
	}

	// A restarted server does not know whether the previous process started the job.
	restarted := jobs.New(counting, jobs.Options{})
	defer restarted.Close(t.Context())
	h2 := httptest.NewServer(loseResponse(s, restarted))
	defer h2.Close()
	_, err := (&client.Client{URL: h2.URL, HTTP: h2.Client()}).Run(t.Context(), ops.HiveList{}, nil)
	if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "cannot determine") {
		t.Errorf("Run() = %v, want an error about the lost connection", err)
	}
	waittest.Until(t, "the operation ran on the first server", func() bool { return runs.Load() == 2 })
	if list, err := (&client.Client{URL: h2.URL}).Jobs(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("Jobs() of the restarted server = %v, %v, want none", list, err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	_, c := serve(t, emptyReport, jobs.Options{})
	post := func(body string) (int, string) {
		resp, text := do(t, "POST", c.URL+"/v1/jobs", body, "Content-Type", "application/json", "Idempotency-Key", "k1")
		return resp.StatusCode, text
	}
	status, first := post(`{"operation":"hive_list"}`)
	if again, second := post(`{"operation":"hive_list"}`); status != 201 || again != 201 || first != second {
		t.Errorf("responses = %d %s and %d %s, want the same 201", status, first, again, second)
	}
	if status, text := post(`{"operation":"model_list"}`); status != 409 {
		t.Errorf("another operation with the key = %d %s, want 409", status, text)
	}
}
