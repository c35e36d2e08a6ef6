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

// TestModelSum checks that findModel does not compute the checksum of a file, and that the
// context cancels the computation by Sum.
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
	linked, err := findModel(t.Context(), store, "org/plain:Q4_K_M", 0)
	if err != nil || linked.SHA256 != strings.Repeat("b", 64) || linked.Sum != nil {
		t.Errorf("findModel() of a link to a blob = %+v, %v, want the SHA-256 in the name of the blob", linked, err)
	}
	plain, err := findModel(t.Context(), store, "org/plain:Q8_0", 0)
	if err != nil || plain.SHA256 != "" || plain.Sum == nil {
		t.Fatalf("findModel() of a plain file = %+v, %v, want no SHA-256 and a Sum function", plain, err)
	}
	if sum, err := plain.Sum(t.Context()); err != nil || sum != hubtest.Sum(content) {
		t.Errorf("Sum() = %s, %v, want %s", sum, err, hubtest.Sum(content))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if sum, err := plain.Sum(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Sum() with a canceled context = %s, %v, want context.Canceled", sum, err)
	}
	if known, compute, err := modelSum(snapshot); known != "" || compute != nil || err != nil {
		t.Errorf("modelSum() of a directory = %q, %v, want nothing", known, err)
	}
}
