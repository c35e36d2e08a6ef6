package daemon

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models"
)

// TestFindModelContext holds that an engine can be given the length of context
// that its memory was estimated with.
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
	for asked, want := range map[int]int{0: 8192, 4096: 4096} {
		m, err := findModel(t.Context(), store, "bees/honey", asked)
		if err != nil || m.Context != want || m.Cache != int64(want)*4*2*64*2*2 || m.Estimate <= m.Cache {
			t.Errorf("%d tokens: %+v, %v", asked, m, err)
		}
	}
}
