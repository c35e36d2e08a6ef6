package models

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// smallDisk moves the world's cache to a disk of its own, of 2 MiB.
func (w *world) smallDisk(t *testing.T) {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("rbee-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small filesystem to fill cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w.Dir = filepath.Join(disk, "hub")
}

func (w *world) arrivedOf(t *testing.T) int64 {
	t.Helper()
	m, err := w.Get(t.Context(), "org/gguf")
	if err != nil {
		t.Fatal(err)
	}
	return m.PartialBytes
}

// fill takes what is left of the disk, until drain is called.
func (w *world) fill(t *testing.T) (drain func()) {
	t.Helper()
	f, err := os.CreateTemp(filepath.Dir(w.Dir), "filler")
	if err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(piece)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	return func() {
		if err := errors.Join(f.Close(), os.Remove(f.Name())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDiskFills holds that a download which fills the disk says what is missing,
// keeps what had arrived, is refused as long as there is no room, and goes on when
// there is.
func TestDiskFills(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.smallDisk(t)
	const at = 700_000
	held := w.Hold(at)
	failed := make(chan error, 1)
	go func() {
		_, err := w.Download(t.Context(), ref(t, "org/gguf"), DownloadOptions{})
		failed <- err
	}()
	<-held
	w.waitFor(t, at-8*w.chunk) // the rest is on its way in as many chunks
	drain := w.fill(t)
	w.Release()
	err := <-failed
	had, size := w.arrivedOf(t), int64(len(w.Repos["org/gguf"][q4]))
	if had < at-8*w.chunk || had >= size {
		t.Fatalf("%d bytes are there of %d", had, size)
	}
	for _, want := range []string{`"org/gguf"`, "needs " + bytesize.Format(size-had) + " more", "the disk is full: 0 B free at " + w.Dir, "kept", q4} {
		if operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("%v has no %q", err, want)
		}
	}
	w.Disconnect() // requests of the one before may still be on their way
	asked := w.Requests(q4)
	_, err = w.Download(t.Context(), ref(t, "org/gguf"), DownloadOptions{})
	if err == nil || !strings.Contains(err.Error(), "needs "+bytesize.Format(size-had)+" more, and 0 B are free") || w.Requests(q4) != asked {
		t.Errorf("on the full disk: %v, asked %d times", err, w.Requests(q4)-asked)
	}
	if now := w.arrivedOf(t); now != had {
		t.Errorf("%d bytes are left of %d", now, had)
	}
	drain()
	if r := w.fetch(t, "org/gguf"); r.Resumed != had {
		t.Errorf("resumed %d of %d", r.Resumed, had)
	}
	w.holds(t, "org/gguf", q4)
}
