// Package uv runs the uv program, which resolves and installs Python packages.
//
// Settings of the user do not affect a run: [Env] removes the variables UV_* and PIP_*, and Run
// adds the flag --no-config, with which uv ignores uv.toml and pip.conf.
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

// inheritedVariables lists the environment variables that uv inherits: the home directory,
// proxies, certificates and credentials.
var inheritedVariables = []string{
	"HOME", "PATH", "TMPDIR", "USER", "LOGNAME",
	"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
	"NETRC", "SSL_CERT_FILE", "SSL_CERT_DIR", "SSL_CLIENT_CERT",
}

// Env returns the environment for uv: the permitted variables of environ, followed by set.
// The entries have the form NAME=value, as in [os.Environ].
func Env(environ []string, set ...string) []string {
	var env []string
	for _, v := range environ {
		name, _, _ := strings.Cut(v, "=")
		// In tests, the variables RBEE_ORIGINTEST_* make the test binary act as uv.
		if slices.Contains(inheritedVariables, name) || strings.HasPrefix(name, "RBEE_ORIGINTEST_") {
			env = append(env, v)
		}
	}
	return append(env, set...)
}

// Command is an invocation of uv.
type Command struct {
	Program string   // path of the uv program
	Args    []string // subcommand and flags; Run adds --no-config
	Env     []string // the complete environment, see [Env]
	Dir     string   // working directory
	Stdin   io.Reader
}

// stopDelay is the maximum time that Run waits for the processes of a canceled run to exit.
const stopDelay = 5 * time.Second

// Run runs a command and waits for it to exit. If ctx is done, Run kills uv and all processes
// that it started and returns the cause of ctx. Any other error is an [*Error].
func Run(ctx context.Context, c Command) error {
	firstFlag := slices.IndexFunc(c.Args, func(arg string) bool { return strings.HasPrefix(arg, "-") })
	if firstFlag < 0 {
		firstFlag = len(c.Args)
	}
	args := slices.Insert(slices.Clone(c.Args), firstFlag, "--no-config")
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
	return newError(strings.Join(c.Args[:firstFlag], " "), out.String(), err)
}

// Error reports that uv failed.
type Error struct {
	Command string // such as "pip compile"
	Cause   string // one sentence without a final period, the innermost cause first
	Output  string // the complete error output, without passwords

	// NoSolution means that uv could access the index, but no set of versions meets the
	// requirements on the platform.
	NoSolution bool

	Err error // of the process
}

// Error returns the cause.
func (e *Error) Error() string { return e.Cause }

// Unwrap returns the error of the process.
func (e *Error) Unwrap() error { return e.Err }

// noSolutionStatus is the exit status of uv if resolution fails. The status of all other
// failures is 2. See https://docs.astral.sh/uv/reference/cli/.
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
	case noSolution && r.accessError != "":
		e.Cause = r.accessError
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
