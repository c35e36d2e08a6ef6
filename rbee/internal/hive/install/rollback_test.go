package install

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

var rollbackSelf = wire.Step{Action: wire.ActionRollbackSelf}

// twoBuilds installs two builds of rbee, one after another, and returns their SHA-256.
func twoBuilds(t *testing.T, h *Hive) (first, second string) {
	t.Helper()
	step := self(t, h)
	step.Install.MadeDirs = []string{"/a"}
	first = step.Install.SHA256
	apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	h.Exe = h.Path("bin/.rbee-new")
	makeModifiedCopy(t, h.Path(wire.Binary), h.Exe)
	step = self(t, h)
	step.Install.MadeDirs = []string{"/b"}
	second = step.Install.SHA256
	apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	h.Exe = h.Path(wire.Binary)
	return first, second
}

// checkBuilds checks the SHA-256 of bin/rbee and bin/rbee.prev, and their records.
func checkBuilds(t *testing.T, h *Hive, installed, previous string) {
	t.Helper()
	for path, want := range map[string]string{wire.Binary: installed, wire.PrevBinary: previous} {
		if sum, _, err := fetch.HashFile(h.Path(path)); sum != want || err != nil {
			t.Errorf("%s has SHA-256 %s (%v), want %s", path, sum, err, want)
		}
	}
	rec, problem := h.Binary(true)
	if rec == nil || rec.SHA256 != installed || rec.Version != "1.0" || problem != "" {
		t.Errorf("Binary() = %+v, %q, want SHA-256 %s and no problem", rec, problem, installed)
	}
	prev := h.PreviousBinary()
	if prev == nil || prev.SHA256 != previous || prev.Version != "1.0" {
		t.Errorf("PreviousBinary() = %+v, want SHA-256 %s", prev, previous)
	}
}

func TestRollbackSelf(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	first, second := twoBuilds(t, h)
	checkBuilds(t, h, second, first)
	for range 2 {
		res := apply(t, h, &wire.Request{Steps: []wire.Step{rollbackSelf}}, nil)
		s := res.State
		if res.Errors[0] != "" || s.Broken != "" || s.Rbee.SHA256 != first || s.PreviousRbee == nil || s.PreviousRbee.SHA256 != second {
			t.Fatalf("rollback = %q, rbee %+v, previous %+v, want %s, previous %s", res.Errors, s.Rbee, s.PreviousRbee, first, second)
		}
		if want := []string{"/a", "/b"}; !slices.Equal(s.Rbee.MadeDirs, want) {
			t.Errorf("MadeDirs = %v, want %v", s.Rbee.MadeDirs, want)
		}
		checkBuilds(t, h, first, second)
		first, second = second, first // the second rollback undoes the first
	}
}

func TestRollbackSelfErrors(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h)}}, nil)
	h.Exe = h.Path(wire.Binary)
	res := apply(t, h, &wire.Request{Steps: []wire.Step{rollbackSelf}}, nil)
	if res.Errors[0] == "" || res.Causes[0].Reason != operations.ReasonNoPreviousVersion {
		t.Errorf("rollback without a previous rbee = %q, %+v, want reason %s", res.Errors, res.Causes, operations.ReasonNoPreviousVersion)
	}

	h = newHive(t)
	first, second := twoBuilds(t, h)
	damaged, err := os.ReadFile(h.Path(wire.PrevBinary))
	damaged[len(damaged)-1] ^= 1
	if err := errors.Join(err, os.Remove(h.Path(wire.PrevBinary)), os.WriteFile(h.Path(wire.PrevBinary), damaged, 0o755)); err != nil {
		t.Fatal(err)
	}
	res = apply(t, h, &wire.Request{Steps: []wire.Step{rollbackSelf}}, nil)
	if !strings.Contains(res.Errors[0], "want "+first) || res.Causes[0].Reason != operations.ReasonChecksum || res.State.Rbee.SHA256 != second {
		t.Errorf("rollback to a damaged rbee = %q, %+v, rbee %+v, want a checksum error and %s", res.Errors, res.Causes, res.State.Rbee, second)
	}
}

// TestRollbackSelfWithoutRecord checks that a rollback restores a binary without a record,
// which an older rbee stored.
func TestRollbackSelfWithoutRecord(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	first, second := twoBuilds(t, h)
	if err := os.Remove(h.Path(wire.PrevInfo)); err != nil {
		t.Fatal(err)
	}
	if prev := h.PreviousBinary(); prev == nil || prev.Version != "" {
		t.Errorf("PreviousBinary() = %+v, want an unknown version", prev)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{rollbackSelf}}, nil)
	if s := res.State; res.Errors[0] != "" || s.Broken != "" || s.Rbee.SHA256 != first || s.PreviousRbee.SHA256 != second {
		t.Errorf("rollback = %q, state %+v, want rbee %s, previous %s", res.Errors, s, first, second)
	}
}

// TestKilledRollbackSelf checks the state after a rollback that is killed between the
// exchange of the binaries and the exchange of their records.
func TestKilledRollbackSelf(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	first, second := twoBuilds(t, h)
	killAt(t, h, h.Path(wire.Binary), "exchanged", rollbackSelf)
	if rec, problem := h.Binary(false); rec == nil || rec.SHA256 != first || rec.Version != "1.0" || problem != "" {
		t.Errorf("Binary() after the kill = %+v, %q, want SHA-256 %s and no problem", rec, problem, first)
	}
	res := apply(t, h, &wire.Request{Steps: []wire.Step{rollbackSelf}}, nil)
	if s := res.State; res.Errors[0] != "" || s.Broken != "" || s.Rbee.SHA256 != second || s.PreviousRbee.SHA256 != first {
		t.Errorf("the next rollback = %q, rbee %+v, previous %+v, want %s, previous %s", res.Errors, s.Rbee, s.PreviousRbee, second, first)
	}
}

func TestExchangeFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, b := dir+"/a", dir+"/b"
	if err := errors.Join(os.WriteFile(a, []byte("1"), 0o600), os.WriteFile(b, []byte("2"), 0o600), exchangeFiles(a, b)); err != nil {
		t.Fatal(err)
	}
	one, _ := os.ReadFile(a)
	two, _ := os.ReadFile(b)
	if string(one) != "2" || string(two) != "1" {
		t.Errorf("after exchangeFiles(), the files contain %q and %q, want 2 and 1", one, two)
	}
}
