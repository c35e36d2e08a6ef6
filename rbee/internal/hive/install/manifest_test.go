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

// TestInstallOtherEntry holds that an archive is not installed again, but for another program
// of the same archive.
func TestInstallOtherEntry(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	packed := tarGz(t, tar.Header{Typeflag: tar.TypeReg, Name: "run"}, tar.Header{Typeflag: tar.TypeReg, Name: "other"})
	step := worker("1", wire.FormatTarGz, packed)
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed); res.Errors[0] != "" {
		t.Fatal(res.Errors)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil) // a byte that is asked for would be missing
	if res.Errors[0] != "" || res.State.Workers[0].SHA256 != wire.Digest(step.Worker.Steps, "run") {
		t.Errorf("%v, %+v", res.Errors, res.State.Workers[0])
	}
	step.Worker.Entry = "other"
	res = apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed)
	if program, err := os.Readlink(filepath.Join(h.BuildDir("w", h.EntryBuild("w")), installed.EntryName)); res.Errors[0] != "" || err != nil || filepath.Base(program) != "other" {
		t.Errorf("%v, %s, %v", res.Errors, program, err)
	}
}

// A build that has lost its manifest is damaged, and does not stay beside the one that
// is installed in its place; a directory that is not rbee's does.
func TestDamagedBuildIsRemoved(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	w := worker("1", "", nil)
	res := apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h), w}}, nil)
	if strings.Join(res.Errors, "") != "" {
		t.Fatal(res.Errors)
	}
	typ := w.Worker.Type
	own := filepath.Join(h.Path(wire.WorkersDir), typ, "mine")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := os.Remove(filepath.Join(h.BuildDir(typ, h.EntryBuild(typ)), installed.ManifestName)); err != nil {
			t.Fatal(err)
		}
		if res := apply(t, h, &wire.Request{Steps: []wire.Step{w}}, nil); res.Errors[0] != "" {
			t.Fatal(res.Errors)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(own))
	if err != nil || len(entries) != 2 {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := os.Stat(own); err != nil {
		t.Error(err)
	}
}
