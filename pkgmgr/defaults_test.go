package pkgmgr_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// TestDefaultOptionsIgnoresOtherPrograms checks that DefaultOptions does not use another
// program named rbee in PATH.
func TestDefaultOptionsIgnoresOtherPrograms(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "rbee"), []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", dir)
	t.Setenv("PATH", dir)
	t.Setenv("RBEE_BINARIES", "")
	o, err := pkgmgr.DefaultOptions(&config.Config{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b := o.Binaries.(*artifact.Binaries); b.Self != "" || o.Version != artifact.DevVersion {
		t.Errorf("DefaultOptions() has Self %q and version %q, want none and %s", b.Self, o.Version, artifact.DevVersion)
	}
}

func TestDefaultOptionsWithoutHome(t *testing.T) {
	t.Setenv("HOME", "")
	if _, err := pkgmgr.DefaultOptions(&config.Config{}, nil); operations.ReasonOf(err) != operations.ReasonNoHome {
		t.Errorf("DefaultOptions() = %v with reason %q, want %q", err, operations.ReasonOf(err), operations.ReasonNoHome)
	}
}
