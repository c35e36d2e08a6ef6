//go:build unix

package sshtest_test

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"golang.org/x/crypto/ssh"
)

// connect logs in with x/crypto/ssh, so that these tests do not depend on package sshx.
func connect(t *testing.T, h *sshtest.Host, key ssh.Signer) (*ssh.Client, error) {
	t.Helper()
	c, err := ssh.Dial("tcp", h.Addr(), &ssh.ClientConfig{
		User: h.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(key)}, HostKeyCallback: ssh.FixedHostKey(h.HostKeys()[0]),
	})
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

func newHost(t *testing.T, o sshtest.Options) (*sshtest.Host, *ssh.Client) {
	t.Helper()
	key, _, err := sshtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	o.AuthorizedKeys = []ssh.PublicKey{key.PublicKey()}
	h, err := sshtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	c, err := connect(t, h, key)
	if err != nil {
		t.Fatal(err)
	}
	return h, c
}

// run runs a command and returns its standard output.
func run(t *testing.T, c *ssh.Client, command string) (string, error) {
	t.Helper()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	out, err := s.Output(command)
	return string(out), err
}

// waitUntil waits until ok returns true.
func waitUntil(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	deadline, tick := time.NewTimer(time.Minute), time.NewTicker(5*time.Millisecond)
	defer deadline.Stop()
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("timeout waiting for: %s", condition)
		}
	}
}

func TestSession(t *testing.T) {
	t.Parallel()
	h, c := newHost(t, sshtest.Options{Env: []string{"EXTRA=more", "USER=other"}, StartupOutput: "startup\n"})
	out, err := run(t, c, `echo "$HOME $USER $EXTRA"; pwd`)
	if want := "startup\n" + h.Home() + " other more\n" + h.Home() + "\n"; err != nil || out != want {
		t.Errorf("the echo command printed %q, error %v, want %q", out, err, want)
	}
	_, err = run(t, c, "exit 42")
	var exit *ssh.ExitError
	if !errors.As(err, &exit) || exit.ExitStatus() != 42 {
		t.Errorf("the command \"exit 42\" returned %v, want exit status 42", err)
	}
	_, err = run(t, c, "kill -TERM $$")
	if !errors.As(err, &exit) || exit.Signal() != "TERM" {
		t.Errorf("the command \"kill -TERM $$\" returned %v, want signal TERM", err)
	}
	if got, want := h.Stats(), (sshtest.Stats{Connections: 1, Logins: 1, Execs: 3}); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}

func TestZeroOptionsRejectLogin(t *testing.T) {
	t.Parallel()
	h, err := sshtest.New(sshtest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	key, _, _ := sshtest.NewKey()
	if _, err := connect(t, h, key); err == nil {
		t.Error("login with an unknown key = nil, want an error")
	}
}

// TestHangUp checks that a command gets EOF and SIGHUP when the connection is lost.
func TestHangUp(t *testing.T) {
	t.Parallel()
	h, c := newHost(t, sshtest.Options{})
	for name, command := range map[string]string{"eof": "cat >/dev/null; echo > eof", "hup": "exec 2>/dev/null; trap 'echo > hup; exit' HUP; echo > ready; while :; do sleep 0.02; done"} {
		s, err := c.NewSession()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.StdinPipe(); err != nil {
			t.Fatal(err)
		}
		if name == "eof" {
			command = "trap '' HUP; " + "echo > up; " + command
		}
		if err := s.Start(command); err != nil {
			t.Fatal(err)
		}
	}
	exists := func(name string) func() bool {
		return func() bool { _, err := os.Stat(filepath.Join(h.Home(), name)); return err == nil }
	}
	waitUntil(t, "start of both commands", func() bool { return exists("ready")() && exists("up")() })
	h.Cut()
	waitUntil(t, "EOF", exists("eof"))
	waitUntil(t, "SIGHUP", exists("hup"))
}

// TestClose checks that Close removes all processes and files, except a daemon that has left its process group.
func TestClose(t *testing.T) {
	t.Parallel()
	h, c := newHost(t, sshtest.Options{})
	setsid, err := exec.LookPath("setsid")
	if err != nil {
		setsid = ""
	}
	pids := filepath.Join(t.TempDir(), "pids")
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start("trap '' HUP; sleep 300 & echo $! > " + pids + ".new; mv " + pids + ".new " + pids + "; wait"); err != nil {
		t.Fatal(err)
	}
	daemon := filepath.Join(t.TempDir(), "daemon")
	if setsid != "" {
		if _, err := run(t, c, setsid+" sh -c 'echo $$ > "+daemon+".new; mv "+daemon+".new "+daemon+"; exec sleep 300' >/dev/null 2>&1 </dev/null &"); err != nil {
			t.Fatal(err)
		}
	}
	pid := readPID(t, pids)
	if setsid != "" {
		readPID(t, daemon) // the daemon has left the process group
	}
	h.Close()
	waitUntil(t, "exit of the session process", func() bool { return !isRunning(pid) })
	if _, err := os.Stat(h.Home()); !os.IsNotExist(err) {
		t.Errorf("Stat() of the home directory after Close returned %v, want not exist", err)
	}
	if setsid != "" {
		pid := readPID(t, daemon)
		if !isRunning(pid) {
			t.Error("Close() killed the daemon, want it running")
		}
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

func readPID(t *testing.T, file string) (pid int) {
	t.Helper()
	waitUntil(t, file, func() bool { _, err := os.Stat(file); return err == nil })
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if pid, err = strconv.Atoi(strings.TrimSpace(string(text))); err != nil {
		t.Fatal(err)
	}
	return pid
}

// isRunning reports whether the process exists and is not a zombie.
func isRunning(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	return err != nil || !strings.Contains(string(stat), ") Z ")
}

func TestFaults(t *testing.T) {
	t.Parallel()
	key, _, _ := sshtest.NewKey()
	h, err := sshtest.New(sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()

	h.Refuse(true)
	if _, err := connect(t, h, key); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("login after Refuse(true) returned %v, want %v", err, syscall.ECONNREFUSED)
	}
	if err := h.Refuse(false); err != nil {
		t.Fatal(err)
	}

	h.Stall(true)
	conn, err := net.Dial("tcp", h.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := conn.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read() after Stall(true) = %d, %v, want %v", n, err, os.ErrDeadlineExceeded)
	}
	h.Stall(false)
	conn.SetReadDeadline(time.Time{})
	if _, err := io.ReadFull(conn, make([]byte, 4)); err != nil {
		t.Errorf("Read() after Stall(false) = %v, want nil", err)
	}

	h.DropNext(1)
	if _, err := connect(t, h, key); err == nil {
		t.Error("login after DropNext(1) succeeded, want an error")
	}
	old := h.HostKeys()[0]
	if err := h.Rekey(); err != nil {
		t.Fatal(err)
	}
	if string(h.HostKeys()[0].Marshal()) == string(old.Marshal()) {
		t.Error("HostKeys() returned the old key after Rekey(), want a new key")
	}
	c, err := connect(t, h, key)
	if err != nil {
		t.Fatal(err)
	}
	h.CutAfter(1000)
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdin = strings.NewReader(strings.Repeat("x", 100000))
	if err := s.Run("cat >/dev/null"); err == nil {
		t.Error("command after CutAfter(1000) succeeded, want an error")
	}
	if err := c.Wait(); err == nil {
		t.Error("Wait() returned nil after the connection was cut, want an error")
	}
}
