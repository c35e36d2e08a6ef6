package ui

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

var topUpdate = flag.Bool("topupdate", false, "write golden files anew")

// topGolden compares text with testdata/<name>.golden.
func topGolden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("top", "testdata", name+".golden")
	if *topUpdate {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs\n got:\n%s\nwant:\n%s", path, got, want)
	}
}

// topNow is the present of the golden files, the same in every time zone.
var topNow = time.Date(2026, 3, 4, 12, 0, 0, 0, time.Local)

func topBefore(d time.Duration) time.Time { return topNow.Add(-d) }

func topPtr[T any](v T) *T { return &v }

var (
	topGPU0 = operations.WorkerDevice{Index: 0, Vendor: "nvidia", UUID: "GPU-aaaa", Name: "NVIDIA H100 80GB HBM3"}
	topGPU1 = operations.WorkerDevice{Index: 1, Vendor: "nvidia", UUID: "GPU-bbbb"}
)

func topFailedWorker() operations.WorkerProcess {
	return operations.WorkerProcess{
		ID: "vllm-3c4d", Hive: "gpu-1", Worker: "vllm", Model: "big", State: operations.WorkerFailed, Port: 43124, Devices: []operations.WorkerDevice{topGPU0},
		ExitStatus: topPtr(1), Problem: "it ended before it was ready", CreatedAt: topBefore(time.Minute), EndedAt: topBefore(50 * time.Second),
	}
}
