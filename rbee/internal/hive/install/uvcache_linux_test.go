package install

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Where files cannot be linked, environments are copies, and the cache saves the
// download nevertheless.
func TestEnvironmentsAreCopied(t *testing.T) {
	t.Parallel()
	eachUV(t, func(t *testing.T, h *Hive, o *origin) {
		one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
		asked := o.Asked("/packages/wax")
		cache := h.Path(wire.CacheDir)
		if err := os.Mkdir(cache, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("rbee-test", cache, "tmpfs", 0, "size=64m"); err != nil {
			t.Skipf("a filesystem of its own cannot be mounted here: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(cache, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		// No self install and one request: nothing may remove the directory, which is a
		// mount point.
		mustInstall(t, h, one, two)
		if n := o.Asked("/packages/wax") - asked; n != 1 {
			t.Errorf("the common wheel was fetched %d times, want 1", n)
		}
		if sameFile(sitePath(t, h, "one", "wax.py"), sitePath(t, h, "two", "wax.py")) {
			t.Error("files of two filesystems are the same")
		}
		if err := os.WriteFile(sitePath(t, h, "one", "wax.py"), []byte("honey"), 0o600); err != nil {
			t.Fatal(err)
		}
		for typ, damaged := range map[string]bool{"one": true, "two": false} {
			if w := h.Worker(t.Context(), typ, true); (w.Corrupt != "") != damaged || runWorker(t, h, typ) != "1.0" {
				t.Errorf("%s: %+v, want damaged %t", typ, w, damaged)
			}
		}
	})
}
