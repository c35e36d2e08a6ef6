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
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// cutting is a listener whose connections break after some hundred bytes.
type cutting struct {
	net.Listener
	cuts atomic.Int64
}

func (l *cutting) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &cut{Conn: conn, left: 600 + rand.IntN(2000), cuts: &l.cuts}, nil
}

type cut struct {
	net.Conn
	left int
	cuts *atomic.Int64
}

func (c *cut) Write(p []byte) (int, error) {
	if len(p) < c.left {
		c.left -= len(p)
		return c.Conn.Write(p)
	}
	n, _ := c.Conn.Write(p[:c.left])
	c.Conn.Close()
	c.cuts.Add(1)
	return n, net.ErrClosed
}

// Over a connection that breaks again and again every event comes once, in order.
func TestCutStream(t *testing.T) {
	t.Parallel()
	const events = 400
	s := jobs.New(count(events), jobs.Options{})
	defer s.Close(t.Context())
	h := httptest.NewUnstartedServer(s)
	broken := &cutting{Listener: h.Listener}
	h.Listener = broken
	h.Start()
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client(), Retry: 5 * time.Second}
	n := 0
	report, err := c.Run(t.Context(), ops.HiveList{}, func(e ops.Event) {
		if n++; e.Message != fmt.Sprint("event ", n) {
			t.Fatalf("%q at %d", e.Message, n)
		}
	})
	if err != nil || n != events {
		t.Fatalf("%d events, %v", n, err)
	}
	if _, ok := report.(*ops.HiveListReport); !ok {
		t.Errorf("report %T", report)
	}
	if broken.cuts.Load() < 10 {
		t.Errorf("only %d cuts", broken.cuts.Load())
	}
}

// Progress that a late reader did not see is told once, as it is now.
func TestProgressReplaced(t *testing.T) {
	t.Parallel()
	_, c := serve(t, script(func(_ context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
		for i := range int64(1000) {
			events(ops.Event{Type: ops.EventProgress, Hive: "a", Bytes: i, Total: 999})
		}
		events(ops.Event{Type: ops.EventProgress, Hive: "b", Bytes: 1})
		return &ops.HiveListReport{}, nil
	}), jobs.Options{MaxEvents: 10})
	job := finished(t, c)
	var got []string
	if _, err := c.Watch(t.Context(), job.ID, 0, func(e ops.Event) { got = append(got, fmt.Sprint(e.Hive, e.Bytes, e.Message)) }); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(got) != "[a999 b1]" {
		t.Errorf("%v", got)
	}
}

func TestRestart(t *testing.T) {
	t.Parallel()
	old := jobs.New(untilCanceled, jobs.Options{})
	first := httptest.NewServer(old)
	address := first.Listener.Addr().String()
	c := &client.Client{URL: first.URL, HTTP: &http.Client{Transport: &http.Transport{}}, Retry: 5 * time.Second}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		ended <- err
	}()
	eventually(t, "the job runs", func() bool { return old.Running() == 1 })
	first.Listener.Close()
	first.CloseClientConnections()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s := jobs.New(done, jobs.Options{})
	second := &httptest.Server{Listener: l, Config: &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}}
	second.Start()
	defer second.Close()
	err = <-ended
	if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "no longer exists: rbee was restarted") {
		t.Errorf("%v", err)
	}
	if err := old.Close(t.Context()); err != nil {
		t.Error(err)
	}
	first.Close()
}

// A server that stays away is given up.
func TestGone(t *testing.T) {
	t.Parallel()
	s := jobs.New(untilCanceled, jobs.Options{})
	h := httptest.NewServer(s)
	defer s.Close(t.Context())
	c := &client.Client{URL: h.URL, HTTP: &http.Client{Transport: &http.Transport{}}, Retry: 100 * time.Millisecond}
	ended := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		ended <- err
	}()
	eventually(t, "the job runs", func() bool { return s.Running() == 1 })
	h.Listener.Close()
	h.CloseClientConnections()
	var e *ops.Error
	if err := <-ended; !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != "lost" || !strings.Contains(e.Message, "may still be running") {
		t.Errorf("%#v", err)
	}
	_, err := c.Run(t.Context(), ops.HiveList{}, nil)
	if !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != "refused" {
		t.Errorf("%#v", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	partial := &ops.SyncReport{Status: ops.StatusPartial, Hives: []ops.HiveReport{{Alias: "gpu-1", Status: ops.HiveCanceled}}}
	for name, test := range map[string]struct {
		answer func(error) (ops.Report, error)
		state  client.JobState
		report bool
	}{
		"with a report":   {func(error) (ops.Report, error) { return partial, nil }, client.JobCanceled, true},
		"all was done":    {func(error) (ops.Report, error) { return &ops.SyncReport{}, nil }, client.JobDone, true},
		"with ctx's own":  {func(err error) (ops.Report, error) { return nil, err }, client.JobCanceled, false},
		"with some error": {func(error) (ops.Report, error) { return nil, errors.New("the copy broke") }, client.JobCanceled, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, c := serve(t, script(func(ctx context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
				events(note(1))
				<-ctx.Done()
				events(note(2))
				return test.answer(ctx.Err())
			}), jobs.Options{})
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var got []string
			report, err := c.Run(ctx, ops.PackageSync{}, func(e ops.Event) {
				got = append(got, e.Message)
				cancel()
			})
			if len(got) != 2 {
				t.Errorf("events %q", got)
			}
			if test.report && (err != nil || report == nil) || !test.report && (ops.CodeOf(err) != ops.CodeCanceled || !errors.Is(err, context.Canceled)) {
				t.Errorf("%v, %v", report, err)
			}
			list, err := c.Jobs(t.Context())
			if err != nil || list[0].State != test.state {
				t.Errorf("%+v, %v", list, err)
			}
			if err := c.Cancel(t.Context(), list[0].ID); err != nil {
				t.Errorf("canceling what has ended: %v", err)
			}
		})
	}
}

// Whoever watches a job learns that somebody else canceled it.
func TestCanceledByAnother(t *testing.T) {
	t.Parallel()
	s, c := serve(t, untilCanceled, jobs.Options{})
	ended := make(chan error, 1)
	go func() {
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		ended <- err
	}()
	eventually(t, "the job runs", func() bool { return s.Running() == 1 })
	list, err := c.Jobs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	resp, body := ask(t, "DELETE", c.URL+"/v1/jobs/"+list[0].ID, "")
	if resp.StatusCode != http.StatusAccepted {
		t.Errorf("%s %s", resp.Status, body)
	}
	if err := <-ended; ops.CodeOf(err) != ops.CodeCanceled {
		t.Errorf("%v", err)
	}
	if resp, _ = ask(t, "DELETE", c.URL+"/v1/jobs/"+list[0].ID, ""); resp.StatusCode != http.StatusOK {
		t.Errorf("again: %s", resp.Status)
	}
}

// losing hands the first POST to one server, loses its answer, and hands all that
// follows to another.
func losing(first, then http.Handler) http.Handler {
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

// A request whose answer was lost is sent again and done once.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	var runs atomic.Int64
	counting := script(func(context.Context, ops.Operation, ops.Handler) (ops.Report, error) {
		runs.Add(1)
		return &ops.HiveListReport{}, nil
	})
	s := jobs.New(counting, jobs.Options{})
	defer s.Close(t.Context())
	h := httptest.NewServer(losing(s, s))
	defer h.Close()
	c := &client.Client{URL: h.URL, HTTP: h.Client()}
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); err != nil {
		t.Error(err)
	}
	if n := runs.Load(); n != 1 {
		t.Errorf("done %d times", n)
	}

	// Another process cannot know whether the first one began it.
	restarted := jobs.New(counting, jobs.Options{})
	defer restarted.Close(t.Context())
	h2 := httptest.NewServer(losing(s, restarted))
	defer h2.Close()
	_, err := (&client.Client{URL: h2.URL, HTTP: h2.Client()}).Run(t.Context(), ops.HiveList{}, nil)
	if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "cannot tell") {
		t.Errorf("%v", err)
	}
	eventually(t, "it was done once more", func() bool { return runs.Load() == 2 })
	if list, err := (&client.Client{URL: h2.URL}).Jobs(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("done twice: %v %v", list, err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	t.Parallel()
	_, c := serve(t, done, jobs.Options{})
	post := func(body string) (int, string) {
		resp, answer := ask(t, "POST", c.URL+"/v1/jobs", body, "Content-Type", "application/json", "Idempotency-Key", "k1")
		return resp.StatusCode, answer
	}
	status, first := post(`{"operation":"hive_list"}`)
	if again, second := post(`{"operation":"hive_list"}`); status != 201 || again != 201 || first != second {
		t.Errorf("%d %s, then %d %s", status, first, again, second)
	}
	if status, answer := post(`{"operation":"model_list"}`); status != 409 {
		t.Errorf("%d %s", status, answer)
	}
}
