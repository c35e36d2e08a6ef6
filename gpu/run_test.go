//go:build unix

package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
)

// script creates a shell script that replaces a vendor's tool, and returns its directory.
func script(t *testing.T, name, body string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+body), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestDetectWithTools runs tools in PATH with the default runner.
func TestDetectWithTools(t *testing.T) {
	here, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}
	dir := script(t, "nvidia-smi", `
case "$1" in
--query-gpu=*) [ "$2" = --format=csv,noheader,nounits ] && [ "$LC_ALL" = C ] && exec cat '`+here+`/nvidia_two.csv' ;;
-q) [ "$2 $3" = "-d PIDS" ] && exec cat '`+here+`/nvidia_pids_570.txt' ;;
"") exec cat '`+here+`/nvidia_table_570.txt' ;;
esac
echo "unexpected: $*"; exit 2
`)
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	d := Detector{Sys: t.TempDir(), goos: "linux"}
	report, err := d.Detect(t.Context())
	if err != nil || len(report.Devices) != 2 || report.Devices[0].Name != "NVIDIA H100 80GB HBM3" || report.CUDA != "12.8" {
		t.Errorf("Detect() = %s, %v, want 2 devices and CUDA 12.8", toJSON(report), err)
	}
	processes, err := d.Processes(t.Context())
	if err != nil || len(processes) != 5 || processes[2].DeviceUUID != report.Devices[0].UUID || processes[2].Name != "/usr/lib/xorg/Xorg" {
		t.Errorf("Processes() = %s, %v, want 5 processes with device UUIDs", toJSON(processes), err)
	}
}

// TestKillHangingTool checks that a tool that hangs is killed with its children and that the
// device has an error.
func TestKillHangingTool(t *testing.T) {
	pidFile := filepath.Join(t.TempDir(), "pid")
	dir := script(t, "nvidia-smi", "sleep 600 & echo $! >"+pidFile+"\nwait\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	d := Detector{Sys: t.TempDir(), Timeout: 2 * time.Second, goos: "linux"}
	start := time.Now()
	report, err := d.Detect(t.Context())
	if err != nil || len(report.Devices) != 1 || report.Devices[0].Error != "nvidia-smi did not finish within 2s and was killed" {
		t.Errorf("Detect() = %s, %v, want one device with the timeout as error", toJSON(report), err)
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("Detect() took %s, want about 2s", took)
	}
	text, err := os.ReadFile(pidFile)
	if err != nil {
		t.Fatal(err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	waittest.Until(t, fmt.Sprintf("the child %d of the tool has exited", child), func() bool { return !alive(child) })
}

// alive reports whether a process runs. A zombie process does not run.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	_, state, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(state, "Z")
}

func TestToolsRun(t *testing.T) {
	dir := script(t, "tool", `echo out "$@"; echo err >&2; exit 7`)
	if err := os.WriteFile(filepath.Join(dir, "flood"), []byte("#!/bin/sh\nhead -c 9000000 /dev/zero\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	var tools Tools
	r, err := tools.Run(t.Context(), "tool", "a b", "c")
	if err != nil || string(r.Stdout) != "out a b c\n" || string(r.Stderr) != "err\n" || r.ExitCode != 7 {
		t.Errorf("Run(tool) = %+v, %v, want its output and exit code 7", r, err)
	}
	r, err = tools.Run(t.Context(), "flood")
	if err != nil || len(r.Stdout) != maxOutput || r.ExitCode != 0 {
		t.Errorf("Run(flood) = %d bytes, exit code %d, %v, want %d bytes", len(r.Stdout), r.ExitCode, err, maxOutput)
	}
	if _, err := tools.Run(t.Context(), "no-such-tool"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("Run(no-such-tool) = %v, want exec.ErrNotFound", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tools.Run(ctx, "tool"); !errors.Is(err, context.Canceled) {
		t.Errorf("Run(canceled) = %v, want context.Canceled", err)
	}
}

// TestHangingToolIsNotRestarted checks that a tool that cannot be killed is not started again
// until it has exited. The fake tool waits for input from a pipe, and kill does nothing.
func TestHangingToolIsNotRestarted(t *testing.T) {
	dir := t.TempDir()
	started, pipe := filepath.Join(dir, "started"), filepath.Join(dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	release, err := os.OpenFile(pipe, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { release.Close() }) // stops remaining tools
	t.Setenv("PATH", script(t, "nvidia-smi", "echo $$ >>"+started+"\nread line <"+pipe+"\n")+":"+os.Getenv("PATH"))
	d := Detector{Sys: dir, Timeout: 50 * time.Millisecond, goos: "linux"}
	d.tools.kill, d.tools.exitTimeout = func(*exec.Cmd) {}, time.Millisecond
	detect := func() string {
		devices, err := d.Devices(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return toJSON(devices)
	}
	pids := func() []string {
		text, _ := os.ReadFile(started)
		return strings.Fields(string(text))
	}
	before := time.Now()
	if got := detect(); !strings.Contains(got, "did not finish within 50ms") {
		t.Errorf("the first Devices() = %s, want a timeout", got)
	}
	waittest.Until(t, "the tool has started", func() bool { return len(pids()) == 1 })
	for range 3 {
		hang := d.tools.hangingProcess(nvidiaSMI)
		if hang == nil || strconv.Itoa(hang.PID) != pids()[0] || hang.Since.Before(before) {
			t.Fatalf("hangingProcess() = %+v, want the process of %q", hang, pids())
		}
		if got := detect(); !strings.Contains(got, hang.Error()) {
			t.Errorf("the next Devices() = %s, want the error %q", got, hang.Error())
		}
		if _, err := d.Processes(t.Context()); !errors.As(err, &hang) {
			t.Errorf("Processes() = %v, want a HangError", err)
		}
	}
	if n := len(pids()); n != 1 {
		t.Errorf("the tool was started %d times, want once", n)
	}
	if _, err := release.WriteString("\n\n"); err != nil { // for this process and the next
		t.Fatal(err)
	}
	waittest.Until(t, "the tool has exited and runs again", func() bool { return detect() == "[]" && len(pids()) > 1 })
}
