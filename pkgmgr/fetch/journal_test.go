package fetch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// testBoot is the boot ID of the tests.
const testBoot = "this-boot"

// TestTruncatedJournal checks that readJournal accepts a journal that is truncated at any
// position, and that it ignores unsynced data after a reboot.
func TestTruncatedJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	empty := newChunks(1000, 300)
	j, err := openJournal(path, empty, empty, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		chunk int
		done  int64
	}{{0, 100}, {3, 100}, {0, 300}} {
		if err := j.record(step.chunk, step.done); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.sync(func() error { return j.record(1, 7) }), j.record(2, 1)); err != nil {
		t.Fatal(err)
	}
	j.close()
	complete, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(complete) + 1 {
		if err := os.WriteFile(path, complete[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := readJournal(path, 1000, testBoot)
		if err == nil && (got.done[0] > 300 || got.done[1] > 7 || got.done[2] > 1 || got.done[3] > 100) {
			t.Errorf("readJournal() of the first %d bytes = %v, want at most [300 7 1 100]", n, got.done)
		}
		if n == len(complete) && (err != nil || !slices.Equal(got.done, []int64{300, 7, 1, 100}) || got.total() != 408 || got.contiguous() != 307) {
			t.Errorf("readJournal() = %+v, %v, want [300 7 1 100] with total 408 and contiguous 307", got, err)
		}
	}
	simulateReboot(t, path)
	if got, _, err := readJournal(path, 1000, testBoot); err != nil || !slices.Equal(got.done, []int64{300, 0, 0, 100}) {
		t.Errorf("readJournal() after a reboot = %+v, %v, want [300 0 0 100]", got, err)
	}
	if _, _, err := readJournal(path, 999, testBoot); err == nil {
		t.Error("readJournal() with another file size = nil, want an error")
	}
}

// simulateReboot changes the boot ID in a journal.
func simulateReboot(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header, rest, _ := bytes.Cut(data, []byte("\n"))
	fields := bytes.Fields(header)
	header = append(bytes.Join(fields[:4], []byte(" ")), " another\n"...)
	if err := os.WriteFile(path, append(header, rest...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestReopenedJournal checks that a reopened journal still distinguishes received from synced
// data, and that the new journal replaces the old one atomically.
func TestReopenedJournal(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, old := filepath.Join(dir, "j"), filepath.Join(dir, "old")
	received, synced := newChunks(1000, 300), newChunks(1000, 300)
	copy(received.done, []int64{300, 200, 0, 100})
	copy(synced.done, []int64{300, 50, 0, 0})
	for range 3 {
		j, err := openJournal(path, received, synced, testBoot)
		if err != nil {
			t.Fatal(err)
		}
		j.close()
		before, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(old)
		if err := os.Link(path, old); err != nil {
			t.Fatal(err)
		}
		gotReceived, gotSynced, err := readJournal(path, 1000, testBoot)
		if err != nil || !slices.Equal(gotReceived.done, received.done) || !slices.Equal(gotSynced.done, synced.done) {
			t.Fatalf("readJournal() = %+v, %+v, %v, want %+v, %+v", gotReceived, gotSynced, err, received, synced)
		}
		if j, err = openJournal(path, gotReceived, gotSynced, testBoot); err != nil {
			t.Fatal(err)
		}
		if err := j.record(2, 5); err != nil {
			t.Fatal(err)
		}
		j.close()
		if after, err := os.ReadFile(old); err != nil || !bytes.Equal(after, before) {
			t.Errorf("old journal after openJournal() = %q, %v, want %q", after, err, before)
		}
	}
	simulateReboot(t, path)
	if got, _, err := readJournal(path, 1000, testBoot); err != nil || !slices.Equal(got.done, synced.done) {
		t.Errorf("readJournal() after a reboot = %+v, %v, want %+v", got, err, synced)
	}
}

// TestJournalStopsAfterWriteError checks that a journal writes no lines after a failed write,
// which may have written an incomplete line.
func TestJournalStopsAfterWriteError(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	empty := newChunks(1000, 300)
	j, err := openJournal(path, empty, empty, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	writable := j.file
	if j.file, err = os.Open(path); err != nil { // read-only
		t.Fatal(err)
	}
	if err := j.record(1, 1); err == nil {
		t.Fatal("record() to a read-only file = nil, want an error")
	}
	j.close()
	j.file = writable
	defer j.close()
	if err := j.record(1, 2); err == nil {
		t.Error("record() after a failed write = nil, want an error")
	}
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte("rbee-part 1 1000 300 boot\n0 100\nmark\nsync\n1 9\n"))
	f.Add([]byte("rbee-part 1 1000 1 x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "j")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		received, synced, err := readJournal(path, 1000, testBoot)
		if err != nil {
			return
		}
		for _, c := range []*chunks{received, synced} {
			if c.total() > 1000 || c.contiguous() > 1000 || c.total() < 0 {
				t.Errorf("readJournal() = %+v, want at most 1000 bytes", c)
			}
		}
	})
}
