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

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestKilledInstallSelf checks that a killed install of rbee leaves the complete old or new
// binary, and that the next run finishes the install.
func TestKilledInstallSelf(t *testing.T) {
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
			makeModifiedCopy(t, h.Path(wire.Binary), upload)
			h.Exe = upload
			step := self(t, h)
			killAt(t, h, upload, point, step)
			want := map[string]string{"kept": old, "placed": step.Install.SHA256}[point]
			if sum, _, err := fetch.HashFile(h.Path(wire.Binary)); sum != want || err != nil {
				t.Fatalf("after the kill, bin/rbee has SHA-256 %s, want %s (%v)", sum, want, err)
			}
			if sum, _, _ := fetch.HashFile(h.Path(wire.PrevBinary)); sum != old {
				t.Errorf("after the kill, bin/rbee.prev has SHA-256 %s, want %s", sum, old)
			}
			installAfterKill(t, h, step)
		})
	}
}

// killAt runs `hive apply` with a step in a process that kills itself with SIGKILL at a
// test point.
func killAt(t *testing.T, h *Hive, program, point string, step wire.Step) {
	t.Helper()
	cmd := exec.Command(program, "hive", "apply")
	cmd.Env = append(os.Environ(), "RBEE_HOME="+h.Root, "RBEE_TEST_KILL="+point)
	in, err := cmd.StdinPipe()
	if err == nil {
		defer in.Close() // EOF would cancel the run
		err = cmd.Start()
	}
	if err == nil {
		err = wire.WriteRequest(in, &wire.Request{Schema: wire.Schema, Steps: []wire.Step{step}})
	}
	if err != nil {
		t.Fatal(err)
	}
	if state, err := cmd.Process.Wait(); err != nil || state.Success() || state.Exited() {
		t.Fatalf("hive apply exited with %v, %v, want SIGKILL", state, err)
	}
}

// installAfterKill repeats a killed install with a new upload and checks that no temporary
// files remain.
func installAfterKill(t *testing.T, h *Hive, step wire.Step) {
	t.Helper()
	upload := h.Path("bin/.rbee-again")
	makeModifiedCopy(t, h.Path(wire.PrevBinary), upload)
	if err := os.WriteFile(h.Path(wire.BinDir+"/.rbee.json123"), []byte("{"), 0o600); err != nil { // of a killed run
		t.Fatal(err)
	}
	if _, err := os.Stat(h.Exe); err == nil { // the upload of the killed run
		old := time.Now().Add(-2 * time.Hour)
		if err := os.Chtimes(h.Exe, old, old); err != nil {
			t.Fatal(err)
		}
	}
	h.Exe = upload
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	if r := res.State.Rbee; res.Errors[0] != "" || r == nil || r.SHA256 != step.Install.SHA256 || res.State.Broken != "" {
		t.Errorf("the next run = %q, rbee %+v, broken %q, want SHA-256 %s", res.Errors, r, res.State.Broken, step.Install.SHA256)
	}
	temps, _ := filepath.Glob(h.Path(wire.UploadGlob))
	recordTemps, _ := filepath.Glob(h.Path(atomicfile.TempGlob(wire.BinaryInfo)))
	if temps = append(temps, recordTemps...); len(temps) != 0 {
		t.Errorf("temporary files after the next run: %v, want none", temps)
	}
	if rec, problem := h.Binary(true); rec.SHA256 != step.Install.SHA256 || problem != "" {
		t.Errorf("Binary() after the next run = %+v, %q, want SHA-256 %s", rec, problem, step.Install.SHA256)
	}
}

// makeModifiedCopy copies the program src to dst and changes its checksum, but not its
// behavior. A separate process writes the file, because a child process that another test
// forks at the same time would inherit the open file, and the system cannot run a program
// that is open for writing.
func makeModifiedCopy(t *testing.T, src, dst string) {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", `cp "$0" "$1" && printf new >>"$1"`, src, dst).CombinedOutput()
	if err != nil {
		t.Fatalf("cp: %v\n%s", err, out)
	}
}

// TestStdinClosedDuringBlob checks that a run is canceled, and the installed worker kept, if
// the connection breaks during the transfer of an artifact.
func TestStdinClosedDuringBlob(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat([]byte("rbee"), 50_000)
	for name, sent := range map[string][]byte{
		"before blob":    nil,
		"in length":      {0, 0, 0},
		"in chunk":       append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:10]...),
		"between chunks": append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:1000]...),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHive(t)
			old := []byte("old")
			apply(t, h, &wire.Request{Steps: []wire.Step{worker("1", "", old)}}, old)
			before := treeText(t, h.User)
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
			if err := <-done; !errors.Is(err, errDisconnected) {
				t.Errorf("Apply() = %v, want %v", err, errDisconnected)
			}
			if !strings.Contains(result.Errors[0], "canceled") || !strings.HasPrefix(result.Errors[1], "not started") {
				t.Errorf("Apply() sent the errors %q, want canceled and not started", result.Errors)
			}
			if after := treeText(t, h.User); after != before {
				t.Errorf("the canceled run changed the files (-before +after):\n%s", cmp.Diff(before, after))
			}
		})
	}
}

// TestAbortedBlob checks that a blob that the client aborts fails only its own step.
func TestAbortedBlob(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	data := bytes.Repeat([]byte("rbee"), 50_000)
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- h.Apply(t.Context(), inR, outW) }()
	aborted := worker("1", "", data)
	complete := worker("2", "", data)
	complete.Worker.Type = "v"
	if err := wire.WriteRequest(inW, &wire.Request{Schema: wire.Schema, Steps: []wire.Step{aborted, complete}}); err != nil {
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
				from = io.MultiReader(bytes.NewReader(data[:99_000]), failingReader{})
			}
			if err := wire.SendBlob(inW, from, false); (err != nil) != (m.Need.Index == 0) {
				t.Fatal(err)
			}
		}
		result = m.Result
	}
	if err := <-done; err != nil {
		t.Errorf("Apply() = %v, want nil", err)
	}
	if result.Errors[0] != "cannot receive w: "+wire.ErrAborted.Error() || result.Errors[1] != "" || len(result.State.Workers) != 1 {
		t.Errorf("Apply() sent the errors %q and workers %+v, want an error of the first step and one worker", result.Errors, result.State.Workers)
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, errors.New("broken") }

// TestStalledBlob checks that a run is canceled and releases the lock if the client stops
// sending in the middle of an artifact. The time before the first byte is not limited.
func TestStalledBlob(t *testing.T) {
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
			select { // the client downloads the artifact
			case err := <-done:
				t.Fatalf("Apply() returned %v before the first byte, want it to wait", err)
			case <-time.After(3 * h.stall):
			}
			if _, err := inW.Write(append(binary.BigEndian.AppendUint32([]byte{0}, 1000), data[:10]...)); err != nil {
				t.Fatal(err)
			}
		}
		result = m.Result
	}
	want := (&fetch.StallError{Limit: h.stall}).Error()
	if err := <-done; err == nil || err.Error() != want {
		t.Errorf("Apply() = %v, want %s", err, want)
	}
	if result.Errors[0] != want {
		t.Errorf("Apply() sent the errors %q, want %s", result.Errors, want)
	}
	lock, err := h.Lock(t.Context(), "the next", 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	lock.Close()
}
