package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	ops "github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
)

const token = "hunter2-hunter2"

// answering is a server that gives every request the same answer.
func answering(t *testing.T, status int, kind, body string) *client.Client {
	t.Helper()
	return handled(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", kind)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func handled(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &client.Client{URL: s.URL + "/", Token: token, HTTP: s.Client(), Retry: time.Second}
}

// calls does everything that a client can.
func calls(ctx context.Context, c *client.Client) map[string]error {
	out := map[string]error{}
	_, out["run"] = c.Run(ctx, ops.HiveList{}, nil)
	_, out["start"] = c.Start(ctx, ops.HiveList{})
	_, out["watch"] = c.Watch(ctx, "j/1", 0, nil)
	_, out["jobs"] = c.Jobs(ctx)
	_, out["job"] = c.Job(ctx, "j/1")
	out["cancel"] = c.Cancel(ctx, "j/1")
	out["health"] = c.Health(ctx)
	out["info"] = c.Info(ctx, new(struct{}))
	return out
}

func TestClientAnswers(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status     int
		kind, body string
		code       ops.Code
		reason     ops.Reason
		message    string
	}{
		"token":       {401, "text/plain", "no", ops.CodeFailed, "auth", "the token was refused by http://127.0.0.1:"},
		"a page":      {200, "text/html; charset=utf-8", "<html>", ops.CodeFailed, ops.ReasonOtherProgram, `answered "200 OK" with text/html, which is no rbee`},
		"not found":   {404, "text/plain", "404 page not found", ops.CodeFailed, ops.ReasonOtherProgram, `"404 Not Found" with text/plain, which is no rbee`},
		"no type":     {500, "", "", ops.CodeFailed, ops.ReasonOtherProgram, "which is no rbee"},
		"redirect":    {302, "", "", ops.CodeFailed, ops.ReasonOtherProgram, "302"},
		"other error": {400, "application/json", `{"error":"bad"}`, ops.CodeFailed, ops.ReasonOtherProgram, "no rbee"},
		"rbee's": {409, "application/json", `{"error":{"code":"locked","hive":"gpu-1","message":"held","problems":[{"message":"p"}]}}`,
			ops.CodeLocked, "", "hive gpu-1: held\n  p"},
		"no array": {200, "application/json", `[1]`, ops.CodeFailed, ops.ReasonOtherProgram, "no rbee"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for call, err := range calls(t.Context(), answering(t, test.status, test.kind, test.body)) {
				var e *ops.Error
				if !errors.As(err, &e) || e.Code != test.code || e.Reason != test.reason || !strings.Contains(err.Error(), test.message) {
					t.Errorf("%s: %#v: %v", call, err, err)
				}
				if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, token) {
					t.Errorf("%s shows the token: %s", call, text)
				}
			}
		})
	}
	for call, err := range calls(t.Context(), answering(t, 201, "application/json", `{}`)) {
		if (call == "run" || call == "start" || call == "watch") && (ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "no rbee")) {
			t.Errorf("%s: %v", call, err)
		}
	}
}

func TestClientUnreachable(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := "http://" + l.Addr().String()
	l.Close()
	dial := func(err error) *http.Client {
		return &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return nil, err }}}
	}
	for name, test := range map[string]struct {
		client client.Client
		reason ops.Reason
	}{
		"refused": {client.Client{URL: address}, "refused"},
		"resolve": {client.Client{URL: "http://gpu.invalid", HTTP: dial(&net.DNSError{Err: "no such host", Name: "gpu.invalid"})}, "resolve"},
		"timeout": {client.Client{URL: address, HTTP: dial(context.DeadlineExceeded)}, "timeout"},
		"other":   {client.Client{URL: "http://u:" + token + "@h", HTTP: dial(errors.New("the channel was rejected"))}, ops.ReasonFailed},
	} {
		test.client.Token = token
		for call, err := range calls(t.Context(), &test.client) { // at once: nothing was lost
			var e *ops.Error
			if !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != test.reason {
				t.Errorf("%s: %s: %#v", name, call, err)
			}
			if strings.Contains(fmt.Sprintf("%+v", err), token) {
				t.Errorf("%s: %s shows the token: %v", name, call, err)
			}
		}
	}
	for _, url := range []string{"", "127.0.0.1:8600", "ftp://h", "http://%zz:" + token + "@h", "\n"} {
		err := (&client.Client{URL: url}).Health(t.Context())
		if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "no URL") || strings.Contains(err.Error(), token) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestClientSends(t *testing.T) {
	t.Parallel()
	var seen []string
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		seen = append(seen, r.Method+" "+r.URL.EscapedPath()+" "+string(body))
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("%s: authorization %q", r.URL, r.Header.Get("Authorization"))
		}
		_, _ = io.WriteString(w, `{"job_id":"j/1","jobs":[{"id":"x","operation":"not_yet","report":{"a":1}}],"version":"v9"}`)
	})
	job, err := c.Start(t.Context(), ops.ModelGet{Target: ops.Target{HiveID: "gpu-1"}, ID: "org/repo"})
	if err != nil || job.ID != "j/1" || job.HiveID != "gpu-1" || job.Model != "org/repo" || job.State != client.JobRunning {
		t.Errorf("%+v, %v", job, err)
	}
	if list, err := c.Jobs(t.Context()); err != nil || len(list) != 1 || list[0].Operation != "not_yet" {
		t.Errorf("a newer rbee: %+v, %v", list, err)
	}
	var info struct{ Version string }
	if err := errors.Join(c.Cancel(t.Context(), job.ID), c.Health(t.Context()), c.Info(t.Context(), &info)); err != nil || info.Version != "v9" {
		t.Errorf("%+v, %v", info, err)
	}
	want := []string{
		`POST /v1/jobs {"operation":"model_get","hive_id":"gpu-1","id":"org/repo"}`,
		"GET /v1/jobs ", "DELETE /v1/jobs/j%2F1 ", "GET /health ", "GET /v1/info ",
	}
	if fmt.Sprint(seen) != fmt.Sprint(want) {
		t.Errorf("sent %q\nwant %q", seen, want)
	}
	if _, err := c.Run(t.Context(), ops.ModelGet{}, nil); ops.CodeOf(err) != ops.CodeBadOperation || len(seen) != len(want) {
		t.Errorf("an invalid operation: %v", err)
	}
	if _, err := c.Run(t.Context(), nil, nil); ops.CodeOf(err) != ops.CodeBadOperation {
		t.Errorf("no operation: %v", err)
	}
}

// streaming is a server of one job whose stream is this text.
func streaming(t *testing.T, text string) *client.Client {
	t.Helper()
	return handled(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"job_id":"j1"}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
	})
}

func TestClientStreams(t *testing.T) {
	t.Parallel()
	const one, two = "id: 1\nevent: event\ndata: {\"type\":\"note\",\"message\":\"one\"}\n\n", "id: 2\nevent: event\ndata: {\"message\":\"two\"}\n\n"
	const well = "event: result\ndata: {\"report\":{\"hives\":[]}}\n\ndata: [DONE]\n\n"
	for name, test := range map[string]struct {
		text, events string
		report       bool
		code         ops.Code
		message      string
	}{
		"well":          {one + two + well, "one two", true, "", ""},
		"twice":         {one + one + two + one + well, "one two", true, "", ""},
		"comments":      {": \n\n" + one + ": \n\n" + well, "one", true, "", ""},
		"newer":         {"id: 1\nevent: other\ndata: 1\n\n" + one + "data: hello\n\n" + well, "one", true, "", ""},
		"no end":        {one + "event: result\ndata: {\"report\":{}}\n\n", "one", true, "", ""},
		"error":         {one + "event: result\ndata: {\"error\":{\"code\":\"locked\",\"message\":\"held\"}}\n\ndata: [ERROR] held\n\n", "one", false, ops.CodeLocked, "held"},
		"both":          {"event: result\ndata: {\"report\":{},\"error\":{\"code\":\"failed\",\"message\":\"half\"}}\n\n", "", true, ops.CodeFailed, "half"},
		"no result":     {one + "data: [DONE]\n\n", "one", false, ops.CodeFailed, "without a result"},
		"empty result":  {"event: result\ndata: {}\n\n", "", false, ops.CodeFailed, "empty"},
		"bad event":     {"id: 1\nevent: event\ndata: {\n\n", "", false, ops.CodeFailed, "event 1"},
		"bad result":    {"event: result\ndata: no\n\n", "", false, ops.CodeFailed, "cannot be read"},
		"other report":  {"event: result\ndata: {\"report\":[1]}\n\n", "", false, ops.CodeFailed, "the report of hive_list"},
		"never an end":  {one, "one", false, ops.CodeUnreachable, "may go on"},
		"empty streams": {"", "", false, ops.CodeUnreachable, "may go on"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := streaming(t, test.text)
			c.Retry = 100 * time.Millisecond
			var events []string
			report, err := c.Run(t.Context(), ops.HiveList{}, func(e ops.Event) { events = append(events, e.Message) })
			if got := strings.Join(events, " "); got != test.events {
				t.Errorf("events %q", got)
			}
			if (report != nil) != test.report || ops.CodeOf(err) != test.code || err != nil && !strings.Contains(err.Error(), test.message) {
				t.Errorf("%v, %v", report, err)
			}
		})
	}
}

func TestClientDoesNotRetry(t *testing.T) {
	t.Parallel()
	var posts, streams atomic.Int64
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/health":
			_, _ = io.WriteString(w, "{}")
			return
		case r.Method == http.MethodPost:
			posts.Add(1)
		default:
			streams.Add(1)
		}
		panic(http.ErrAbortHandler)
	})
	c.Retry = -1
	if err := c.Health(t.Context()); err != nil { // leaves a connection, over which net/http would repeat by itself
		t.Fatal(err)
	}
	var e *ops.Error
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); !errors.As(err, &e) || e.Reason != "lost" || !strings.Contains(e.Message, "may have been begun") {
		t.Errorf("%#v", err)
	}
	if _, err := c.Watch(t.Context(), "j1", 0, nil); !errors.As(err, &e) || e.Reason != "lost" {
		t.Errorf("%#v", err)
	}
	if posts.Load() != 1 || streams.Load() < 1 { // the transport itself may repeat a GET
		t.Errorf("%d posts, %d streams", posts.Load(), streams.Load())
	}
}

// A repeated request says that it is one: the same key, and its age.
func TestClientRepeatsUnderTheSameKey(t *testing.T) {
	t.Parallel()
	var keys, ages []string
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		keys, ages = append(keys, r.Header.Get("Idempotency-Key")), append(ages, r.Header.Get("Idempotency-Age"))
		if len(keys) < 3 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, `{"job_id":"j1"}`)
	})
	if _, err := c.Start(t.Context(), ops.HiveList{}); err != nil {
		t.Fatal(err)
	}
	if len(keys) != 3 || keys[0] == "" || keys[1] != keys[0] || keys[2] != keys[0] || ages[0] != "" || !strings.HasPrefix(ages[2], "0.") {
		t.Errorf("keys %q, ages %q", keys, ages)
	}
	if _, err := c.Start(t.Context(), ops.HiveList{}); err != nil || keys[3] == keys[0] {
		t.Errorf("another request has the key of the first: %q, %v", keys, err)
	}
}

// When ctx ends while the job is being made, it is still canceled.
func TestClientCanceledWhileStarting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	deleted := make(chan struct{})
	c := handled(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			cancel() // before the answer
			_, _ = io.WriteString(w, `{"job_id":"j1"}`)
		case http.MethodDelete:
			close(deleted)
			_, _ = io.WriteString(w, `{"id":"j1"}`)
		default:
			<-deleted
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "event: result\ndata: {\"error\":{\"code\":\"canceled\",\"message\":\"canceled by request\"}}\n\ndata: [CANCELLED]\n\n")
		}
	})
	_, err := c.Run(ctx, ops.HiveList{}, nil)
	if ops.CodeOf(err) != ops.CodeCanceled || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-deleted:
	default:
		t.Error("the job was not canceled")
	}
	if _, err := c.Run(ctx, ops.HiveList{}, nil); ops.CodeOf(err) != ops.CodeCanceled {
		t.Errorf("with a ctx that has ended: %v", err)
	}
}

// transport answers requests without a network, for time that is not real.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func answer(kind string, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {kind}}, Body: body}
}

// silent is a body from which nothing comes until the request ends.
type silent struct{ ctx context.Context }

func (s silent) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

func (silent) Close() error { return nil }

// A stream from which nothing comes is asked for again, and given up in the end.
func TestClientSilence(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		streams := 0
		c := &client.Client{URL: "http://h", HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				return answer("application/json", io.NopCloser(strings.NewReader(`{"job_id":"j1"}`))), nil
			}
			streams++
			return answer("text/event-stream", silent{r.Context()}), nil
		})}}
		begun := time.Now()
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		if ops.CodeOf(err) != ops.CodeUnreachable || !strings.Contains(err.Error(), "nothing came for 45 seconds") {
			t.Errorf("%v", err)
		}
		if took := time.Since(begun); streams != 2 || took < 90*time.Second || took > 91*time.Second {
			t.Errorf("%d streams in %v", streams, took)
		}
	})
}

// A job that does not end when it is canceled is left after ten seconds, also by
// a server that does not even answer the cancellation.
func TestClientStubbornJob(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		deletes := 0
		c := &client.Client{URL: "http://h", HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			switch r.Method {
			case http.MethodPost:
				return answer("application/json", io.NopCloser(strings.NewReader(`{"job_id":"j1"}`))), nil
			case http.MethodDelete:
				deletes++
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			time.AfterFunc(time.Second, cancel)
			return answer("text/event-stream", silent{r.Context()}), nil
		})}}
		begun := time.Now()
		_, err := c.Run(ctx, ops.HiveList{}, nil)
		if ops.CodeOf(err) != ops.CodeCanceled || !strings.Contains(err.Error(), "job j1 has not ended") || deletes != 1 {
			t.Errorf("%v, %d deletes", err, deletes)
		}
		if took := time.Since(begun); took != 16*time.Second { // 1 s, 5 s for the cancellation, 10 s for the end
			t.Errorf("took %v", took)
		}
	})
}

// A job reads back as it was written.
func TestJobJSON(t *testing.T) {
	t.Parallel()
	job := client.NewJob("j1", ops.PackageSync{Scope: ops.Scope{Hives: ops.Aliases{"gpu-1"}}})
	job.State, job.Outcome, job.Events = client.JobDone, ops.OutcomeOK, 3
	job.Report = &ops.SyncReport{Status: ops.StatusSuccess}
	data, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	var back client.Job
	if err := json.Unmarshal(data, &back); err != nil || back.HiveID != "gpu-1" || back.Events != 3 {
		t.Errorf("%+v, %v", back, err)
	}
	if r, ok := back.Report.(*ops.SyncReport); !ok || r.Status != ops.StatusSuccess {
		t.Errorf("report %#v", back.Report)
	}
	for want, op := range map[string]ops.Operation{
		"a  ":              ops.HiveStart{Alias: "a"},
		"a org/repo:Q4@x ": ops.ModelDelete{Target: ops.Target{HiveID: "a"}, ID: "org/repo:Q4@x"},
		"  echo-1":         ops.WorkerProcessGet{WorkerRef: ops.WorkerRef{ID: "echo-1"}},
		" m ":              ops.Infer{Model: "m", Prompt: "secret"},
	} {
		j := client.NewJob("j", op)
		if got := j.HiveID + " " + j.Model + " " + j.Worker; got != want {
			t.Errorf("%s: %q", op.Kind(), got)
		}
	}
}
