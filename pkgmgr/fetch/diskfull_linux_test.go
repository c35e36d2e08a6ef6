package fetch

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fillDisk uses all free space of the file system of dir until free is called.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
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

// TestFullDiskKeepsJournal checks that a download that cannot be resumed because the disk is
// full keeps the journal of the earlier download.
func TestFullDiskKeepsJournal(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("rbee-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("cannot mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Errorf("Unmount(%s) = %v, want nil", disk, err)
		}
	})
	d := newTestDownload(t, disk)
	before := d.interrupt(t, 500_000)
	free := fillDisk(t, disk)
	p := d.part()
	if err := p.open(64 << 10); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("open() on a full disk = %v, want %v", err, unix.ENOSPC)
	}
	free()
	if got := d.received(); got != before || before == 0 {
		t.Errorf("received bytes after the failed open() = %d, want %d", got, before)
	}
}
