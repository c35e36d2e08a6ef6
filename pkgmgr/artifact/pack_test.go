package artifact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
)

// TestPackRefusesAChangedFile: what is kept under a checksum has that checksum.
func TestPackRefusesAChangedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, packed := filepath.Join(dir, "engine"), filepath.Join(dir, "engine.gz")
	if err := os.WriteFile(file, []byte("as it was"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, _, err := fetch.HashFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("rebuilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := pack(file, packed, sum); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Fatalf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.gz*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
