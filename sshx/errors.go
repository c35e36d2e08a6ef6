package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/crypto/ssh"
)

// Reason is the class of an [Error], for programs to branch on.
type Reason string

// The reasons. Their text is part of the API.
const (
	ReasonResolve        Reason = "resolve"          // the host name has no address
	ReasonRefused        Reason = "refused"          // nothing listens on the port
	ReasonTimeout        Reason = "timeout"          // no answer in time
	ReasonUnreachable    Reason = "unreachable"      // no route to the host
	ReasonAuth           Reason = "auth"             // every key and password was refused
	ReasonHostKeyUnknown Reason = "host_key_unknown" // known_hosts has no key for the host and nobody accepted it
	ReasonHostKeyChanged Reason = "host_key_changed" // known_hosts has another key, or the key is revoked
	ReasonProtocol       Reason = "protocol"         // the other side does not speak SSH, or no common algorithm
	ReasonLost           Reason = "lost"             // the connection died
	ReasonConfig         Reason = "config"           // ssh_config, known_hosts or a key file cannot be used
	ReasonProhibited     Reason = "prohibited"       // the server does not allow the forwarding
	ReasonCanceled       Reason = "canceled"         // the caller's context was canceled
	ReasonFailed         Reason = "failed"           // the operation itself failed on a working connection
)

// Error is any failure that is not a command's own exit status (that is [ExitError]).
type Error struct {
	Op     string // what was tried: "dial", "run", "script", "put", "forward"
	Target string // user@host:port as resolved, or "localhost" for [Local]
	Reason Reason
	Err    error // the cause; never nil
}

func (e *Error) Error() string {
	return fmt.Sprintf("%s %s: %v", e.Op, e.Target, e.Err)
}

// Unwrap gives the cause. For a canceled context it is or wraps the context's error.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode is the reason as text, so that other packages can classify without importing this one.
func (e *Error) ErrorCode() string { return string(e.Reason) }

// HostKeyError is found with errors.As in an [Error] whose reason is host_key_unknown or host_key_changed.
type HostKeyError struct {
	Host        string // as known_hosts would name it
	KeyType     string // of the key that the host showed, e.g. ssh-ed25519
	Fingerprint string // of that key, as "SHA256:..."
	File        string // known_hosts file that disagrees; "" when the host is unknown
	Line        int    // its line, from 1
	Revoked     bool   // the line says @revoked
	Err         error  // why an answer could not be asked for or written down; may be nil
}

func (e *HostKeyError) Error() string {
	var s string
	switch {
	case e.Revoked:
		s = fmt.Sprintf("host key of %s is revoked: %s %s is marked @revoked in %s:%d", e.Host, e.KeyType, e.Fingerprint, e.File, e.Line)
	case e.File != "":
		s = fmt.Sprintf("host key of %s has changed: it now shows %s %s, but %s:%d has another key", e.Host, e.KeyType, e.Fingerprint, e.File, e.Line)
	default:
		s = fmt.Sprintf("host key of %s is unknown: %s %s", e.Host, e.KeyType, e.Fingerprint)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives Err.
func (e *HostKeyError) Unwrap() error { return e.Err }

// ExitError says that a command was started and ended badly.
type ExitError struct {
	Argv   []string // the command; for Script it is {"sh", "-s"}
	Target string   // where it ran
	Status int      // exit status; -1 when the far side sent none
	Signal string   // name without SIG, such as "KILL", when a signal ended it; else ""
	Stderr string   // the end of its standard error, at most 4 KiB
}

// Error shows the command's name only: its arguments may be secret.
func (e *ExitError) Error() string {
	name := "command"
	if len(e.Argv) > 0 {
		name = e.Argv[0]
	}
	how := "exit status " + strconv.Itoa(e.Status)
	switch {
	case e.Signal != "":
		how = "ended by signal " + e.Signal
	case e.Status < 0:
		how = "ended without an exit status"
	}
	s := fmt.Sprintf("%s: %s: %s", e.Target, name, how)
	if last := lastLine(e.Stderr); last != "" {
		s += ": " + last
	}
	return s
}

// ExitStatus is Status, so that other packages can read it without importing this one.
func (e *ExitError) ExitStatus() int { return e.Status }

// ErrChecksum is wrapped by Put's error when the content does not have the expected SHA-256.
var ErrChecksum = errors.New("content does not have the expected sha256")

// lastLine is the last line of s that is not blank.
func lastLine(s string) string {
	s = strings.TrimRight(s, " \t\r\n")
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// classify gives the reason of a network error or of a context's end. It is the one place that reads error texts.
func classify(err error) Reason {
	var own *Error
	var dns *net.DNSError
	var open *ssh.OpenChannelError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &own):
		return own.Reason
	case errors.Is(err, context.Canceled):
		return ReasonCanceled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return ReasonTimeout
	case errors.As(err, &dns):
		return ReasonResolve
	case errors.Is(err, syscall.ECONNREFUSED):
		return ReasonRefused
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return ReasonUnreachable
	case errors.As(err, &timeout) && timeout.Timeout():
		return ReasonTimeout
	case errors.As(err, &open):
		return classifyChannel(open)
	case isDropped(err):
		return ReasonLost
	}
	return ReasonFailed
}

// classifyChannel reads why a server could not open a channel for us. OpenSSH sends strerror's words as message.
func classifyChannel(err *ssh.OpenChannelError) Reason {
	msg := strings.ToLower(err.Message)
	switch {
	case err.Reason == ssh.Prohibited:
		return ReasonProhibited
	case strings.Contains(msg, "timed out"):
		return ReasonTimeout
	case strings.Contains(msg, "no route"), strings.Contains(msg, "unreachable"):
		return ReasonUnreachable
	case strings.Contains(msg, "not known"), strings.Contains(msg, "name resolution"), strings.Contains(msg, "no such host"):
		return ReasonResolve
	case err.Reason == ssh.ConnectionFailed:
		return ReasonRefused
	}
	return ReasonFailed
}

// isDropped tells whether the other side closed or reset the connection.
func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
