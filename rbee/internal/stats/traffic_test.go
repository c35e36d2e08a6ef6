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
		t.Fatal("a worker that serves takes no requests")
	}
	if tr.Busy(w) != 1 || tr.Report(0).InFlight != 1 || tr.Idle(w, time.Now()) != 0 {
		t.Error("a request that is under way is not seen")
	}
	end()
	end()
	if tr.Busy(w) != 0 || tr.Report(3).Waiting != 3 {
		t.Error("a request that has ended is")
	}
	if idle := tr.Idle(w, time.Now().Add(-time.Hour)); idle > time.Minute {
		t.Errorf("idle for %v, after a request just now", idle)
	}
	for i, status := range []int{200, 200, 502, 404} {
		s := gateway.Sample{Path: "/v1/chat/completions", Model: "m", Worker: "w", Hive: "h", Status: status, Stream: i > 0, FirstByte: time.Duration(i+1) * time.Second, CompletionTokens: 10}
		if status == 404 {
			s.Model, s.Worker, s.Hive, s.FirstByte, s.CompletionTokens = "a stranger's \"word\"\n", "", "", 0, 0
		}
		tr.Observe(s)
	}
	tr.Observe(gateway.Sample{Path: "/v1/models", Status: 200})
	r := tr.Report(0)
	p := r.Points[len(r.Points)-1]
	if p.Requests != 4 || p.Errors != 1 || p.Tokens != 30 || p.FirstToken != 2 || len(r.Models) != 1 || r.Models[0].Requests != 3 {
		t.Errorf("%+v", r)
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
			t.Errorf("%s is not in\n%s", want, b.String())
		}
	}
	if strings.Contains(b.String(), "stranger") {
		t.Error("a stranger's word is a label")
	}
	if got := labels("a", "x\"\\\n\xff"); got != "{a=\"x\\\"\\\\\\n\uFFFD\"}" {
		t.Errorf("%s", got)
	}
	// Time without requests is there as points of nothing, and only so many are kept.
	tr.currentPoint(time.Now().Add(time.Hour))
	if len(tr.points) != maxPoints {
		t.Errorf("%d points", len(tr.points))
	}
	for i := 1; i < len(tr.points); i++ {
		if tr.points[i].Time.Sub(tr.points[i-1].Time) != pointInterval {
			t.Fatalf("a gap at %d", i)
		}
	}
}

// TestOthersRequests holds that requests which did not come through the queen count.
func TestOthersRequests(t *testing.T) {
	t.Parallel()
	tr := New(slog.New(slog.DiscardHandler))
	w := operations.WorkerProcess{ID: "w", Hive: "h", State: operations.WorkerReady}
	end, _ := tr.Begin(w)
	w.Requests = 3
	tr.Record("h", []operations.WorkerProcess{w})
	if n := tr.Busy(w); n != 3 {
		t.Errorf("%d", n)
	}
	end()
	if n := tr.Busy(w); n != 2 {
		t.Errorf("%d after the own one has ended", n)
	}
	tr.Record("h", nil)
	if n := tr.Busy(w); n != 0 {
		t.Errorf("%d of a worker that is gone", n)
	}
}
