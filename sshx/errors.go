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

// Reason is the category of an [Error].
type Reason string

// The reasons. Their values are part of the API.
const (
	ReasonResolve        Reason = "resolve"          // the host name has no address
	ReasonRefused        Reason = "refused"          // the host refused the connection
	ReasonTimeout        Reason = "timeout"          // the host did not respond in time
	ReasonUnreachable    Reason = "unreachable"      // no route to the host
	ReasonAuth           Reason = "auth"             // the host rejected all keys and passwords, or the client has none
	ReasonHostKeyUnknown Reason = "host_key_unknown" // known_hosts has no key for the host, and the key was not accepted
	ReasonHostKeyChanged Reason = "host_key_changed" // known_hosts has a different key for the host, or the key is revoked
	ReasonProtocol       Reason = "protocol"         // the server is not an SSH server, or supports no common algorithm
	ReasonLost           Reason = "lost"             // the connection broke
	ReasonConfig         Reason = "config"           // ssh_config, known_hosts or a key file is invalid or cannot be read
	ReasonProhibited     Reason = "prohibited"       // the server does not allow forwarding
	ReasonCanceled       Reason = "canceled"         // the context was canceled
	ReasonFailed         Reason = "failed"           // the operation failed, but the connection is usable
)

// Error is the type of all errors except exit statuses, which are [ExitError] values.
type Error struct {
	Op     string // the operation, such as "dial", "run", "script", "put PATH" or "forward ADDRESS"
	Target string // resolved user@host:port, or "localhost" for [Local]
	Reason Reason
	Err    error // the cause; never nil
}

// opDial is the operation of [Dialer.Dial].
const opDial = "dial"

// Error returns the operation, the target and the cause.
func (e *Error) Error() string {
	verb, object, _ := strings.Cut(e.Op, " ")
	failure := e.Op + " " + e.Target
	switch verb {
	case opDial:
		failure = "cannot connect to " + e.Target
		switch e.Reason {
		case ReasonResolve, ReasonRefused, ReasonTimeout, ReasonUnreachable:
			failure = "cannot reach " + e.Target
		}
	case "connection":
		failure = "lost connection to " + e.Target
	case "resolve":
		failure = "cannot resolve the SSH settings of " + e.Target
	case "hosts":
		failure = fmt.Sprintf("cannot list the SSH hosts that match %q", e.Target)
	case "run":
		failure = "cannot run a command on " + e.Target
	case "script":
		failure = "cannot run a script on " + e.Target
	case "put":
		failure = "cannot write " + object + " on " + e.Target
	case "forward":
		failure = "cannot connect to " + object + " through " + e.Target
	}
	return fmt.Sprintf("%s: %v", failure, e.Err)
}

// Unwrap returns Err. For a canceled context, Err is or wraps the error of the context.
func (e *Error) Unwrap() error { return e.Err }

// ErrorCode returns the reason as a string. Packages that do not import sshx can use this method to classify errors.
func (e *Error) ErrorCode() string { return string(e.Reason) }

// HostKeyError describes a rejected host key. It is wrapped by an [Error] with reason [ReasonHostKeyUnknown] or
// [ReasonHostKeyChanged].
type HostKeyError struct {
	Host        string // host in the form used in known_hosts
	KeyType     string // type of the presented key, such as "ssh-ed25519"
	Fingerprint string // fingerprint of the presented key, in the form "SHA256:..."
	File        string // known_hosts file with the conflicting entry; empty if the host is unknown
	Line        int    // line of the conflicting entry, starting at 1
	Revoked     bool   // whether the conflicting entry is marked @revoked
	Err         error  // error while confirming or recording the key; may be nil
}

// Error returns the reason why the key was rejected, with its fingerprint and the conflicting entry, if any.
func (e *HostKeyError) Error() string {
	var s string
	switch {
	case e.Revoked:
		s = fmt.Sprintf("host key of %s is revoked: %s %s is marked @revoked in %s:%d", e.Host, e.KeyType, e.Fingerprint, e.File, e.Line)
	case e.File != "":
		s = fmt.Sprintf("host key of %s has changed: the host presented %s %s, but %s:%d has a different key", e.Host, e.KeyType, e.Fingerprint, e.File, e.Line)
	default:
		s = fmt.Sprintf("host key of %s is unknown: %s %s", e.Host, e.KeyType, e.Fingerprint)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns Err.
func (e *HostKeyError) Unwrap() error { return e.Err }

// ExitError is the error of a command that did not exit with status 0.
type ExitError struct {
	Argv   []string // the command; for Script it is {"sh", "-s"}
	Target string   // user@host:port, or "localhost" for [Local]
	Status int      // exit status; -1 if the host did not send one
	Signal string   // signal that terminated the command, without SIG, such as "KILL"; may be empty
	Stderr string   // end of the standard error, at most 4 KiB
}

// Error returns the target, the name of the command without its arguments, which may be secret, the exit status and the
// last line of standard error.
func (e *ExitError) Error() string {
	name := "command"
	if len(e.Argv) > 0 {
		name = e.Argv[0]
	}
	status := "exit status " + strconv.Itoa(e.Status)
	switch {
	case e.Signal != "":
		status = "terminated by signal " + e.Signal
	case e.Status < 0:
		status = "exited without a status"
	}
	s := fmt.Sprintf("%s: %s: %s", e.Target, name, status)
	if last := lastLine(e.Stderr); last != "" {
		s += ": " + last
	}
	return s
}

// ExitStatus returns Status. Packages that do not import sshx can use this method to get the exit status.
func (e *ExitError) ExitStatus() int { return e.Status }

// ErrChecksum is wrapped by the error that Put returns if the content does not have the expected SHA-256.
var ErrChecksum = errors.New("sha256 mismatch")

// lastLine returns the last non-blank line of s.
func lastLine(s string) string {
	s = strings.TrimRight(s, " \t\r\n")
	return strings.TrimSpace(s[strings.LastIndexByte(s, '\n')+1:])
}

// classify returns the reason for an error of the network or of a context.
func classify(err error) Reason {
	var sshErr *Error
	var dns *net.DNSError
	var open *ssh.OpenChannelError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &sshErr):
		return sshErr.Reason
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

// classifyChannel returns the reason for a rejected channel. The message of OpenSSH is the text that strerror returns.
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

// isDropped reports whether the connection was closed or reset.
func isDropped(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe)
}
