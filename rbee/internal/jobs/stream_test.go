package jobs_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// count returns a runner that sends n events.
func count(n int) runnerFunc {
	return func(_ context.Context, _ ops.Operation, events ops.Handler) (ops.Report, error) {
		for i := range n {
			events(note(i + 1))
		}
		return &ops.HiveListReport{}, nil
	}
}

// runJob starts a job and waits until it ends.
func runJob(t testing.TB, c *client.Client) client.Job {
	t.Helper()
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Watch(t.Context(), job.ID, 0, nil); err != nil {
		t.Fatal(err)
	}
	return job
}

// TestStreamFormat checks the exact bytes of a stream.
func TestStreamFormat(t *testing.T) {
	t.Parallel()
	_, c := serve(t, count(2), jobs.Options{})
	job := runJob(t, c)
	resp, body := do(t, "GET", c.URL+"/v1/jobs/"+job.ID+"/stream", "")
	want := `id: 1
event: event
data: {"time":"0001-01-01T00:00:00Z","type":"note","message":"event 1"}

id: 2
event: event
data: {"time":"0001-01-01T00:00:00Z","type":"note","message":"event 2"}

event: result
data: {"operation":"hive_list","report":{"hives":null}}

data: [DONE]

`
	if body != want {
		t.Errorf("stream = %s\nwant %s", body, want)
	}
	if resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("header = %v, want text/event-stream, no-store", resp.Header)
	}
}

var idLine = regexp.MustCompile(`(?m)^id: (\d+)$`)

func TestResumeIDs(t *testing.T) {
	t.Parallel()
	_, c := serve(t, count(5), jobs.Options{})
	url := c.URL + "/v1/jobs/" + runJob(t, c).ID + "/stream"
	for _, test := range []struct {
		query, header string
		status        int
		want          string
	}{
		{"", "", 200, "1 2 3 4 5"},
		{"?after=0", "", 200, "1 2 3 4 5"},
		{"?after=3", "", 200, "4 5"},
		{"?after=1", "4", 200, "5"}, // the header overrides the query
		{"", "5", 200, ""},
		{"", "6", 400, ""},
		{"?after=-1", "", 400, ""},
		{"", "x", 400, ""},
	} {
		var header []string
		if test.header != "" {
			header = []string{"Last-Event-ID", test.header}
		}
		resp, body := do(t, "GET", url+test.query, "", header...)
		var ids []string
		for _, m := range idLine.FindAllStringSubmatch(body, -1) {
			ids = append(ids, m[1])
		}
		if got := strings.Join(ids, " "); resp.StatusCode != test.status || got != test.want {
			t.Errorf("stream with query %q, Last-Event-ID %q = %s, IDs %q, want status %d, IDs %q", test.query, test.header, resp.Status, got, test.status, test.want)
		}
		if test.status == 200 && !strings.HasSuffix(body, "data: [DONE]\n\n") {
			t.Errorf("stream with query %q, Last-Event-ID %q = %q, want [DONE] at the end", test.query, test.header, body)
		}
	}
}

// TestBufferOverflow checks that a note replaces dropped events.
func TestBufferOverflow(t *testing.T) {
	t.Parallel()
	_, c := serve(t, count(25), jobs.Options{MaxEvents: 10})
	job := runJob(t, c)
	for after, want := range map[int64]string{
		0:  "up to 15 events are missing",
		12: "up to 3 events are missing",
		15: "event 16",
		20: "event 21",
	} {
		var got []string
		if _, err := c.Watch(t.Context(), job.ID, after, func(e ops.Event) { got = append(got, e.Message) }); err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(got[0], want) || got[len(got)-1] != "event 25" {
			t.Errorf("Watch() after %d sent %q, want %q to event 25", after, got, want)
		}
		if wantLen := 25 - max(int(after), 15) + btoi(after < 15); len(got) != wantLen {
			t.Errorf("Watch() after %d sent %d events, want %d", after, len(got), wantLen)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestSlowReader checks that a slow reader delays neither the job nor other readers.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	const events = 50_000
	proceed := make(chan struct{})
	s, c := serve(t, runnerFunc(func(_ context.Context, _ ops.Operation, handle ops.Handler) (ops.Report, error) {
		<-proceed
		padding := strings.Repeat("x", 300) // in total much more than the connections buffer
		for i := range events {
			e := note(i + 1)
			e.Text = padding
			handle(e)
		}
		return &ops.HiveListReport{}, nil
	}), jobs.Options{})
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/v1/jobs/"+job.ID+"/stream", nil)
	slow, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	close(proceed)
	waittest.Until(t, "the job has ended", func() bool { return s.Running() == 0 })
	var last string
	if _, err := c.Watch(t.Context(), job.ID, 0, func(e ops.Event) { last = e.Message }); err != nil || last != fmt.Sprint("event ", events) {
		t.Errorf("Watch() of another reader: last event = %q, error = %v, want event %d, nil", last, err, events)
	}

	// The slow reader receives the events in its connection, the buffered ones, and the result.
	lines, before, missing := bufio.NewScanner(slow.Body), 0, 0
	var line string
	for lines.Scan() {
		if lines.Text() == "" {
			continue
		}
		line = lines.Text()
		if id, ok := strings.CutPrefix(line, "id: "); ok {
			n, _ := strconv.Atoi(id)
			if n <= before {
				t.Fatalf("event %d after event %d, want increasing IDs", n, before)
			}
			before = n
		}
		missing += strings.Count(line, "events are missing")
	}
	if line != "data: [DONE]" || before != events || missing == 0 {
		t.Errorf("slow reader: last line = %q, last event = %d, %d notes, error %v, want [DONE], %d, one or more notes", line, before, missing, lines.Err(), events)
	}
}

func TestManyReaders(t *testing.T) {
	t.Parallel()
	const events, readers = 2000, 20
	started := make(chan struct{})
	_, c := serve(t, runnerFunc(func(ctx context.Context, op ops.Operation, handle ops.Handler) (ops.Report, error) {
		<-started
		return count(events)(ctx, op, handle)
	}), jobs.Options{})
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for i := range readers {
		all.Go(func() {
			n := 0
			report, err := c.Watch(t.Context(), job.ID, 0, func(e ops.Event) {
				if n++; e.Message != fmt.Sprint("event ", n) {
					t.Errorf("reader %d: event %d = %q, want event %d", i, n, e.Message, n)
				}
			})
			if err != nil || n != events || report == nil {
				t.Errorf("reader %d: Watch() = %v, %v after %d events, want a report after %d", i, report, err, n, events)
			}
		})
		if i == readers/2 {
			close(started)
		}
	}
	all.Wait()
}

// TestHeartbeat checks that the server sends a comment every 15 seconds on an idle stream.
func TestHeartbeat(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := jobs.New(untilCanceled, jobs.Options{})
		post := httptest.NewRequest(http.MethodPost, "/v1/jobs", strings.NewReader(`{"operation":"hive_list"}`))
		post.Header.Set("Content-Type", "application/json")
		created := httptest.NewRecorder()
		s.ServeHTTP(created, post)

		stream := httptest.NewRecorder()
		streamEnded := make(chan struct{})
		go func() {
			defer close(streamEnded)
			s.ServeHTTP(stream, httptest.NewRequest(http.MethodGet, created.Header().Get("Location")+"/stream", nil))
		}()
		waittest.Advance(31 * time.Second)
		if got := stream.Body.String(); got != ": \n\n: \n\n" {
			t.Errorf("stream after 31 s = %q, want two comments", got)
		}
		if err := s.Close(t.Context()); err != nil {
			t.Errorf("Close() = %v, want nil", err)
		}
		<-streamEnded
		if got := stream.Body.String(); !strings.HasSuffix(got, "\ndata: [CANCELLED]\n\n") {
			t.Errorf("stream at the end = %q, want [CANCELLED]", got)
		}
		waittest.Advance(11 * time.Minute) // until the timer that drops the job fires
	})
}

// TestReaderDisconnects checks that the request of a reader ends when the reader disconnects,
// but not the job.
func TestReaderDisconnects(t *testing.T) {
	t.Parallel()
	s := jobs.New(untilCanceled, jobs.Options{})
	requested, returned := make(chan struct{}), make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			close(requested)
		}
		s.ServeHTTP(w, r)
		if r.Method == http.MethodGet {
			close(returned)
		}
	}))
	defer h.Close()
	defer s.Close(t.Context())
	c := &client.Client{URL: h.URL}
	job, err := c.Start(t.Context(), ops.HiveList{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-requested // the handler must have started before the client cancels
		cancel()
	}()
	if _, err := c.Watch(ctx, job.ID, 0, nil); ops.CodeOf(err) != ops.CodeCanceled {
		t.Errorf("Watch() = %v, want code canceled", err)
	}
	<-returned
	if s.Running() != 1 {
		t.Errorf("Running() = %d after the reader disconnected, want 1", s.Running())
	}
}

// TestNoFlush checks the error of a server whose handler cannot flush.
func TestNoFlush(t *testing.T) {
	t.Parallel()
	s := jobs.New(emptyReport, jobs.Options{})
	defer s.Close(t.Context())
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.ServeHTTP(struct{ http.ResponseWriter }{w}, r) // hides Flush and Unwrap
	}))
	defer h.Close()
	if _, err := (&client.Client{URL: h.URL}).Run(t.Context(), ops.HiveList{}, nil); err == nil || !strings.Contains(err.Error(), "cannot stream") {
		t.Errorf("Run() = %v, want an error about streaming", err)
	}
}

func BenchmarkStream(b *testing.B) {
	_, c := serve(b, count(b.N), jobs.Options{MaxEvents: 1 << 30})
	n := 0
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := c.Run(b.Context(), ops.HiveList{}, func(ops.Event) { n++ }); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "events/s")
}
