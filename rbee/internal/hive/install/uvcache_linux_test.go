package install

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestEnvironmentsAreCopied checks that environments contain copies of the files if the cache
// is on another filesystem, and that each wheel is still downloaded only once.
func TestEnvironmentsAreCopied(t *testing.T) {
	t.Parallel()
	eachUV(t, func(t *testing.T, h *Hive, o *origin) {
		one, two := o.pythonWorker("one", "1.0", nil), o.pythonWorker("two", "1.0", nil)
		before := o.RequestCount("/packages/wax")
		cache := h.Path(wire.CacheDir)
		if err := os.Mkdir(cache, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("rbee-test", cache, "tmpfs", 0, "size=64m"); err != nil {
			t.Skipf("cannot mount a separate filesystem: %v", err)
		}
		t.Cleanup(func() {
			if err := unix.Unmount(cache, unix.MNT_DETACH); err != nil {
				t.Errorf("Unmount(%s) = %v, want nil", cache, err)
			}
		})
		// Use one request without an install of rbee, because another request could remove
		// the cache directory, which is a mount point.
		mustInstall(t, h, one, two)
		if n := o.RequestCount("/packages/wax") - before; n != 1 {
			t.Errorf("downloads of the common wheel = %d, want 1", n)
		}
		if sameFile(sitePath(t, h, "one", "wax.py"), sitePath(t, h, "two", "wax.py")) {
			t.Error("wax.py is the same file in both environments, want copies")
		}
		if err := os.WriteFile(sitePath(t, h, "one", "wax.py"), []byte("honey"), 0o600); err != nil {
			t.Fatal(err)
		}
		for typ, damaged := range map[string]bool{"one": true, "two": false} {
			if w := h.Worker(t.Context(), typ, true); (w.Corrupt != "") != damaged || runWorker(t, h, typ) != "1.0" {
				t.Errorf("Worker(%s) = %+v, want it corrupt: %t, and running", typ, w, damaged)
			}
		}
	})
}
