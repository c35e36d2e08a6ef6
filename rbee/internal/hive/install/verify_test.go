package install

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/engine"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
)

// verifyArchive returns an archive whose program runs a script.
func verifyArchive(t *testing.T, script string) []byte {
	t.Helper()
	return zipArchive(t, zipEntry{"bin/run", "#!/bin/sh\n" + script + "\n", 0o755}, zipEntry{"lib/engine.so", "engine", 0o644})
}

// verifyStep returns a step that installs a version of worker w, with a verify command, from
// an archive.
func verifyStep(version string, archive []byte, v *wire.Verify) wire.Step {
	step := worker(version, wire.FormatZip, archive)
	step.Worker.Entry, step.Worker.Verify = "bin/run", v
	return step
}

// installVerified applies one step with its archive and returns the error; empty on success.
func installVerified(t *testing.T, h *Hive, step wire.Step, archive []byte) string {
	t.Helper()
	return apply(t, h, &wire.Request{Steps: []wire.Step{step}}, archive).Errors[0]
}

func TestVerifyPassesBeforeInstall(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		verify wire.Verify
	}{
		"exit 0":            {"exit 0", wire.Verify{Command: []string{"{entry}"}}},
		"standard output":   {"echo '  CUDA0: RTX 4090'", wire.Verify{Command: []string{"{entry}", "--list-devices"}, Matches: `(?m)^\s*CUDA\d+:`}},
		"standard error":    {"echo CUDA0: >&2", wire.Verify{Command: []string{"{payload}/bin/run"}, Matches: "CUDA0"}},
		"output over limit": {"i=0; while [ $i -lt 40 ]; do printf '%065536d\\n' 0; i=$((i+1)); done; echo device", wire.Verify{Command: []string{"{entry}"}, Matches: "device\n$"}},
		"arguments":         {`[ "$1" = "a b; \$HOME" ] && [ "$2" = "$PWD" ] && echo fine`, wire.Verify{Command: []string{"{entry}", "a b; $HOME", "{state}"}, Matches: "fine"}},
		"environment": {
			`[ "$OWN" = "$PWD/x" ] && [ -z "$CUDA_VISIBLE_DEVICES" ] && [ "$PYTHONDONTWRITEBYTECODE$LAUNCH" = 1yes ] && command -v run`,
			wire.Verify{Command: []string{"{entry}"}, Env: map[string]string{"OWN": "{state}/x"}, Matches: "payload/bin/run"},
		},
		"links": {"cat links/engine.so; [ ! -e links/model ]", wire.Verify{Command: []string{"{entry}"}, Matches: "engine"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, archive := newHive(t), verifyArchive(t, tt.script)
			step := verifyStep("1", archive, &tt.verify)
			step.Worker.Launch = &wire.Launch{
				Env:   map[string]string{"LAUNCH": "yes", "ADDRESS": "{host}:{port}"},
				Links: map[string]string{"links/engine.so": "{payload}/lib/engine.so", "links/model/{model_file}": "{model_path}"},
			}
			if got := installVerified(t, h, step, archive); got != "" {
				t.Fatalf("install = %q, want success", got)
			}
			if w := h.Worker(t.Context(), "w", true); w.Corrupt != "" || !w.Verify.Equal(&tt.verify) {
				t.Errorf("Worker() = %+v, want an intact worker with its verify command", w)
			}
			if temps, _ := filepath.Glob(h.Path("run/.rbee-*")); len(temps) > 0 {
				t.Errorf("temporary files in run/ = %q, want none", temps)
			}
		})
	}
}

func TestVerifyFailureLeavesNothing(t *testing.T) {
	t.Parallel()
	entry := []string{"{entry}"}
	for name, tt := range map[string]struct {
		script string
		verify wire.Verify
		want   []string
	}{
		"exit status": {"echo no driver >&2; exit 3", wire.Verify{Command: entry}, []string{"cannot verify w 2: exit status 3:\nno driver"}},
		"no match": {
			"echo 'Available devices:'; echo '  (none)'", wire.Verify{Command: entry, Matches: `CUDA\d+:`},
			[]string{`cannot verify w 2: the output does not match CUDA\d+:`, "Available devices:\n  (none)"},
		},
		"no output":     {"exit 0", wire.Verify{Command: entry, Matches: "x"}, []string{"does not match x, without any output"}},
		"long output":   {"i=0; while [ $i -lt 9 ]; do printf '%01000d\\n' $i; i=$((i+1)); done; exit 1", wire.Verify{Command: entry}, []string{"exit status 1:\n…000", "08"}},
		"no program":    {"exit 0", wire.Verify{Command: []string{"{payload}/missing"}}, []string{"cannot verify w 2: ", "no such file"}},
		"no expression": {"exit 0", wire.Verify{Command: entry, Matches: "("}, []string{"invalid expression"}},
		"changed file":  {`echo more >>"${0%/*}/../lib/engine.so"`, wire.Verify{Command: entry}, []string{"the command changed lib/engine.so"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, old, archive := newHive(t), []byte("old"), verifyArchive(t, tt.script)
			if got := installVerified(t, h, worker("1", "", old), old); got != "" {
				t.Fatalf("install of version 1 = %q, want success", got)
			}
			if err := atomicfile.WriteData(h.Path(verify.LockFile), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			before := treeText(t, h.User)
			got := installVerified(t, h, verifyStep("2", archive, &tt.verify), archive)
			for _, want := range tt.want {
				if !strings.Contains(got, want) {
					t.Errorf("install = %q, want it to contain %q", got, want)
				}
			}
			if len(got) > maxErrorLength {
				t.Errorf("install returned an error of %d bytes, want at most %d", len(got), maxErrorLength)
			}
			if after := treeText(t, h.User); after != before {
				t.Errorf("the failed install changed the files (-before +after):\n%s", cmp.Diff(before, after))
			}
			if w := h.Worker(t.Context(), "w", true); w.Version != "1" || w.Corrupt != "" {
				t.Errorf("Worker() = %+v, want version 1 intact", w)
			}
		})
	}
}

// maxErrorLength limits the error of a failed verify command, including its output.
const maxErrorLength = 2300

func TestVerifyTimeoutKillsEveryProcess(t *testing.T) {
	t.Parallel()
	h, out := newHive(t), t.TempDir()
	// One child process stays in the process group, and the other one leaves it.
	script := `sleep 600 & echo $! >` + out + `/child
setsid sleep 600 & echo $! >` + out + `/detached
echo $$ >` + out + `/leader; echo waiting for the device; wait`
	archive := verifyArchive(t, script)
	got := installVerified(t, h, verifyStep("1", archive, &wire.Verify{Command: []string{"{entry}"}, LimitSeconds: 2}), archive)
	if want := "cannot verify w 1: no result within 2s:\nwaiting for the device"; got != want {
		t.Errorf("install = %q, want %q", got, want)
	}
	for _, name := range []string{"leader", "child", "detached"} {
		text, err := os.ReadFile(filepath.Join(out, name))
		pid, atoiErr := strconv.Atoi(strings.TrimSpace(string(text)))
		if err := errors.Join(err, atoiErr); err != nil {
			t.Fatalf("cannot read the PID of the %s process: %v", name, err)
		}
		waittest.Until(t, "the "+name+" process has exited", func() bool { _, err := proc.Identify(pid); return errors.Is(err, os.ErrProcessDone) })
	}
	if entries, _ := os.ReadDir(h.Path("workers/w")); len(entries) > 0 {
		t.Errorf("workers/w contains %v after the failed install, want nothing", entries)
	}
}

// TestVerifyKillsBackgroundProcesses checks that a verify command passes when its program
// exits, even if a child process keeps the output open, and that the child process is killed.
func TestVerifyKillsBackgroundProcesses(t *testing.T) {
	t.Parallel()
	h, out := newHive(t), t.TempDir()
	archive := verifyArchive(t, "sleep 600 & echo $! >"+out+"/child; echo device")
	if got := installVerified(t, h, verifyStep("1", archive, &wire.Verify{Command: []string{"{entry}"}, Matches: "device"}), archive); got != "" {
		t.Errorf("install = %q, want success", got)
	}
	text, err := os.ReadFile(out + "/child")
	pid, atoiErr := strconv.Atoi(strings.TrimSpace(string(text)))
	if err := errors.Join(err, atoiErr); err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, "the child process has exited", func() bool { _, err := proc.Identify(pid); return errors.Is(err, os.ErrProcessDone) })
}

func TestVerifyCanceled(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	dir := t.TempDir()
	e := engine.Engine{Entry: "/bin/sh", Payload: dir, Verify: &wire.Verify{Command: []string{"{entry}", "-c", "echo >started; sleep 600"}}}
	go func() {
		waittest.Until(t, "the command is running", func() bool { _, err := os.Stat(dir + "/started"); return err == nil })
		cancel(errDisconnected)
	}()
	if err := engine.Verify(ctx, e, dir); !errors.Is(err, errDisconnected) {
		t.Errorf("Verify() = %v, want %v", err, errDisconnected)
	}
}

// switchableWorker returns a step for a worker whose verify command fails after fail(true).
// count returns how often the command ran.
func switchableWorker(t *testing.T, h *Hive, v wire.Verify) (step wire.Step, archive []byte, count func() int, fail func(bool)) {
	t.Helper()
	flag, log := filepath.Join(h.User, "broken"), filepath.Join(h.User, "log")
	archive = verifyArchive(t, `echo ran >>'`+log+`'; if [ -e '`+flag+`' ]; then echo driver mismatch; exit 1; fi; echo device`)
	v.Command, v.Matches = []string{"{entry}"}, "device"
	count = func() int {
		data, _ := os.ReadFile(log)
		return strings.Count(string(data), "ran")
	}
	fail = func(broken bool) {
		err := os.RemoveAll(flag)
		if broken {
			err = os.WriteFile(flag, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return verifyStep("1", archive, &v), archive, count, fail
}

func TestDeepInspectionVerifies(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step, archive, count, fail := switchableWorker(t, h, wire.Verify{BeforeStart: true})
	if got := installVerified(t, h, step, archive); got != "" || count() != 1 {
		t.Fatalf("install = %q with %d verify runs, want success with 1", got, count())
	}
	fail(true)
	// The same install and a quick inspection do not run the verify command.
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, archive)
	if res.Errors[0] != "" || res.State.Workers[0].Corrupt != "" || count() != 1 {
		t.Errorf("the second install = %q, %+v with %d verify runs, want success with 1", res.Errors, res.State.Workers, count())
	}
	corrupt := func(deep bool) string {
		t.Helper()
		s, err := h.Inspect(t.Context(), inspect.Options{Deep: deep})
		if err != nil || len(s.Workers) != 1 {
			t.Fatalf("Inspect() = %+v, %v, want one worker", s, err)
		}
		return s.Workers[0].Corrupt
	}
	if got := corrupt(false); got != "" {
		t.Errorf("Corrupt after a quick inspection = %q, want it empty", got)
	}
	record := filepath.Join(h.BuildDir("w", "1"), verify.RecordName)
	if _, err := os.Stat(record); err != nil {
		t.Errorf("Stat() of the verify record after the install = %v, want it to exist", err)
	}
	if got, want := corrupt(true), "verify failed: exit status 1:\ndriver mismatch"; got != want {
		t.Errorf("Corrupt after a deep inspection = %q, want %q", got, want)
	}
	if _, err := os.Stat(record); err == nil {
		t.Error("the verify record exists after a failed verify command, want it removed")
	}
	fail(false)
	if got := corrupt(true); got != "" {
		t.Errorf("Corrupt after a successful deep inspection = %q, want it empty", got)
	}
}

func TestVerifyOneAtATime(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	marker := filepath.Join(h.User, "running")
	archive := verifyArchive(t, `mkdir '`+marker+`' || exit 1; i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; rmdir '`+marker+`'`)
	if got := installVerified(t, h, verifyStep("1", archive, &wire.Verify{Command: []string{"{entry}"}}), archive); got != "" {
		t.Fatalf("install = %q, want success", got)
	}
	results := make(chan string, 4)
	for range cap(results) {
		go func() {
			s, err := h.Inspect(t.Context(), inspect.Options{Deep: true})
			if err != nil {
				results <- err.Error()
				return
			}
			results <- s.Workers[0].Corrupt
		}()
	}
	for range cap(results) {
		if got := <-results; got != "" {
			t.Errorf("Corrupt after a concurrent deep inspection = %q, want it empty", got)
		}
	}
}

// TestVerifyCommandChangesWithoutInstall checks that a changed verify command of an installed
// worker runs before it is recorded, and is not recorded if it fails.
func TestVerifyCommandChangesWithoutInstall(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step, archive, count, fail := switchableWorker(t, h, wire.Verify{})
	if got := installVerified(t, h, step, archive); got != "" {
		t.Fatalf("install = %q, want success", got)
	}
	installed := h.Worker(t.Context(), "w", true)
	changed := *step.Worker
	changed.Verify = &wire.Verify{Command: []string{"{entry}", "--other"}, LimitSeconds: 5}
	step.Worker = &changed
	res := apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	w := res.State.Workers[0]
	if res.Errors[0] != "" || !w.Verify.Equal(changed.Verify) || !w.InstalledAt.Equal(installed.InstalledAt) || count() != 2 {
		body, _ := json.Marshal(res)
		t.Errorf("install with a changed command = %s with %d verify runs, want the new command recorded after 2", body, count())
	}
	fail(true)
	third := changed
	third.Verify = &wire.Verify{Command: []string{"{entry}", "--third"}, LimitSeconds: 5}
	step.Worker = &third
	res = apply(t, h, &wire.Request{Steps: []wire.Step{step}}, nil)
	if w := res.State.Workers[0]; !strings.Contains(res.Errors[0], "cannot verify w 1") || !w.Verify.Equal(changed.Verify) {
		t.Errorf("install with a failing command = %q, recorded %+v, want an error and %+v", res.Errors, w.Verify, changed.Verify)
	}
}

func TestVerifyBeforeStart(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step, archive, count, fail := switchableWorker(t, h, wire.Verify{BeforeStart: true})
	if got := installVerified(t, h, step, archive); got != "" {
		t.Fatalf("install = %q, want success", got)
	}
	start := func(wantRuns int, wantErr string) {
		t.Helper()
		e, err := h.EngineOfBuild(t.Context(), "w", "1")
		if err != nil && !strings.Contains(err.Error(), "has no recipe") {
			t.Fatal(err)
		}
		err = h.VerifyBeforeStart(t.Context(), "w", e)
		if got := operations.CodeOf(err); (wantErr == "") != (err == nil) || err != nil && (err.Error() != wantErr || got != operations.CodeFailed) {
			t.Errorf("VerifyBeforeStart() = %v (%s), want error %q", err, got, wantErr)
		}
		if count() != wantRuns {
			t.Errorf("verify runs = %d, want %d", count(), wantRuns)
		}
	}
	step.Worker.Launch = &wire.Launch{}
	if got := installVerified(t, h, step, nil); got != "" {
		t.Fatalf("install = %q, want success", got)
	}
	start(1, "") // the install already ran the command since the last boot
	record := filepath.Join(h.BuildDir("w", "1"), verify.RecordName)
	if err := atomicfile.WriteJSON(record, verify.Record{BootID: "an earlier boot", Verify: step.Worker.Verify}); err != nil {
		t.Fatal(err)
	}
	fail(true)
	start(2, "cannot verify w 1: exit status 1:\ndriver mismatch")
	start(3, "cannot verify w 1: exit status 1:\ndriver mismatch")
	fail(false)
	start(4, "")
	start(4, "")
}

// TestVerifyFailureFailsSpawn checks that a worker does not start if its verify command, which
// passed in an earlier boot, fails.
func TestVerifyFailureFailsSpawn(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step, archive, _, fail := switchableWorker(t, h, wire.Verify{BeforeStart: true})
	step.Worker.Launch = &wire.Launch{Args: []string{"{port}"}}
	if got := installVerified(t, h, step, archive); got != "" {
		t.Fatalf("install = %q, want success", got)
	}
	fail(true)
	if err := os.Remove(filepath.Join(h.BuildDir("w", "1"), verify.RecordName)); err != nil {
		t.Fatal(err)
	}
	rt, err := h.NewRuntime(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(rt.Workers.Close)
	if err := rt.Workers.Start(); err != nil {
		t.Fatal(err)
	}
	_, err = rt.Run(t.Context(), operations.WorkerSpawn{Worker: "w", Model: "m"}, nil)
	if want := "cannot verify w 1: exit status 1:\ndriver mismatch"; err == nil || err.Error() != want {
		t.Errorf("Run(WorkerSpawn) = %v, want %q", err, want)
	}
	if list := rt.Workers.List(true); len(list) > 0 {
		t.Errorf("List() after the failed spawn = %+v, want no worker", list)
	}
}

// TestVerifyKeptVersion checks that a version that is still on the hive is verified again
// before it is installed.
func TestVerifyKeptVersion(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	step, archive, count, fail := switchableWorker(t, h, wire.Verify{})
	next := []byte("next")
	if a, b := installVerified(t, h, step, archive), installVerified(t, h, worker("2", "", next), next); a+b != "" {
		t.Fatalf("install of two versions = %q, %q, want success", a, b)
	}
	fail(true)
	if got := installVerified(t, h, step, nil); !strings.Contains(got, "cannot verify w 1: exit status 1") || h.EntryBuild("w") != "2" {
		t.Errorf("install with a failing verify command = %q, build %s, want an error and build 2", got, h.EntryBuild("w"))
	}
	fail(false)
	if got := installVerified(t, h, step, nil); got != "" || h.EntryBuild("w") != "1" || count() != 3 {
		t.Errorf("install = %q, build %s with %d verify runs, want build 1 with 3", got, h.EntryBuild("w"), count())
	}
}

// TestVerifyPython checks that the verify command of a Python environment passes before and
// after the environment is moved, and that a failed install removes its tools.
func TestVerifyPython(t *testing.T) {
	t.Parallel()
	h, o := newHive(t), newOrigin(t)
	step := o.pythonWorker("one", "1.0", nil)
	step.Worker.Verify = &wire.Verify{Command: []string{"{entry}"}, Matches: "2.0"}
	if errs := install(t, h, step); !strings.Contains(errs[0], "cannot verify one 1.0: the output does not match 2.0:\n1.0") {
		t.Errorf("install() = %q, want an error of the verify command", errs[0])
	}
	for _, dir := range []string{wire.ToolsDir, wire.DownloadDir, "workers/one"} {
		if entries, _ := os.ReadDir(h.Path(dir)); len(entries) > 0 {
			t.Errorf("%s contains %v after the failed install, want nothing", dir, entries)
		}
	}
	step.Worker.Verify.Matches = "1.0"
	if errs := install(t, h, step); errs[0] != "" {
		t.Fatalf("install() = %q, want no errors", errs)
	}
	if s, err := h.Inspect(t.Context(), inspect.Options{Deep: true}); err != nil || len(s.Workers) != 1 || s.Workers[0].Corrupt != "" {
		t.Errorf("Inspect() = %+v, %v, want one intact worker", s, err)
	}
}

func TestVerifyLimit(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]time.Duration{0: 2 * time.Minute, 90: 90 * time.Second, 1e12: 30 * time.Minute, -1: 2 * time.Minute} {
		if got := (&wire.Verify{LimitSeconds: seconds}).Limit(); got != want {
			t.Errorf("Limit() of %v s = %s, want %s", seconds, got, want)
		}
	}
}
