package inspect

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// newInspector returns the inspector of an empty rbee directory.
func newInspector(t *testing.T) *Inspector {
	t.Helper()
	user := t.TempDir()
	dir := &home.Dir{Root: filepath.Join(user, ".local/share/rbee"), User: user}
	store := &installed.Store{Home: dir, Version: "1.0"}
	return &Inspector{Home: dir, Store: store, Daemon: &control.Daemon{Home: dir, Supervisor: service.Detached}, Verifier: &verify.Verifier{Home: dir, Store: store}}
}

func TestInspectInvalidHome(t *testing.T) {
	t.Parallel()
	i := newInspector(t)
	i.Home.Root = "/a\nExecStart=x"
	if _, err := i.Inspect(t.Context(), Options{}); err == nil || !strings.Contains(err.Error(), "control") {
		t.Errorf("Inspect() with a line break in the rbee directory = %v, want an error about control characters", err)
	}
}

// TestCapabilities checks Capabilities in an empty rbee directory, without a daemon.
func TestCapabilities(t *testing.T) {
	t.Parallel()
	h := newInspector(t)
	r, err := h.Capabilities(t.Context())
	if err != nil || r.OS == "" || r.CPU.Threads < 1 || r.DiskFree == 0 || r.ModelsPath != filepath.Join(h.Home.User, ".cache/huggingface/hub") {
		t.Errorf("Capabilities() = %+v, %v, want OS, CPU, disk and the default models path", r, err)
	}
}

// TestCapabilitiesProcesses checks that Capabilities finds the IDs of workers in the worker
// records, without a daemon.
func TestCapabilitiesProcesses(t *testing.T) {
	t.Parallel()
	h := newInspector(t)
	h.Detector = &gpu.Detector{Sys: t.TempDir(), Run: func(_ context.Context, name string, args ...string) (gpu.Result, error) {
		if name != "nvidia-smi" {
			return gpu.Result{}, exec.ErrNotFound
		}
		if !slices.Contains(args, "PIDS") {
			return gpu.Result{}, nil
		}
		return gpu.Result{Stdout: fmt.Appendf(nil, "GPU 00000000:41:00.0\n  Process ID : %d\n  Name : mine\n  Process ID : 1\n  Name : other\n", os.Getpid())}, nil
	}}
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	record := map[string]any{"id": "fake-1", "mark": "m", "process": self}
	for _, want := range []string{"mine, other", "mine fake-1, other"} {
		r, err := h.Capabilities(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range r.Processes {
			got = append(got, strings.TrimSpace(p.Name+" "+p.WorkerID))
		}
		slices.Sort(got)
		if strings.Join(got, ", ") != want {
			t.Errorf("Capabilities() returned processes %q, want %s", got, want)
		}
		if err := os.MkdirAll(h.Home.Path(home.WorkerRecords), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := atomicfile.WriteJSON(h.Home.Path(home.WorkerRecords+"/fake-1.json"), record); err != nil {
			t.Fatal(err)
		}
	}
}

// TestMachineReusesDetector checks that Machine always returns the same detector, because
// the detector remembers tools that hang.
func TestMachineReusesDetector(t *testing.T) {
	t.Parallel()
	h := newInspector(t)
	if d := h.Machine().Detector; d == nil || d != h.Machine().Detector {
		t.Errorf("Machine() returned detector %p and then another one, want one detector that is not nil", d)
	}
	h.Detector = new(gpu.Detector)
	if got := h.Machine().Detector; got != h.Detector {
		t.Errorf("Machine() has detector %p, want %p, the detector of the Inspector", got, h.Detector)
	}
}
