package stats

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
)

func TestTraffic(t *testing.T) {
	t.Parallel()
	tr := New(slog.New(slog.DiscardHandler))
	w := operations.WorkerProcess{ID: "w", Hive: "h", Model: "m"}
	end, ok := tr.Begin(w)
	if !ok {
		t.Fatal("Begin() = false, want true")
	}
	if tr.Busy(w) != 1 || tr.Report(0).InFlight != 1 || tr.Idle(w, time.Now()) != 0 {
		t.Errorf("during a request Busy() = %d, InFlight = %d, Idle() = %v, want 1, 1, 0", tr.Busy(w), tr.Report(0).InFlight, tr.Idle(w, time.Now()))
	}
	end()
	end()
	if tr.Busy(w) != 0 || tr.Report(3).Waiting != 3 {
		t.Errorf("after the request Busy() = %d, Waiting = %d, want 0, 3", tr.Busy(w), tr.Report(3).Waiting)
	}
	if idle := tr.Idle(w, time.Now().Add(-time.Hour)); idle > time.Minute {
		t.Errorf("Idle() = %v right after a request, want less than a minute", idle)
	}
	for i, status := range []int{200, 200, 502, 404} {
		s := gateway.Sample{Path: "/v1/chat/completions", Model: "m", Worker: "w", Hive: "h", Status: status, Stream: i > 0, FirstByte: time.Duration(i+1) * time.Second, CompletionTokens: 10}
		if status == 404 {
			s.Model, s.Worker, s.Hive, s.FirstByte, s.CompletionTokens = "unknown \"model\"\n", "", "", 0, 0
		}
		tr.Observe(s)
	}
	tr.Observe(gateway.Sample{Path: "/v1/models", Status: 200})
	r := tr.Report(0)
	p := r.Points[len(r.Points)-1]
	if p.Requests != 4 || p.Errors != 1 || p.Tokens != 30 || p.FirstToken != 2 || len(r.Models) != 1 || r.Models[0].Requests != 3 {
		t.Errorf("Report() = %+v, want 4 requests, 1 error, 30 tokens, first token after 2 s, one model with 3 requests", r)
	}
	var b strings.Builder
	tr.set.WritePrometheus(&b)
	for _, want := range []string{
		`rbee_requests_total{path="/v1/chat/completions",code="200",model="m",hive="h",worker="w"} 2`,
		`rbee_requests_total{path="/v1/chat/completions",code="404",model="",hive="",worker=""} 1`,
		`rbee_generated_tokens_total{model="m",hive="h",worker="w"} 30`,
		`rbee_time_to_first_token_seconds_count{model="m",hive="h",worker="w"} 1`,
		`rbee_request_duration_seconds_count{model="m",hive="h",worker="w"} 3`,
	} {
		if !strings.Contains(b.String(), want+"\n") {
			t.Errorf("metrics =\n%s\nwant %s", b.String(), want)
		}
	}
	if strings.Contains(b.String(), "unknown") {
		t.Errorf("metrics =\n%s\nwant no label with the unknown model", b.String())
	}
	if got, want := labels("a", "x\"\\\n\xff"), "{a=\"x\\\"\\\\\\n\uFFFD\"}"; got != want {
		t.Errorf("labels() = %s, want %s", got, want)
	}
	// Intervals without requests are empty points, and the number of points is limited.
	tr.currentPoint(time.Now().Add(time.Hour))
	if len(tr.points) != maxPoints {
		t.Errorf("%d points after currentPoint() an hour later, want %d", len(tr.points), maxPoints)
	}
	for i := 1; i < len(tr.points); i++ {
		if tr.points[i].Time.Sub(tr.points[i-1].Time) != pointInterval {
			t.Fatalf("points %d and %d are %v apart, want %v", i-1, i, tr.points[i].Time.Sub(tr.points[i-1].Time), pointInterval)
		}
	}
}

// TestExternalRequests checks that Busy counts the requests of other programs.
func TestExternalRequests(t *testing.T) {
	t.Parallel()
	tr := New(slog.New(slog.DiscardHandler))
	w := operations.WorkerProcess{ID: "w", Hive: "h", State: operations.WorkerReady}
	end, _ := tr.Begin(w)
	w.Requests = 3
	tr.Record("h", []operations.WorkerProcess{w})
	if n := tr.Busy(w); n != 3 {
		t.Errorf("Busy() = %d with 3 requests in the snapshot, want 3", n)
	}
	end()
	if n := tr.Busy(w); n != 2 {
		t.Errorf("Busy() = %d after the end of the queen's request, want 2", n)
	}
	tr.Record("h", nil)
	if n := tr.Busy(w); n != 0 {
		t.Errorf("Busy() of a removed worker = %d, want 0", n)
	}
}
