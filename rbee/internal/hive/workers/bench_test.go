package workers

import (
	"context"
	"fmt"
	"os/exec"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
)

// BenchmarkSpawnToReady measures the overhead of a worker's start. It alternately starts
// the engine directly and through the manager, and waits until it serves.
func BenchmarkSpawnToReady(b *testing.B) {
	o := testOptions(b.TempDir())
	engine, err := o.Engine(context.Background(), "fake")
	if err != nil {
		b.Fatal(err)
	}
	m := New(o)
	if err := m.Start(); err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	var bare, spawned time.Duration
	for b.Loop() {
		bare += startBare(b, m, engine)
		start := time.Now()
		r, err := m.Spawn(b.Context(), operations.WorkerSpawn{Worker: "fake", Model: "serve"}, nil)
		if err != nil || r.Worker.State != operations.WorkerReady {
			b.Fatalf("Spawn() = %+v, %v, want a ready worker", r, err)
		}
		spawned += time.Since(start)
		if _, err := m.Stop(context.Background(), operations.WorkerRef{ID: r.Worker.ID}, StopOptions{Force: true}); err != nil {
			b.Fatal(err)
		}
	}
	ms := func(d time.Duration) float64 { return float64(d) / float64(b.N) / float64(time.Millisecond) }
	b.ReportMetric(ms(bare), "ms-bare")
	b.ReportMetric(ms(spawned), "ms-spawned")
	b.ReportMetric(ms(spawned-bare), "ms-overhead")
}

// startBare starts the engine without a manager and returns the time until it serves.
func startBare(b *testing.B, m *Manager, e engine.Engine) time.Duration {
	b.Helper()
	port, err := m.choosePort(b.Context(), record{})
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(e.Entry, "engine", fmt.Sprint(port), "serve")
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	waittest.Until(b, "the engine responds", func() bool {
		return engine.Probe(b.Context(), port, wire.Launch{ReadyPath: "/health", ReadyStatus: 200})
	})
	took := time.Since(start)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	return took
}
