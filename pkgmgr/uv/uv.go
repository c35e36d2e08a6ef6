// Package uv runs the uv program: on the machine that resolves packages and on the
// machines that install them.
//
// The result of a run depends on its arguments alone. uv reads many settings from
// variables (UV_*, PIP_*) and files (uv.toml, pip.conf); [Env] removes the variables
// and every command gets --no-config.
//
// See https://docs.astral.sh/uv/reference/cli/ and
// https://docs.astral.sh/uv/reference/environment/.
package uv

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"
)

// inherited are the variables of the user that uv gets: where its home is, how a
// network is reached, and which certificates and passwords are used for that.
var inherited = []string{
	"HOME", "PATH", "TMPDIR", "USER", "LOGNAME",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
}

// Env returns the environment for uv: the variables of environ that are not settings
// of uv, followed by set. An entry of set is NAME=value, as in [os.Environ].
func Env(environ []string, set ...string) []string {
	var env []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		// The test binary that stands in for uv is told so by a variable.
		if slices.Contains(inherited, name) || strings.HasPrefix(name, "RBEE_ORIGINTEST_") {
			env = append(env, v)
		}
	}
	return append(env, set...)
}

// Command is one run of uv.
type Command struct {
	Program string   // path of the uv program
	Args    []string // --no-config is added
	Env     []string // the complete environment, as [Env] returns it
	Dir     string   // working directory
	Stdin   io.Reader
}

// stopDelay limits how long the processes of a canceled run may take to exit.
const stopDelay = 5 * time.Second

// Run runs a command and waits for it. When ctx ends, uv and all processes that it
// started are killed and the error is the cause of ctx. Any other error is an [*Error].
func Run(ctx context.Context, c Command) error {
	words := slices.IndexFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, "-") })
	if words < 0 {
		words = len(c.Args)
	}
	args := slices.Insert(slices.Clone(c.Args), words, "--no-config")
	cmd := exec.CommandContext(ctx, c.Program, args...) //nolint:gosec // its checksum was verified
	cmd.Dir, cmd.Env, cmd.Stdin = c.Dir, c.Env, c.Stdin
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = stopDelay
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = io.Discard, &out
	err := cmd.Run()
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return newError(strings.Join(c.Args[:words], " "), out.String(), err)
}

// Error reports a failed run of uv.
type Error struct {
	Command string // such as "pip compile"
	Cause   string // one sentence without the final dot, the cause first
	Output  string // everything that uv printed, without passwords

	// NoSolution means that uv reached the index and no set of versions meets the
	// requirements on the given platform.
	NoSolution bool

	Err error // of the process
}

// Error returns the cause.
func (e *Error) Error() string { return e.Cause }

// Unwrap returns the error of the process.
func (e *Error) Unwrap() error { return e.Err }

// noSolutionStatus is the exit status of uv when resolution fails; all other failures
// have 2. See https://docs.astral.sh/uv/reference/cli/.
const noSolutionStatus = 1

func newError(command, output string, err error) *Error {
	output = redact(strings.TrimSpace(stripANSI(output)))
	r := parseReport(output)
	var exit *exec.ExitError
	status := -1
	if errors.As(err, &exit) {
		status = exit.ExitCode()
	}
	noSolution := strings.HasPrefix(r.title, "No solution found")
	e := &Error{Command: command, Output: output, Err: err}
	switch {
	case noSolution && r.denied != "":
		e.Cause = r.denied
	case noSolution:
		e.NoSolution = status == noSolutionStatus || status < 0
		e.Cause = r.conflict()
	case r.title != "":
		e.Cause = r.failure()
	default:
		e.Cause = lastLine(output)
	}
	if e.Cause == "" {
		e.Cause = fmt.Sprintf("uv %s: %v", command, err)
	}
	return e
}
