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

// startSleep starts a sleeping process with env in its environment.
func startSleep(t *testing.T, env string) *exec.Cmd {
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
	cmd := startSleep(t, "A=b")
	id := identify(t, cmd.Process.Pid)
	if !id.Alive() || !id.IsCurrentBoot() || id.PID != cmd.Process.Pid {
		t.Errorf("Identify(%d) = %+v, Alive() = %t, IsCurrentBoot() = %t, want the PID and true for both", cmd.Process.Pid, id, id.Alive(), id.IsCurrentBoot())
	}
	for name, other := range map[string]proc.ID{
		"zero ID":          {},
		"init":             {PID: 1, StartTime: "0", BootID: id.BootID},
		"other start time": {PID: id.PID, StartTime: id.StartTime + "1", BootID: id.BootID},
		"other boot":       {PID: id.PID, StartTime: id.StartTime, BootID: "other"},
		"unused PID":       {PID: 1 << 30, StartTime: "1", BootID: id.BootID},
	} {
		if other.Alive() {
			t.Errorf("%s: %+v.Alive() = true, want false", name, other)
		}
		if err := other.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("%s: %+v.Signal(SIGKILL) = %v, want %v", name, other, err, os.ErrProcessDone)
		}
	}
	if !id.Alive() {
		t.Fatal("Alive() = false after Signal() with other IDs, want true")
	}
	if err := id.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if proc.CanWait {
		if err := proc.Wait(id.PID); err != nil {
			t.Fatal(err)
		}
		// The process is a zombie until cmd.Wait reaps it.
		if id.Alive() {
			t.Error("Alive() of a zombie = true, want false")
		}
		if _, err := proc.Identify(id.PID); !errors.Is(err, os.ErrProcessDone) {
			t.Errorf("Identify() of a zombie = %v, want %v", err, os.ErrProcessDone)
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("cmd.Wait() = nil after SIGKILL, want an error: proc.Wait must not reap the process")
	}
}

func TestListAndFindByEnv(t *testing.T) {
	t.Parallel()
	cmd := startSleep(t, "RBEE_TEST_MARK=two words")
	other := startSleep(t, "RBEE_TEST_MARK=two words and more")
	id := identify(t, cmd.Process.Pid)
	all, err := proc.List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(p proc.Process) bool { return p.ID == id })
	if i < 0 || all[i].Parent != os.Getpid() || all[i].Group != syscall.Getpgrp() {
		t.Fatalf("List() = %+v, want %+v in it with parent %d and group %d", all, id, os.Getpid(), syscall.Getpgrp())
	}
	// The environment is visible once the child has called exec.
	var found []proc.ID
	for end := time.Now().Add(time.Minute); len(found) == 0 && time.Now().Before(end); {
		if found, err = proc.FindByEnv("RBEE_TEST_MARK", "two words"); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(found, []proc.ID{id}) {
		t.Errorf("FindByEnv(RBEE_TEST_MARK, two words) = %v, want only %v, not process %d", found, id, other.Process.Pid)
	}
	if found, err := proc.FindByEnv("RBEE_TEST", "MARK=two words"); err != nil || len(found) != 0 {
		t.Errorf("FindByEnv(RBEE_TEST, MARK=two words) = %v, %v, want none", found, err)
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
	if !proc.CanWait {
		t.Skip("needs /proc")
	}
	if pid, known := proc.Listener(port, []int{os.Getpid()}); !known || pid != os.Getpid() {
		t.Errorf("Listener() for a port of this process = %d, %t, want %d, true", pid, known, os.Getpid())
	}
	if pid, known := proc.Listener(port, []int{1 << 30}); !known || pid != 0 {
		t.Errorf("Listener() for other processes = %d, %t, want 0, true", pid, known)
	}
	if pid, known := proc.Listener(1, []int{os.Getpid()}); known || pid != 0 {
		t.Errorf("Listener() for an unused port = %d, %t, want 0, false", pid, known)
	}
}

func TestArgumentsAndMemory(t *testing.T) {
	t.Parallel()
	cmd := startSleep(t, "A=b")
	identify(t, cmd.Process.Pid)
	var args []string
	for end := time.Now().Add(time.Minute); !slices.Equal(args, []string{"sleep", "60"}); {
		if time.Now().After(end) {
			t.Fatalf("Arguments(%d) = %q, want sleep 60", cmd.Process.Pid, args)
		}
		args = proc.Arguments(cmd.Process.Pid)
	}
	if proc.CanWait && proc.Memory(os.Getpid()) < 1<<20 {
		t.Errorf("Memory(%d) = %d, want at least 1 MiB", os.Getpid(), proc.Memory(os.Getpid()))
	}
	if memory, args := proc.Memory(1<<30), proc.Arguments(1<<30); memory != 0 || args != nil {
		t.Errorf("Memory(), Arguments() for an unused pid = %d, %q, want 0, nil", memory, args)
	}
}
