package install

import (
	"archive/tar"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestDiskFull checks that the error of an install reports a full filesystem, that the
// installed worker is kept, and that no partial files remain.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	exe := h.Exe
	disk := filepath.Join(h.User, "disk")
	if err := os.Mkdir(disk, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("rbee-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small filesystem: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Errorf("Unmount(%s) = %v, want nil", disk, err)
		}
	})
	h.Root = filepath.Join(disk, "rbee")
	old := []byte("old")
	apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", old)}}, old)
	before := treeText(t, disk)

	// Small files use more disk space than their size, so that checkSpace does not fail.
	headers := []tar.Header{{Name: "run", Typeflag: tar.TypeReg}}
	for i := range 2000 {
		headers = append(headers, tar.Header{Name: fmt.Sprintf("f%d", i), Typeflag: tar.TypeReg})
	}
	data := tarGz(t, headers...)
	many := worker("2", wire.FormatTarGz, data)
	res := apply(t, h, &wire.Request{Steps: []wire.Step{many}}, data)
	if !strings.Contains(res.Errors[0], "disk full: ") || !strings.Contains(res.Errors[0], unix.ENOSPC.Error()) || res.Causes[0].Reason != operations.ReasonDiskFull {
		t.Errorf("install of many files = %q, want disk full", res.Errors)
	}
	// An artifact of unknown size.
	large := bytes.Repeat([]byte("x"), 3<<20)
	step := worker("3", "", large)
	step.Worker.Steps[0].Artifact.Size = 0
	res = apply(t, h, &wire.Request{Steps: []wire.Step{step}}, large)
	if !strings.Contains(res.Errors[0], "disk full: ") || strings.Contains(res.Errors[0], " 0 bytes needed") {
		t.Errorf("install of an artifact of unknown size = %q, want disk full without a needed size", res.Errors)
	}
	// rbee itself: the test binary is larger than the disk.
	h.Exe = exe
	res = apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h)}}, nil)
	if !strings.Contains(res.Errors[0], "disk full: ") || res.State.Rbee != nil {
		t.Errorf("install of rbee = %q, rbee %+v, want disk full and no rbee", res.Errors, res.State.Rbee)
	}
	if w := h.Worker(t.Context(), "w", true); w == nil || w.Version != "1" || w.Corrupt != "" {
		t.Errorf("Worker() = %+v, want version 1 intact", w)
	}
	_ = os.Remove(h.Path(wire.BinDir)) // may remain as an empty directory
	if after := treeText(t, disk); after != before {
		t.Errorf("the failed installs changed the files (-before +after):\n%s", cmp.Diff(before, after))
	}
}
