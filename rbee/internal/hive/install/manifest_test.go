package install

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

// TestInstallOtherEntry checks that an archive is installed again only if the entry changes.
func TestInstallOtherEntry(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	packed := tarGz(t, tar.Header{Typeflag: tar.TypeReg, Name: "run"}, tar.Header{Typeflag: tar.TypeReg, Name: "other"})
	step := worker("1", wire.FormatTarGz, packed)
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed); res.Errors[0] != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil) // without the artifact
	if res.Errors[0] != "" || res.State.Workers[0].SHA256 != wire.Digest(step.Worker.Steps, "run") {
		t.Errorf("the second install = %q, %+v, want the same worker", res.Errors, res.State.Workers[0])
	}
	step.Worker.Entry = "other"
	res = apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed)
	if program, err := os.Readlink(filepath.Join(h.BuildDir("w", h.EntryBuild("w")), installed.EntryName)); res.Errors[0] != "" || err != nil || filepath.Base(program) != "other" {
		t.Errorf("install with another entry = %q, program %s, %v, want the program other", res.Errors, program, err)
	}
}

// TestDamagedBuildIsRemoved checks that an install removes a build without a manifest, and
// keeps a directory that rbee did not create.
func TestDamagedBuildIsRemoved(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	w := worker("1", "", nil)
	res := apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h), w}}, nil)
	if strings.Join(res.Errors, "") != "" {
		t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
	}
	typ := w.Worker.Type
	other := filepath.Join(h.Path(wire.WorkersDir), typ, "mine")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := os.Remove(filepath.Join(h.BuildDir(typ, h.EntryBuild(typ)), installed.ManifestName)); err != nil {
			t.Fatal(err)
		}
		if res := apply(t, h, &wire.Request{Steps: []wire.Step{w}}, nil); res.Errors[0] != "" {
			t.Fatalf("Apply() sent the errors %q, want none", res.Errors)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(other))
	if err != nil || len(entries) != 2 {
		t.Errorf("ReadDir() = %v, %v, want the build and the other directory", entries, err)
	}
	if _, err := os.Stat(other); err != nil {
		t.Errorf("Stat() of the other directory = %v, want it kept", err)
	}
}
