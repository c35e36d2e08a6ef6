package top

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares text with testdata/<name>.golden.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
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
		t.Errorf("output differs from %s\n got:\n%s\nwant:\n%s", path, got, want)
	}
}

// present is the current time of the golden files, in the local time zone.
var present = time.Date(2026, 3, 4, 12, 0, 0, 0, time.Local)

func before(d time.Duration) time.Time { return present.Add(-d) }

func ptr[T any](v T) *T { return &v }

var (
	gpu0 = operations.WorkerDevice{Index: 0, Vendor: "nvidia", UUID: "GPU-aaaa", Name: "NVIDIA H100 80GB HBM3"}
	gpu1 = operations.WorkerDevice{Index: 1, Vendor: "nvidia", UUID: "GPU-bbbb"}
)

func failedWorker() operations.WorkerProcess {
	return operations.WorkerProcess{
		ID: "vllm-3c4d", Hive: "gpu-1", Worker: "vllm", Model: "big", State: operations.WorkerFailed, Port: 43124, Devices: []operations.WorkerDevice{gpu0},
		ExitStatus: ptr(1), Problem: "exited before it was ready", CreatedAt: before(time.Minute), EndedAt: before(50 * time.Second),
	}
}
