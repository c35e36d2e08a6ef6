package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
)

// TestModelSum holds that a file is read for its checksum only when somebody asks,
// and no longer than they wait.
func TestModelSum(t *testing.T) {
	t.Parallel()
	store := &models.Store{Dir: t.TempDir()}
	snapshot := filepath.Join(store.Dir, "models--org--plain", "snapshots", strings.Repeat("a", 40))
	blob := filepath.Join(store.Dir, "models--org--plain", "blobs", strings.Repeat("b", 64))
	ref := filepath.Join(store.Dir, "models--org--plain", "refs", "main")
	content := []byte("weights")
	for path, data := range map[string][]byte{filepath.Join(snapshot, "plain-Q8_0.gguf"): content, blob: content, ref: []byte(strings.Repeat("a", 40))} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(blob, filepath.Join(snapshot, "link-Q4_K_M.gguf")); err != nil {
		t.Fatal(err)
	}
	named, err := findModel(t.Context(), store, "org/plain:Q4_K_M", 0)
	if err != nil || named.SHA256 != strings.Repeat("b", 64) || named.Sum != nil {
		t.Errorf("named by it: %+v, %v", named, err)
	}
	plain, err := findModel(t.Context(), store, "org/plain:Q8_0", 0)
	if err != nil || plain.SHA256 != "" || plain.Sum == nil {
		t.Fatalf("plain: %+v, %v", plain, err)
	}
	if sum, err := plain.Sum(t.Context()); err != nil || sum != hubtest.Sum(content) {
		t.Errorf("%s, %v", sum, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if sum, err := plain.Sum(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %s, %v", sum, err)
	}
	if known, compute, err := modelSum(snapshot); known != "" || compute != nil || err != nil {
		t.Errorf("a directory: %s, %v", known, err)
	}
}
