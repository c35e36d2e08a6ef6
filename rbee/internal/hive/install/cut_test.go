package install

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// A run that is killed while it installs rbee leaves the old binary or the new
// one, whole, and the next run ends what it began.
func TestKilledInstallingSelf(t *testing.T) {
	t.Parallel()
	for _, point := range []string{"kept", "placed"} {
		t.Run(point, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			apply(t, h, &wire.Request{Steps: []wire.Step{self(t, h)}}, nil)
			old, _, err := fetch.HashFile(h.Path(wire.Binary))
			if err != nil {
				t.Fatal(err)
			}
			upload := h.Path("bin/.rbee-new")
			makeNew(t, h.Path(wire.Binary), upload)
			h.Exe = upload
			step := self(t, h)
			killAt(t, h, upload, point, step)
			want := map[string]string{"kept": old, "placed": step.Install.SHA256}[point]
			if sum, _, err := fetch.HashFile(h.Path(wire.Binary)); sum != want || err != nil {
				t.Fatalf("bin/rbee has %s, want %s, %v", sum, want, err)
			}
			if sum, _, _ := fetch.HashFile(h.Path(wire.PrevBinary)); sum != old {
				t.Errorf("bin/rbee.prev has %s, want %s", sum, old)
			}
			finish(t, h, step)
		})
	}
}

// killAt lets a program apply a step and end itself with SIGKILL at a point.
func killAt(t *testing.T, h *Hive, program, point string, step wire.Step) {
	t.Helper()
	cmd := exec.Command(program, "hive", "apply")
	cmd.Env = append(os.Environ(), "RBEE_HOME="+h.Root, "RBEE_TEST_KILL="+point)
	in, err := cmd.StdinPipe()
	if err == nil {
		defer in.Close() // only now: its end would cancel the run
		err = cmd.Start()
	}
	if err == nil {
		err = wire.WriteRequest(in, &wire.Request{Schema: wire.Schema, Steps: []wire.Step{step}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if state, err := cmd.Process.Wait(); err != nil || state.Success() || state.Exited() {
		t.Fatalf("it was not killed: %v, %v", state, err)
	}
}

// finish installs again after a kill, from a new upload, and looks for leftovers.
func finish(t *testing.T, h *Hive, step wire.Step) {
	t.Helper()
	again := h.Path("bin/.rbee-again")
	makeNew(t, h.Path(wire.PrevBinary), again)
	if err := os.WriteFile(h.Path(wire.BinDir+"/.rbee.json123"), []byte("{"), 0o600); err != nil { // by a run that was killed
		t.Fatal(err)
	}
	if _, err := os.Stat(h.Exe); err == nil { // the killed run's upload, long ago
		long := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(h.Exe, long, long); err != nil {
			t.Fatal(err)
		}
	}
	h.Exe = again
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	if r := res.State.Rbee; res.Errors[0] != "" || r == nil || r.SHA256 != step.Install.SHA256 || res.State.Broken != "" {
		t.Errorf("the next run: %q, %+v, %q", res.Errors, r, res.State.Broken)
	}
	left, _ := filepath.Glob(h.Path(wire.UploadGlob))
	temps, _ := filepath.Glob(h.Path(atomicfile.TempGlob(wire.BinaryInfo)))
	if left = append(left, temps...); len(left) != 0 {
		t.Errorf("left after the next run: %v, want nothing", left)
	}
	if rec, broken := h.Binary(true); rec.SHA256 != step.Install.SHA256 || broken != "" {
		t.Errorf("afterwards: %+v, %q", rec, broken)
	}
}

// makeNew makes a program that does the same and has another sum. Another process
// writes it: a child that this one forks meanwhile would inherit the open file,
// and nobody can run a program that somebody has open for writing.
func makeNew(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", `cp "$0" "$1" && printf new >>"$1"`, from, to).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// The connection breaks while an artifact comes: the run ends by itself and
// leaves what was there before.
func TestEndOfStdinWithinBlob(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("rbee"), 50_000)
	for name, sent := range map[string][]byte{
		"before it":       nil,
		"within a length": {0, 0, 0},
		"within a chunk":  append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:10]...),
		"between chunks":  append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:1000]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			old := []byte("old")
			apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", old)}}, old)
			before := tree(t, h.User)
			inR, inW := io.Pipe()
			outR, outW := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- h.Apply(t.Context(), inR, outW) }()
			steps := []wire.Step{worker("2", "", data), {Action: wire.ActionStop}}
			if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, LockWait: time.Minute, Steps: steps}); err != nil {
				t.Fatal(err)
			}
			var result *wire.Result
			for r := wire.NewReader(outR); result == nil; {
				var m wire.Message
				if err := r.Read(&m); err != nil {
					t.Fatal(err)
				}
				if m.Need != nil {
					_, err := inW.Write(sent)
					if err := errors.Join(err, inW.Close()); err != nil {
						t.Fatal(err)
					}
				}
				result = m.Result
			}
			if err := <-done; !errors.Is(err, errGone) {
				t.Errorf("the run ended with %v", err)
			}
			if !strings.Contains(result.Errors[0], "canceled") || !strings.HasPrefix(result.Errors[1], "not begun") {
				t.Errorf("%q", result.Errors)
			}
			if after := tree(t, h.User); after != before {
				t.Errorf("before:\n%safter:\n%s", before, after)
			}
		})
	}
}

// A sender that cannot go on fails its own step and no other.
func TestAbortedBlob(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	data := bytes.Repeat([]byte("rbee"), 50_000)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	broken := worker("1", "", data)
	whole := worker("2", "", data)
	whole.Worker.Type = "v"
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Steps: []wire.Step{broken, whole}}); err != nil {
		t.Fatal(err)
	}
	var result *wire.Result
	for r := wire.NewReader(outR); result == nil; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		if m.Need != nil {
			from := io.Reader(bytes.NewReader(data))
			if m.Need.Index == 0 {
				from = io.MultiReader(bytes.NewReader(data[:99_000]), failing{})
			}
			if err := wire.SendBlob(inW, from, false); (err != nil) != (m.Need.Index == 0) {
				t.Fatal(err)
			}
		}
		result = m.Result
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if result.Errors[0] != "receiving w: "+wire.ErrAborted.Error() || result.Errors[1] != "" || len(result.State.Workers) != 1 {
		t.Errorf("%q, %+v", result.Errors, result.State.Workers)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("broken") }

// The other side falls silent in the middle of an artifact, and its connection
// stays: the run ends and lets go of the lock. Before that it may take its time.
func TestSilenceWithinBlob(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	h.stall = 50 * time.Millisecond
	data := bytes.Repeat([]byte("rbee"), 50_000)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	defer inW.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.Apply(ctx, inR, outW) }()
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Steps: []wire.Step{worker("1", "", data)}}); err != nil {
		t.Fatal(err)
	}
	var result *wire.Result
	for r := wire.NewReader(outR); result == nil; {
		var m wire.Message
		if err := r.Read(&m); err != nil {
			t.Fatal(err)
		}
		if m.Need != nil {
			select { // it is being fetched
			case err := <-done:
				t.Fatalf("ended before a byte was sent: %v", err)
			case <-time.After(3 * h.stall):
			}
			if _, err := inW.Write(append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:10]...)); err != nil {
				t.Fatal(err)
			}
		}
		result = m.Result
	}
	if err := <-done; err == nil || err.Error() != "no data received for 50ms" {
		t.Errorf("the run ended with %v", err)
	}
	if result.Errors[0] != "no data received for 50ms" {
		t.Errorf("%q", result.Errors)
	}
	lock, err := h.Lock(t.Context(), "the next", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}
