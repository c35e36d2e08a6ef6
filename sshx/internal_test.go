package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

func TestSlots(t *testing.T) {
	t.Parallel()
	s := slots{all: make(chan struct{}, handshakesPerAddress+2)}
	ctx := t.Context()
	var release []func()
	take := func(key string) {
		t.Helper()
		r, err := s.acquire(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		release = append(release, r)
	}
	full := func(key string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := s.acquire(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one more for %s: %v", key, err)
		}
	}
	for range handshakesPerAddress {
		take("a")
	}
	full("a") // its own limit
	take("b")
	take("b")
	full("b") // the limit for all
	full("c")
	for _, r := range release {
		r()
	}
	for range handshakesPerAddress { // nothing was lost on the way
		take("b")
	}
}

func TestClock(t *testing.T) {
	t.Parallel()
	cause := errors.New("late")
	ctx, c, stop := startClock(t.Context(), 50*time.Millisecond, cause)
	defer stop()
	<-time.After(70 * time.Millisecond)
	if ctx.Err() != nil {
		t.Fatal("the clock ran before it was started")
	}
	c.resume()
	c.pause()
	c.pause()
	c.resume()
	<-time.After(70 * time.Millisecond)
	if ctx.Err() != nil {
		t.Fatal("the clock ran while it was held")
	}
	c.resume()
	<-ctx.Done()
	if !errors.Is(context.Cause(ctx), cause) {
		t.Errorf("cause %v", context.Cause(ctx))
	}
}

func TestPutPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"a": "./a", "a/b": "./a/b", "/a": "/a", "~/a": "./a", "-x": "./-x", "./a": "././a", "~a": "./~a", "": "", "/": "", "a/": "", "a/..": "", "x\x00": "",
	} {
		target, temp, err := putPaths(path)
		if (err != nil) != (want == "") || target != want {
			t.Errorf("%q becomes %q, %v", path, target, err)
		}
		if err == nil && target[:strings.LastIndexByte(target, '/')] != temp[:strings.LastIndexByte(temp, '/')] {
			t.Errorf("%q: temporary file %q lies elsewhere", path, temp)
		}
	}
}

// TestFixedCommands keeps what stands in single quotes for any login shell free of what csh and fish take apart there.
func TestFixedCommands(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"put": joinScript(putSource), "run": strings.TrimSuffix(strings.TrimPrefix(runWrapper, "sh -c '"), "' sh ")} {
		if strings.ContainsAny(text, "'!\\\n") {
			t.Errorf("%s holds one of ' ! \\ newline: %s", name, text)
		}
	}
}

func TestPutOutput(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 2, 1000} {
		o := newPutOutput()
		for piece := range slices.Chunk([]byte("gzip\n 5 \nhello and more"), size) {
			if _, err := o.Write(piece); err != nil {
				t.Fatal(err)
			}
		}
		if tool := <-o.tool; tool != "gzip" {
			t.Errorf("tool %q", tool)
		}
		select {
		case <-o.content:
		default:
			t.Error("no content")
		}
	}
	for _, bad := range []string{"cat\n-1\n", "cat\nx\n", strings.Repeat("x", 100)} {
		if _, err := newPutOutput().Write([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want Reason
	}{
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, ReasonRefused},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EHOSTUNREACH)}, ReasonUnreachable},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ENETUNREACH)}, ReasonUnreachable},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, ReasonTimeout},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, ReasonLost},
		{&net.DNSError{Name: "x", IsTimeout: true}, ReasonResolve},
		{context.Canceled, ReasonCanceled},
		{context.DeadlineExceeded, ReasonTimeout},
		{io.EOF, ReasonLost},
		{&ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection refused"}, ReasonRefused},
		{&ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Connection timed out"}, ReasonTimeout},
		{&ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "No route to host"}, ReasonUnreachable},
		{&ssh.OpenChannelError{Reason: ssh.ConnectionFailed, Message: "Name or service not known"}, ReasonResolve},
		{&ssh.OpenChannelError{Reason: ssh.Prohibited, Message: "open failed"}, ReasonProhibited},
		{&Error{Reason: ReasonAuth, Err: io.EOF}, ReasonAuth},
		{errors.New("something else"), ReasonFailed},
	} {
		if got := classify(fmt.Errorf("wrapped: %w", c.err)); got != c.want {
			t.Errorf("%v is %q, want %q", c.err, got, c.want)
		}
	}
}

func TestToolErrorIsSystemError(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]syscall.Errno{
		"gzip: stdout: No space left on device":              syscall.ENOSPC,
		"sh: 1: cannot create /x: Permission denied":         syscall.EACCES,
		"mkdir: cannot create '/x': Read-only file system\n": syscall.EROFS,
		"no space left on device, says /x":                   0,
		"":                                                   0,
	} {
		err := error(&Error{Op: "put", Reason: ReasonFailed, Err: &toolError{&ExitError{Status: 1, Stderr: line}}})
		if want != 0 && !errors.Is(err, want) || want == 0 && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES)) {
			t.Errorf("a tool that writes %q: errors.Is finds no %v", line, want)
		}
		if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Status != 1 {
			t.Errorf("a tool that writes %q: errors.As finds no ExitError", line)
		}
	}
}
