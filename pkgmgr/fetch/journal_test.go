package fetch

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// testBoot names the boot of the machine that tests run in.
const testBoot = "this-boot"

// TestTornJournal holds that a journal may end anywhere, and that one of another
// boot counts up to what was surely on disk.
func TestTornJournal(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	none := newChunks(1000, 300)
	j, err := openJournal(path, none, none, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		chunk int
		done  int64
	}{{0, 100}, {3, 100}, {0, 300}} {
		if err := j.note(step.chunk, step.done); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(j.sync(func() error { return j.note(1, 7) }), j.note(2, 1)); err != nil {
		t.Fatal(err)
	}
	j.close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		if err := os.WriteFile(path, whole[:n], 0o600); err != nil {
			t.Fatal(err)
		}
		got, _, err := readJournal(path, 1000, testBoot)
		if err == nil && (got.done[0] > 300 || got.done[1] > 7 || got.done[2] > 1 || got.done[3] > 100) {
			t.Errorf("cut after %d: %v", n, got.done)
		}
		if n == len(whole) && (err != nil || !slices.Equal(got.done, []int64{300, 7, 1, 100}) || got.total() != 408 || got.frontier() != 307) {
			t.Errorf("whole: %+v, %v", got, err)
		}
	}
	reboot(t, path)
	if got, _, err := readJournal(path, 1000, testBoot); err != nil || !slices.Equal(got.done, []int64{300, 0, 0, 100}) {
		t.Errorf("after a reboot: %+v, %v", got, err)
	}
	if _, _, err := readJournal(path, 999, testBoot); err == nil {
		t.Error("a journal of another file counts")
	}
}

// reboot makes a journal one of another boot of the machine.
func reboot(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	header, rest, _ := bytes.Cut(data, []byte("\n"))
	words := bytes.Fields(header)
	header = append(bytes.Join(words[:4], []byte(" ")), " another\n"...)
	if err := os.WriteFile(path, append(header, rest...), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestJournalBeginsWithTheOld holds that a journal which goes on keeps apart what
// is surely on disk, and that the old one is whole as long as anybody can read it.
func TestJournalBeginsWithTheOld(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path, old := filepath.Join(dir, "j"), filepath.Join(dir, "old")
	have, sure := newChunks(1000, 300), newChunks(1000, 300)
	copy(have.done, []int64{300, 200, 0, 100})
	copy(sure.done, []int64{300, 50, 0, 0})
	for range 3 {
		j, err := openJournal(path, have, sure, testBoot)
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
		gotHave, gotSure, err := readJournal(path, 1000, testBoot)
		if err != nil || !slices.Equal(gotHave.done, have.done) || !slices.Equal(gotSure.done, sure.done) {
			t.Fatalf("%+v, %+v, %v", gotHave, gotSure, err)
		}
		if j, err = openJournal(path, gotHave, gotSure, testBoot); err != nil {
			t.Fatal(err)
		}
		if err := j.note(2, 5); err != nil {
			t.Fatal(err)
		}
		j.close()
		if after, err := os.ReadFile(old); err != nil || !bytes.Equal(after, before) {
			t.Errorf("the old journal became %q, %v", after, err)
		}
	}
	reboot(t, path)
	if got, _, err := readJournal(path, 1000, testBoot); err != nil || !slices.Equal(got.done, sure.done) {
		t.Errorf("after a reboot: %+v, %v", got, err)
	}
}

// TestJournalEndsAtAFailure holds that nothing follows a line that could not be
// written whole.
func TestJournalEndsAtAFailure(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "j")
	none := newChunks(1000, 300)
	j, err := openJournal(path, none, none, testBoot)
	if err != nil {
		t.Fatal(err)
	}
	good := j.file
	if j.file, err = os.Open(path); err != nil { // not for writing
		t.Fatal(err)
	}
	if err := j.note(1, 1); err == nil {
		t.Fatal("it is written")
	}
	j.close()
	j.file = good
	defer j.close()
	if err := j.note(1, 2); err == nil {
		t.Error("a line follows one that is torn")
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
		have, sure, err := readJournal(path, 1000, testBoot)
		if err != nil {
			return
		}
		for _, c := range []*chunks{have, sure} {
			if c.total() > 1000 || c.frontier() > 1000 || c.total() < 0 {
				t.Errorf("%+v", c)
			}
		}
	})
}
