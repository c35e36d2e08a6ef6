package artifact

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
)

func TestCompressFileRejectsChangedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file, compressed := filepath.Join(dir, "engine"), filepath.Join(dir, "engine.gz")
	if err := os.WriteFile(file, []byte("original"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, _, err := fetch.HashFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("rebuilt"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := compressFile(file, compressed, sum); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Fatalf("compressFile() = %v, want an error with %q", err, "changed while it was read")
	}
	if files, _ := filepath.Glob(filepath.Join(dir, "*.gz*")); len(files) > 0 {
		t.Errorf("compressFile() leaves %v, want no files", files)
	}
}
