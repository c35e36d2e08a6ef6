package install

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr/waittest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
)

// BenchmarkIdleDaemon measures the memory and the CPU use, as a percentage of one core, of an
// idle daemon with four ready workers over ten seconds. Run it with -benchtime 1x.
func BenchmarkIdleDaemon(b *testing.B) {
	dir := b.TempDir()
	exe := filepath.Join(dir, "rbee")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", exe, "../../..")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	h := connect(filepath.Join(dir, "home"), "", "")
	port, ln := freePort(b)
	if err := ln.Close(); err != nil {
		b.Fatal(err)
	}
	entry := h.EntryPath("echo")
	if err := os.MkdirAll(h.Path(wire.WorkersDir), 0o755); err != nil {
		b.Fatal(err)
	}
	if err := os.Link(exe, entry); err != nil {
		b.Fatal(err)
	}
	daemon := exec.Command(exe, "hive", "serve", "--port", strconv.Itoa(port))
	daemon.Env = append(os.Environ(), "RBEE_HOME="+h.Root)
	if err := daemon.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = h.stopWorkers(context.Background(), "")
		_ = daemon.Process.Kill()
		_ = daemon.Wait()
	}()
	waittest.Until(b, "hive serve responds", func() bool { return h.State(b.Context()).Running })
	token, err := h.Token()
	if err != nil {
		b.Fatal(err)
	}
	c := &client.Client{URL: "http://" + control.Loopback(port), Token: operations.Secret(token)}
	for i := range 4 {
		if _, err := c.Run(b.Context(), operations.WorkerSpawn{Target: hiveTarget, Worker: "echo", Model: fmt.Sprint("m", i)}, nil); err != nil {
			b.Fatal(err)
		}
	}
	const period = 10 * time.Second
	<-time.After(time.Second) // excludes the cost of the start
	for b.Loop() {
		before := ticks(b, daemon.Process.Pid)
		<-time.After(period)
		used := ticks(b, daemon.Process.Pid) - before
		b.ReportMetric(float64(used)/100/period.Seconds()*100, "%core")
		b.ReportMetric(resident(b, daemon.Process.Pid), "MB-resident")
	}
}

// ticks returns the CPU time of a process in hundredths of a second.
func ticks(b *testing.B, pid int) int {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	f := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	user, _ := strconv.Atoi(f[11])
	system, _ := strconv.Atoi(f[12])
	return user + system
}

// resident returns the resident memory of a process in MB.
func resident(b *testing.B, pid int) float64 {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(data), "VmRSS:")
	kB, err := strconv.ParseFloat(strings.Fields(after)[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	return kB * 1024 / 1e6
}
