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

// useSmallDisk moves the cache to a separate filesystem of 2 MiB.
func (w *fixture) useSmallDisk(t *testing.T) {
	t.Helper()
	disk := t.TempDir()
	if err := unix.Mount("rbee-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small filesystem: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Errorf("Unmount(%s) = %v, want nil", disk, err)
		}
	})
	w.Dir = filepath.Join(disk, "hub")
}

// partialBytes returns the number of received bytes of org/gguf.
func (w *fixture) partialBytes(t *testing.T) int64 {
	t.Helper()
	m, err := w.Get(t.Context(), "org/gguf")
	if err != nil {
		t.Fatal(err)
	}
	return m.PartialBytes
}

// fillDisk fills the filesystem of the cache with a file, which free removes.
func (w *fixture) fillDisk(t *testing.T) (free func()) {
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

// TestDiskFull checks that a download that fills the disk reports the missing space and
// keeps the received data, that the next download fails while the disk is full, and that the
// third one resumes when the disk has free space.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.useSmallDisk(t)
	const at = 700_000
	held := w.Hold(at)
	failed := make(chan error, 1)
	go func() {
		_, err := w.Download(t.Context(), mustParseRef(t, "org/gguf"), DownloadOptions{})
		failed <- err
	}()
	<-held
	w.waitForBytes(t, at-8*w.chunk) // the rest is in flight, in 8 chunks
	free := w.fillDisk(t)
	w.Release()
	err := <-failed
	had, size := w.partialBytes(t), int64(len(w.Repos["org/gguf"][q4]))
	if had < at-8*w.chunk || had >= size {
		t.Fatalf("received %d bytes, want at least %d and less than %d", had, at-8*w.chunk, size)
	}
	for _, want := range []string{`"org/gguf"`, "needs " + bytesize.Format(size-had) + " more", "the disk is full (0 B free at " + w.Dir, "kept", q4} {
		if operations.CodeOf(err) != operations.CodeFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("Download() = %v, want %q in it", err, want)
		}
	}
	w.Disconnect() // requests of the first download may still be running
	requests := w.Requests(q4)
	_, err = w.Download(t.Context(), mustParseRef(t, "org/gguf"), DownloadOptions{})
	if err == nil || !strings.Contains(err.Error(), "needs "+bytesize.Format(size-had)+" more, but only 0 B is free") || w.Requests(q4) != requests {
		t.Errorf("Download() on a full disk = %v after %d requests, want an error without requests", err, w.Requests(q4)-requests)
	}
	if now := w.partialBytes(t); now != had {
		t.Errorf("received data after the failed download = %d bytes, want %d", now, had)
	}
	free()
	if r := w.mustDownload(t, "org/gguf"); r.ResumedBytes != had {
		t.Errorf("Download() resumed %d bytes, want %d", r.ResumedBytes, had)
	}
	w.checkFiles(t, "org/gguf", q4)
}
