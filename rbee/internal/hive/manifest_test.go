package hive

import (
	"archive/tar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestEarlierRecord holds that an archive that an earlier rbee installed, with the
// sum of the archive alone on record, is what it is: it is not installed again, but
// for another program of the same archive.
func TestEarlierRecord(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	packed := tarGz(t, tar.Header{Typeflag: tar.TypeReg, Name: "run"}, tar.Header{Typeflag: tar.TypeReg, Name: "other"})
	step := worker("1", wire.FormatTarGz, packed)
	if res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed); res.Errors[0] != "" {
		t.Fatal(res.Errors)
	}
	today, bare := wire.Digest(step.Worker.Steps, "run"), step.Worker.Steps[0].Artefact.SHA256
	path := filepath.Join(h.versionDir("w", "1"), manifestName)
	data, err := os.ReadFile(path)
	if err != nil || !strings.Contains(string(data), today) {
		t.Fatalf("%v: %s", err, data)
	}
	if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(data), today, bare)), 0o600); err != nil {
		t.Fatal(err)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil) // a byte that is asked for would be missing
	if res.Errors[0] != "" || res.State.Workers[0].SHA256 != today {
		t.Errorf("%v, %+v", res.Errors, res.State.Workers[0])
	}
	step.Worker.Entry = "other"
	res = apply(t, h, &wire.Request{Steps: []wire.Step{step}}, packed)
	if program, err := os.Readlink(filepath.Join(h.versionDir("w", h.entryBuild("w")), entryName)); res.Errors[0] != "" || err != nil || filepath.Base(program) != "other" {
		t.Errorf("%v, %s, %v", res.Errors, program, err)
	}
}
