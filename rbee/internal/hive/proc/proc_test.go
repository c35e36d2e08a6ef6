package proc_test

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// sleeper starts a process that does nothing, with a variable in its environment.
func sleeper(t *testing.T, env string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.Env = append(os.Environ(), env)
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	return cmd
}

func identify(t *testing.T, pid int) proc.ID {
	t.Helper()
	id, err := proc.Identify(pid)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestIdentity(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, "A=b")
	id := identify(t, cmd.Process.Pid)
	if !id.Alive() || !id.ThisBoot() || id.PID != cmd.Process.Pid {
		t.Errorf("%+v", id)
	}
	for name, other := range map[string]proc.ID{
		"none":           {},
		"init":           {PID: 1, StartTime: "0", BootID: id.BootID},
		"another start":  {PID: id.PID, StartTime: id.StartTime + "1", BootID: id.BootID},
		"another boot":   {PID: id.PID, StartTime: id.StartTime, BootID: "other"},
		"never existing": {PID: 1 << 30, StartTime: "1", BootID: id.BootID},
	} {
		if other.Alive() {
			t.Errorf("%s is alive", name)
		}
		if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: signaled, %v", name, err)
		}
	}
	if !id.Alive() {
		t.Fatal("a stranger's identity ended the process")
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if proc.Holds {
		if err := proc.Wait(id.PID); err != nil {
			t.Fatal(err)
		}
		// It has ended and waits to be asked for its status: that is no life.
		if id.Alive() {
			t.Error("alive after its end")
		}
		if _, err := proc.Identify(id.PID); !errors.Is(err, os.ErrProcessDone) {
			t.Error(err)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("its exit status was lost")
	}
}

func TestListAndMarked(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, "RBEE_TEST_MARK=these words")
	other := sleeper(t, "RBEE_TEST_MARK=these words, and more")
	id := identify(t, cmd.Process.Pid)
	all, err := proc.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p proc.Process) bool { return p.ID == id })
	if i < 0 || all[i].Parent != os.Getpid() || all[i].Group != syscall.Getpgrp() {
		t.Fatalf("listed at %d", i)
	}
	// The program's own environment is there once it has replaced this one's copy.
	var marked []proc.ID
	for end := time.Now().Add(time.Minute); len(marked) == 0 && time.Now().Before(end); {
		if marked, err = proc.Marked("RBEE_TEST_MARK", "these words"); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(marked, []proc.ID{id}) {
		t.Errorf("marked %v, want %v and not %d", marked, id, other.Process.Pid)
	}
	if none, err := proc.Marked("RBEE_TEST", "MARK=these words"); err != nil || len(none) != 0 {
		t.Errorf("half a name: %v, %v", none, err)
	}
}

func TestListener(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	port := ln.Addr().(*net.TCPAddr).Port
	if !proc.Holds {
		t.Skip("needs /proc")
	}
	if pid, known := proc.Listener(port, []int{os.Getpid()}); !known || pid != os.Getpid() {
		t.Errorf("own port: %d, %t", pid, known)
	}
	if pid, known := proc.Listener(port, []int{1 << 30}); !known || pid != 0 {
		t.Errorf("a stranger's: %d, %t", pid, known)
	}
	if pid, known := proc.Listener(1, []int{os.Getpid()}); known || pid != 0 {
		t.Errorf("nobody's: %d, %t", pid, known)
	}
}

func TestArgumentsAndMemory(t *testing.T) {
	t.Parallel()
	cmd := sleeper(t, "A=b")
	identify(t, cmd.Process.Pid)
	var args []string
	for end := time.Now().Add(time.Minute); !slices.Equal(args, []string{"sleep", "60"}); {
		if time.Now().After(end) {
			t.Fatalf("arguments %q", args)
		}
		args = proc.Arguments(cmd.Process.Pid)
	}
	if proc.Holds && proc.Memory(os.Getpid()) < 1<<20 {
		t.Errorf("memory %d", proc.Memory(os.Getpid()))
	}
	if proc.Memory(1<<30) != 0 || proc.Arguments(1<<30) != nil {
		t.Error("nobody has something")
	}
}
