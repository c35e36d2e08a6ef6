package install

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestApplyAfterUninstall checks that a run creates no files if rbee was uninstalled while
// the run waited for the lock.
func TestApplyAfterUninstall(t *testing.T) {
	t.Parallel()
	h := connect(filepath.Join(t.TempDir(), "rbee"), "", "")
	h.Exe = h.Path(wire.Binary)
	if err := os.MkdirAll(filepath.Dir(h.Exe), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(h.Exe, []byte("rbee"), 0o755); err != nil {
		t.Fatal(err)
	}
	lock, err := h.Lock(t.Context(), "the uninstall", 0, func(wire.LockInfo) {})
	if err != nil {
		t.Fatal(err)
	}
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	defer inW.Close()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	settings := &wire.Settings{Alias: "a", HivePort: 8600}
	step := worker("1", "", []byte("engine"))
	req := &wire.Request{Schema: wire.Schema, LockWait: time.Minute, Settings: settings, Steps: []wire.Step{step}}
	if err := wire.WriteRequest(inW, req); err != nil {
		t.Fatal(err)
	}
	for r := wire.NewReader(outR); ; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		if m.Waiting != nil { // uninstall, and release the lock
			if err := os.RemoveAll(h.Root); err != nil {
				t.Fatal(err)
			}
			lock.Close()
		}
		if m.Result != nil {
			if !strings.Contains(m.Result.Error, "was uninstalled") || m.Result.Errors[0] == "" {
				t.Errorf("Apply() sent %+v, want an error that rbee was uninstalled", m.Result)
			}
			break
		}
	}
	if err := <-done; err != nil {
		t.Errorf("Apply() = %v, want nil", err)
	}
	if _, err := os.Lstat(h.Root); !os.IsNotExist(err) {
		t.Errorf("Lstat(%s) = %v, want ErrNotExist", h.Root, err)
	}
}
