package fetch

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// fill takes what is left of a disk, until drain is called.
func fill(t *testing.T, dir string) (drain func()) {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
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

// TestFullDiskKeepsTheJournal holds that a download which cannot even begin again
// leaves the record of what is there.
func TestFullDiskKeepsTheJournal(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if err := unix.Mount("rbee-test", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("a small filesystem to fill cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	w := newWorld(t, disk)
	had := w.cutOff(t, 500_000)
	drain := fill(t, disk)
	p := w.part()
	if err := p.open(64 << 10); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("it is opened: %v", err)
	}
	drain()
	if now := w.arrived(); now != had || had == 0 {
		t.Errorf("%d bytes are left of %d", now, had)
	}
}
