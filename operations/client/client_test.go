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

// staticClient returns a client of a server that gives every request the same response.
func staticClient(t *testing.T, status int, contentType, body string) *client.Client {
	t.Helper()
	return newClient(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

// newClient returns a client of a server with the given handler.
func newClient(t *testing.T, h http.HandlerFunc) *client.Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return &client.Client{URL: s.URL + "/", Token: token, HTTP: s.Client(), Retry: time.Second}
}

// callAll calls every method of a client and returns the errors by method name.
func callAll(ctx context.Context, c *client.Client) map[string]error {
	out := map[string]error{}
	_, out["Run"] = c.Run(ctx, ops.HiveList{}, nil)
	_, out["Start"] = c.Start(ctx, ops.HiveList{})
	_, out["Watch"] = c.Watch(ctx, "j/1", 0, nil)
	_, out["Jobs"] = c.Jobs(ctx)
	_, out["Job"] = c.Job(ctx, "j/1")
	out["Cancel"] = c.Cancel(ctx, "j/1")
	out["Health"] = c.Health(ctx)
	out["Info"] = c.Info(ctx, new(struct{}))
	return out
}

func TestClientResponseErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		status            int
		contentType, body string
		code              ops.Code
		reason            ops.Reason
		message           string
	}{
		"token rejected":       {401, "text/plain", "no", ops.CodeFailed, "auth", " rejected the token"},
		"HTML page":            {200, "text/html; charset=utf-8", "<html>", ops.CodeFailed, ops.ReasonNotRbee, `is not rbee: it responded with "200 OK" and text/html`},
		"not found":            {404, "text/plain", "404 page not found", ops.CodeFailed, ops.ReasonNotRbee, `is not rbee: it responded with "404 Not Found" and text/plain`},
		"missing content type": {500, "", "", ops.CodeFailed, ops.ReasonNotRbee, "is not rbee"},
		"redirect":             {302, "", "", ops.CodeFailed, ops.ReasonNotRbee, "302"},
		"other error":          {400, "application/json", `{"error":"bad"}`, ops.CodeFailed, ops.ReasonNotRbee, "is not rbee"},
		"error of rbee": {409, "application/json", `{"error":{"code":"locked","hive":"gpu-1","message":"held","problems":[{"message":"p"}]}}`,
			ops.CodeLocked, "", "hive gpu-1: held\n  p"},
		"array": {200, "application/json", `[1]`, ops.CodeFailed, ops.ReasonNotRbee, "is not rbee"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for method, err := range callAll(t.Context(), staticClient(t, test.status, test.contentType, test.body)) {
				var e *ops.Error
				if !errors.As(err, &e) || e.Code != test.code || e.Reason != test.reason || !strings.Contains(err.Error(), test.message) {
					t.Errorf("%s() returned %#v (%v), want code %s, reason %q and message %q", method, err, err, test.code, test.reason, test.message)
				}
				if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, token) {
					t.Errorf("%s() returned error %s, want no token in it", method, text)
				}
			}
		})
	}
	for method, err := range callAll(t.Context(), staticClient(t, 201, "application/json", `{}`)) {
		if (method == "Run" || method == "Start" || method == "Watch") && (ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "is not rbee")) {
			t.Errorf("%s() with an empty response returned %v, want an error that the server is not rbee", method, err)
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
		for method, err := range callAll(t.Context(), &test.client) { // without retries
			var e *ops.Error
			if !errors.As(err, &e) || e.Code != ops.CodeUnreachable || e.Reason != test.reason {
				t.Errorf("%s: %s() returned %#v, want code %s and reason %q", name, method, err, ops.CodeUnreachable, test.reason)
			}
			if strings.Contains(fmt.Sprintf("%+v", err), token) {
				t.Errorf("%s: %s() returned error %v, want no token in it", name, method, err)
			}
		}
	}
	for _, url := range []string{"", "127.0.0.1:8600", "ftp://h", "http://%zz:" + token + "@h", "\n"} {
		err := (&client.Client{URL: url}).Health(t.Context())
		if ops.CodeOf(err) != ops.CodeFailed || !strings.Contains(err.Error(), "invalid URL") || strings.Contains(err.Error(), token) {
			t.Errorf("Health() with URL %q returned %v, want an error about the URL, without the token", url, err)
		}
	}
}

func TestClientRequests(t *testing.T) {
	t.Parallel()
	var requests []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests = append(requests, r.Method+" "+r.URL.EscapedPath()+" "+string(body))
		if r.Header.Get("Authorization") != "Bearer "+token {
			t.Errorf("request for %s has Authorization %q, want the token", r.URL, r.Header.Get("Authorization"))
		}
		_, _ = io.WriteString(w, `{"job_id":"j/1","jobs":[{"id":"x","operation":"not_yet","report":{"a":1}}],"version":"v9"}`)
	})
	job, err := c.Start(t.Context(), ops.ModelGet{Target: ops.Target{HiveID: "gpu-1"}, ID: "org/repo"})
	if err != nil || job.ID != "j/1" || job.HiveID != "gpu-1" || job.Model != "org/repo" || job.State != client.JobRunning {
		t.Errorf("Start(ModelGet) = %+v, %v, want running job j/1 for model org/repo on gpu-1", job, err)
	}
	if list, err := c.Jobs(t.Context()); err != nil || len(list) != 1 || list[0].Operation != "not_yet" {
		t.Errorf("Jobs() = %+v, %v, want one job with the unknown operation not_yet", list, err)
	}
	var info struct{ Version string }
	if err := errors.Join(c.Cancel(t.Context(), job.ID), c.Health(t.Context()), c.Info(t.Context(), &info)); err != nil || info.Version != "v9" {
		t.Errorf("Cancel(), Health() and Info() returned %+v, %v, want version v9", info, err)
	}
	want := []string{
		`POST /v1/jobs {"operation":"model_get","hive_id":"gpu-1","id":"org/repo"}`,
		"GET /v1/jobs ", "DELETE /v1/jobs/j%2F1 ", "GET /health ", "GET /v1/info ",
	}
	if fmt.Sprint(requests) != fmt.Sprint(want) {
		t.Errorf("requests = %q\nwant %q", requests, want)
	}
	if _, err := c.Run(t.Context(), ops.ModelGet{}, nil); ops.CodeOf(err) != ops.CodeBadOperation || len(requests) != len(want) {
		t.Errorf("Run(invalid operation) returned %v after %d requests, want code %s and no request", err, len(requests)-len(want), ops.CodeBadOperation)
	}
	if _, err := c.Run(t.Context(), nil, nil); ops.CodeOf(err) != ops.CodeBadOperation {
		t.Errorf("Run(nil) returned %v, want code %s", err, ops.CodeBadOperation)
	}
}

// streamClient returns a client of a server with one job that has the given stream.
func streamClient(t *testing.T, text string) *client.Client {
	t.Helper()
	return newClient(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.WriteString(w, `{"job_id":"j1"}`)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, text)
	})
}

func TestClientRunReadsStream(t *testing.T) {
	t.Parallel()
	const one, two = "id: 1\nevent: event\ndata: {\"type\":\"note\",\"message\":\"one\"}\n\n", "id: 2\nevent: event\ndata: {\"message\":\"two\"}\n\n"
	const end = "event: result\ndata: {\"report\":{\"hives\":[]}}\n\ndata: [DONE]\n\n"
	for name, test := range map[string]struct {
		text, events string
		report       bool
		code         ops.Code
		message      string
	}{
		"report":             {one + two + end, "one two", true, "", ""},
		"repeated events":    {one + one + two + one + end, "one two", true, "", ""},
		"comments":           {": \n\n" + one + ": \n\n" + end, "one", true, "", ""},
		"unknown events":     {"id: 1\nevent: other\ndata: 1\n\n" + one + "data: hello\n\n" + end, "one", true, "", ""},
		"missing end marker": {one + "event: result\ndata: {\"report\":{}}\n\n", "one", true, "", ""},
		"error":              {one + "event: result\ndata: {\"error\":{\"code\":\"locked\",\"message\":\"held\"}}\n\ndata: [ERROR] held\n\n", "one", false, ops.CodeLocked, "held"},
		"report and error":   {"event: result\ndata: {\"report\":{},\"error\":{\"code\":\"failed\",\"message\":\"half\"}}\n\n", "", true, ops.CodeFailed, "half"},
		"no result":          {one + "data: [DONE]\n\n", "one", false, ops.CodeFailed, "without a result"},
		"empty result":       {"event: result\ndata: {}\n\n", "", false, ops.CodeFailed, "empty"},
		"malformed event":    {"id: 1\nevent: event\ndata: {\n\n", "", false, ops.CodeFailed, "event 1"},
		"malformed result":   {"event: result\ndata: no\n\n", "", false, ops.CodeFailed, "cannot read the events"},
		"invalid report":     {"event: result\ndata: {\"report\":[1]}\n\n", "", false, ops.CodeFailed, "the report of hive_list"},
		"truncated stream":   {one, "one", false, ops.CodeUnreachable, "may still be running"},
		"empty stream":       {"", "", false, ops.CodeUnreachable, "may still be running"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := streamClient(t, test.text)
			c.Retry = 100 * time.Millisecond
			var events []string
			report, err := c.Run(t.Context(), ops.HiveList{}, func(e ops.Event) { events = append(events, e.Message) })
			if got := strings.Join(events, " "); got != test.events {
				t.Errorf("Run() sent events %q, want %q", got, test.events)
			}
			if (report != nil) != test.report || ops.CodeOf(err) != test.code || err != nil && !strings.Contains(err.Error(), test.message) {
				t.Errorf("Run() = %v, %v, want a report: %t, code %q and message %q", report, err, test.report, test.code, test.message)
			}
		})
	}
}

func TestClientNegativeRetryDisablesRetries(t *testing.T) {
	t.Parallel()
	var posts, streams atomic.Int64
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
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
	if err := c.Health(t.Context()); err != nil { // opens a connection; net/http repeats requests only on reused ones
		t.Fatal(err)
	}
	var e *ops.Error
	if _, err := c.Run(t.Context(), ops.HiveList{}, nil); !errors.As(err, &e) || e.Reason != "lost" || !strings.Contains(e.Message, "the operation may have started") {
		t.Errorf("Run() returned %#v, want reason lost and a note that the operation may have started", err)
	}
	if _, err := c.Watch(t.Context(), "j1", 0, nil); !errors.As(err, &e) || e.Reason != "lost" {
		t.Errorf("Watch() returned %#v, want reason lost", err)
	}
	if posts.Load() != 1 || streams.Load() < 1 { // the transport itself may repeat a GET
		t.Errorf("server received %d POST and %d stream requests, want 1 and at least 1", posts.Load(), streams.Load())
	}
}

func TestClientRepeatsRequestWithSameKey(t *testing.T) {
	t.Parallel()
	var keys, ages []string
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
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
		t.Errorf("three requests had keys %q and ages %q, want equal keys and an age on repeated requests", keys, ages)
	}
	if _, err := c.Start(t.Context(), ops.HiveList{}); err != nil || keys[3] == keys[0] {
		t.Errorf("second Start() used keys %q (error %v), want a new key", keys, err)
	}
}

// TestClientCancelsJobWhileStarting checks that Run cancels a job if ctx ends before the
// response to the request that starts it.
func TestClientCancelsJobWhileStarting(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	deleted := make(chan struct{})
	c := newClient(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodPost:
			cancel() // before the response
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
		t.Errorf("Run() returned %v, want code %s and context.Canceled", err, ops.CodeCanceled)
	}
	select {
	case <-deleted:
	default:
		t.Error("Run() sent no request to cancel the job, want one")
	}
	if _, err := c.Run(ctx, ops.HiveList{}, nil); ops.CodeOf(err) != ops.CodeCanceled {
		t.Errorf("Run() with a canceled context returned %v, want code %s", err, ops.CodeCanceled)
	}
}

// transport responds to requests without a network, for tests with synctest.
type transport func(*http.Request) (*http.Response, error)

func (f transport) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func okResponse(contentType string, body io.ReadCloser) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Status: "200 OK", Header: http.Header{"Content-Type": {contentType}}, Body: body}
}

// blockingBody is a body whose reads block until the request is canceled.
type blockingBody struct{ ctx context.Context }

func (b blockingBody) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, b.ctx.Err()
}

func (blockingBody) Close() error { return nil }

// TestClientIdleStream checks that Run reconnects an idle stream once and then fails.
func TestClientIdleStream(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		streams := 0
		c := &client.Client{URL: "http://h", HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPost {
				return okResponse("application/json", io.NopCloser(strings.NewReader(`{"job_id":"j1"}`))), nil
			}
			streams++
			return okResponse("text/event-stream", blockingBody{r.Context()}), nil
		})}}
		start := time.Now()
		_, err := c.Run(t.Context(), ops.HiveList{}, nil)
		if ops.CodeOf(err) != ops.CodeUnreachable || !strings.Contains(err.Error(), "no data received for 45 seconds") {
			t.Errorf("Run() returned %v, want code %s and the idle timeout", err, ops.CodeUnreachable)
		}
		if elapsed := time.Since(start); streams != 2 || elapsed < 90*time.Second || elapsed > 91*time.Second {
			t.Errorf("Run() opened %d streams in %v, want 2 in 90 to 91 seconds", streams, elapsed)
		}
	})
}

// TestClientJobIgnoresCancel checks that Run returns 10 seconds after the cancellation if
// the job does not end and the server does not respond to the cancellation.
func TestClientJobIgnoresCancel(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		deletes := 0
		c := &client.Client{URL: "http://h", HTTP: &http.Client{Transport: transport(func(r *http.Request) (*http.Response, error) {
			switch r.Method {
			case http.MethodPost:
				return okResponse("application/json", io.NopCloser(strings.NewReader(`{"job_id":"j1"}`))), nil
			case http.MethodDelete:
				deletes++
				<-r.Context().Done()
				return nil, r.Context().Err()
			}
			time.AfterFunc(time.Second, cancel)
			return okResponse("text/event-stream", blockingBody{r.Context()}), nil
		})}}
		start := time.Now()
		_, err := c.Run(ctx, ops.HiveList{}, nil)
		if ops.CodeOf(err) != ops.CodeCanceled || !strings.Contains(err.Error(), "job j1 has not ended") || deletes != 1 {
			t.Errorf("Run() returned %v after %d DELETE requests, want code %s after 1", err, deletes, ops.CodeCanceled)
		}
		if elapsed := time.Since(start); elapsed != 16*time.Second { // 1 s, then cancelTimeout and cancelGracePeriod
			t.Errorf("Run() took %v, want 16s", elapsed)
		}
	})
}

func TestJobJSON(t *testing.T) {
	t.Parallel()
	job := client.NewJob("j1", ops.PackageSync{Scope: ops.Scope{Hives: ops.Aliases{"gpu-1"}}})
	job.State, job.Outcome, job.Events = client.JobDone, ops.OutcomeOK, 3
	job.Report = &ops.SyncReport{Status: ops.StatusSuccess}
	data, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	var decoded client.Job
	if err := json.Unmarshal(data, &decoded); err != nil || decoded.HiveID != "gpu-1" || decoded.Events != 3 {
		t.Errorf("json.Unmarshal(%s) = %+v, %v, want %+v", data, decoded, err, job)
	}
	if r, ok := decoded.Report.(*ops.SyncReport); !ok || r.Status != ops.StatusSuccess {
		t.Errorf("json.Unmarshal(%s) has report %#v, want %#v", data, decoded.Report, job.Report)
	}
	for want, op := range map[string]ops.Operation{
		"a  ":              ops.HiveStart{Alias: "a"},
		"a org/repo:Q4@x ": ops.ModelDelete{Target: ops.Target{HiveID: "a"}, ID: "org/repo:Q4@x"},
		"  echo-1":         ops.WorkerProcessGet{WorkerRef: ops.WorkerRef{ID: "echo-1"}},
		" m ":              ops.Infer{Model: "m", Prompt: "secret"},
	} {
		j := client.NewJob("j", op)
		if got := j.HiveID + " " + j.Model + " " + j.Worker; got != want {
			t.Errorf("NewJob(%s) has hive, model and worker %q, want %q", op.Kind(), got, want)
		}
	}
}
