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

func TestHandshakeSlots(t *testing.T) {
	t.Parallel()
	s := handshakeSlots{all: make(chan struct{}, handshakesPerAddress+2)}
	ctx := t.Context()
	var releases []func()
	acquire := func(key string) {
		t.Helper()
		r, err := s.acquire(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, r)
	}
	wantFull := func(key string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 10*time.Millisecond)
		defer cancel()
		if _, err := s.acquire(ctx, key); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("acquire(%s) returned %v, want %v", key, err, context.DeadlineExceeded)
		}
	}
	for range handshakesPerAddress {
		acquire("a")
	}
	wantFull("a") // limit per address
	acquire("b")
	acquire("b")
	wantFull("b") // total limit
	wantFull("c")
	for _, r := range releases {
		r()
	}
	for range handshakesPerAddress { // failed calls did not leak slots
		acquire("b")
	}
}

func TestPutPaths(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"a": "./a", "a/b": "./a/b", "/a": "/a", "~/a": "./a", "-x": "./-x", "./a": "././a", "~a": "./~a", "": "", "/": "", "a/": "", "a/..": "", "x\x00": "",
	} {
		target, temp, err := putPaths(path)
		if (err != nil) != (want == "") || target != want {
			t.Errorf("putPaths(%q) = %q, %v, want %q", path, target, err, want)
		}
		if err == nil && target[:strings.LastIndexByte(target, '/')] != temp[:strings.LastIndexByte(temp, '/')] {
			t.Errorf("putPaths(%q) returned temporary file %q, want one in the same directory", path, temp)
		}
	}
}

// TestQuotedScripts checks that the texts in single quotes contain no characters that are special to csh or fish.
func TestQuotedScripts(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"put": joinScript(putSource), "run": strings.TrimSuffix(strings.TrimPrefix(runWrapper, "sh -c '"), "' sh ")} {
		if strings.ContainsAny(text, "'!\\\n") {
			t.Errorf("the %s command is %s, want no ' ! \\ or newline in it", name, text)
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
			t.Errorf("Write() in pieces of %d bytes reported tool %q, want gzip", size, tool)
		}
		select {
		case <-o.content:
		default:
			t.Errorf("Write() in pieces of %d bytes reported no content, want its checksum", size)
		}
	}
	for _, invalid := range []string{"cat\n-1\n", "cat\nx\n", strings.Repeat("x", 100)} {
		if _, err := newPutOutput().Write([]byte(invalid)); err == nil {
			t.Errorf("Write(%q) returned no error, want one", invalid)
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
			t.Errorf("classify(%v) = %q, want %q", c.err, got, c.want)
		}
	}
}

func TestToolErrorWrapsSystemError(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]syscall.Errno{
		"gzip: stdout: No space left on device":              syscall.ENOSPC,
		"sh: 1: cannot create /x: Permission denied":         syscall.EACCES,
		"mkdir: cannot create '/x': Read-only file system\n": syscall.EROFS,
		"no space left on device: /x":                        0,
		"":                                                   0,
	} {
		err := error(&Error{Op: "put", Reason: ReasonFailed, Err: &toolError{&ExitError{Status: 1, Stderr: line}}})
		if want != 0 && !errors.Is(err, want) || want == 0 && (errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES)) {
			t.Errorf("error of a tool with stderr %q = %v, want an error that wraps only %v", line, err, want)
		}
		if exit := (*ExitError)(nil); !errors.As(err, &exit) || exit.Status != 1 {
			t.Errorf("error of a tool with stderr %q = %v, want an error that wraps an ExitError with status 1", line, err)
		}
	}
}
