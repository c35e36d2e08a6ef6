package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
)

// TestFindModelContext checks that findModel returns the context length that it used for
// the memory estimate.
func TestFindModelContext(t *testing.T) {
	t.Parallel()
	store := &models.Store{Dir: t.TempDir()}
	repo, commit := filepath.Join(store.Dir, "models--bees--honey"), strings.Repeat("a", 40)
	for name, data := range map[string][]byte{
		"refs/main":                           []byte(commit),
		"snapshots/" + commit + "/honey.gguf": hubtest.GGUF(1, 4, 2, 64, 131072, 1000),
	} {
		path := filepath.Join(repo, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for length, want := range map[int]int{0: 8192, 4096: 4096} {
		m, err := findModel(t.Context(), store, "bees/honey", length)
		if err != nil || m.Context != want || m.Cache != int64(want)*4*2*64*2*2 || m.Estimate <= m.Cache {
			t.Errorf("findModel() with context length %d = %+v, %v, want context length %d", length, m, err, want)
		}
	}
}
