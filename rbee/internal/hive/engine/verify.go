package engine

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// VerifyError reports that a verify command ran and failed.
type VerifyError struct {
	Reason string // such as "exit status 1"
	Output string // the end of the output of the command
}

// Error returns the reason, followed by the output in separate lines.
func (e *VerifyError) Error() string {
	if e.Output == "" {
		return e.Reason + ", without any output"
	}
	return e.Reason + ":\n" + e.Output
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *VerifyError) ErrorCode() string { return string(operations.ReasonVerifyFailed) }

const (
	maxVerifyOutput = 1 << 20         // bytes at the end of the output that must match
	maxVerifyReason = 2000            // bytes at the end of the output that an error shows
	verifyPipeWait  = 2 * time.Second // maximum wait for the output of children after the program exited
	verifyKillWait  = 5 * time.Second // maximum wait for remaining processes to exit after SIGKILL
)

// Verify runs the verify command of an engine, which must have one. The command gets
// the environment of a worker. All accelerators of the machine are visible to it, and
// state is an empty directory for its files. The error is a [*VerifyError] if the
// command fails, and the cause of ctx if ctx ends. Verify kills processes that the
// command leaves running.
func Verify(ctx context.Context, e Engine, state string) error {
	v := e.Verify
	values := NewPlaceholders(e, StartOptions{Parallel: 1})
	values["state"] = state
	if err := MakeStateDir(wire.Launch{Links: linksWithoutModel(e.Launch.Links)}, values); err != nil {
		return fmt.Errorf("cannot prepare the verify command: %w", err)
	}
	argv := make([]string, 0, len(v.Command))
	for _, arg := range v.Command {
		arg, _ = values.Expand(arg)
		argv = append(argv, arg)
	}
	if len(argv) == 0 {
		return errors.New("the verify command is empty")
	}
	matches, err := regexp.Compile(v.Matches)
	if err != nil {
		return fmt.Errorf("invalid expression of the verify command: %w", err)
	}
	// The marker identifies processes that left the process group.
	marker := rand.Text()
	timeoutCtx, cancel := context.WithTimeout(ctx, v.Limit())
	defer cancel()
	out, err := runGroup(timeoutCtx, argv, verifyEnvironment(e, values, state, marker), state)
	killByMarker(marker)
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case timeoutCtx.Err() != nil && err != nil:
		return &VerifyError{fmt.Sprintf("no result within %s", v.Limit()), lastLines(out)}
	case err != nil:
		return &VerifyError{err.Error(), lastLines(out)}
	case v.Matches != "" && !matches.Match(out):
		return &VerifyError{fmt.Sprintf("the output does not match %s", v.Matches), lastLines(out)}
	}
	return nil
}

// verifyEnvironment returns the environment of a worker with the temporary and cache
// directories inside state.
func verifyEnvironment(e Engine, values Placeholders, state, marker string) []string {
	env := map[string]string{"PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": state, "XDG_CACHE_HOME": state + "/cache"}
	for name, value := range e.Verify.Env {
		env[name], _ = values.Expand(value)
	}
	return Environment(e, values, nil, env, marker)
}

// linksWithoutModel returns the links that do not depend on a model.
func linksWithoutModel(links map[string]string) map[string]string {
	links = maps.Clone(links)
	maps.DeleteFunc(links, func(name, target string) bool {
		return strings.Contains(name, "{model") || strings.Contains(target, "{model")
	})
	return links
}

// runGroup runs a program in a new session and returns the end of its output. When
// ctx ends, it kills the process group.
func runGroup(ctx context.Context, argv, env []string, dir string) ([]byte, error) {
	for tries := 0; ; tries++ {
		cmd := exec.CommandContext(ctx, argv[0], argv[1:]...) //nolint:gosec // an installed worker
		cmd.Dir, cmd.Env = dir, env
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		cmd.WaitDelay = verifyPipeWait
		var out tail
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		switch {
		case errors.Is(err, syscall.ETXTBSY) && tries < 100:
			// A child that this process is forking still has the descriptor with which
			// the program was written.
			select {
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
			continue
		case errors.Is(err, exec.ErrWaitDelay):
			err = nil // the program exited with status 0, but a child still has the pipe open
		}
		return out.bytes(), err
	}
}

// killByMarker kills the processes that were started with the marker in their environment.
func killByMarker(marker string) {
	for end := time.Now().Add(verifyKillWait); time.Now().Before(end); {
		ids, err := proc.FindByEnv(MarkerEnv, marker)
		if err != nil || len(ids) == 0 {
			return
		}
		for _, id := range ids {
			_ = id.Signal(syscall.SIGKILL) // the process may have exited
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tail keeps the last maxVerifyOutput bytes written to it.
type tail struct{ buf []byte }

// Write implements [io.Writer].
func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*maxVerifyOutput {
		t.buf = append(t.buf[:0], t.bytes()...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return t.buf[max(0, len(t.buf)-maxVerifyOutput):] }

// lastLines returns the end of an output as valid UTF-8.
func lastLines(out []byte) string {
	truncated := len(out) > maxVerifyReason
	text := strings.TrimSpace(strings.ToValidUTF8(string(out[max(0, len(out)-maxVerifyReason):]), ""))
	if truncated {
		return "…" + text
	}
	return text
}
