package sshx

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/sshx/internal/stdio"
)

// localGracePeriod is the time between SIGHUP and SIGKILL for a local command.
const localGracePeriod = 2 * time.Second

// localTarget is the target in errors of Local.
const localTarget = "localhost"

// Local has the methods of [Client] for this machine, without SSH. The zero value is ready to use. It is safe for concurrent
// use.
type Local struct {
	Env []string // added to the environment of this process, as NAME=value; its PATH is used to find programs
	Dir string   // working directory and base of relative paths; empty means HOME of Env, or the home directory
}

// NewLocal returns a Local for the home directory.
func NewLocal() *Local { return &Local{} }

// Target returns "localhost".
func (l *Local) Target() string { return localTarget }

// Close does nothing and returns nil.
func (l *Local) Close() error { return nil }

// Dial connects to an address from this machine, like [net.Dialer.DialContext].
func (l *Local) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, l.opError(ctx, "forward "+address, err)
	}
	return conn, nil
}

// Run works like [Client.Run]. When ctx ends, the process group of the program gets SIGHUP and, two seconds later, SIGKILL.
func (l *Local) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkArgv(argv); err != nil {
		return l.opError(ctx, "run", err)
	}
	return l.run(ctx, command{"run", argv, "", stdin, stdout, stderr}, argv)
}

// Script works like [Client.Script].
func (l *Local) Script(ctx context.Context, script string, stdout, stderr io.Writer) error {
	if strings.ContainsRune(script, 0) {
		return l.opError(ctx, "script", errNUL)
	}
	input := stdio.NewOpenReader(scriptInput(script))
	defer input.Close()
	filter := stdio.NewMarkFilter(stdout)
	cmd := command{"script", scriptArgv(), "", input, filter, stderr}
	return checkStarted(l.run(ctx, cmd, scriptArgv()), filter, cmd, localTarget)
}

func (l *Local) run(ctx context.Context, c command, argv []string) error {
	if ctx.Err() != nil {
		return l.opError(ctx, c.op, ctx.Err())
	}
	dir, err := l.dir()
	if err != nil {
		return l.opError(ctx, c.op, err)
	}
	env := append(os.Environ(), l.Env...)
	program, err := findProgram(argv[0], dir, getenv(env, "PATH"))
	if err != nil {
		status := 127
		if errors.Is(err, os.ErrPermission) {
			status = 126
		}
		return &ExitError{Argv: c.argv, Target: localTarget, Status: status, Stderr: err.Error()}
	}
	ioErr := make(chan error, 1)
	onError := func(err error) {
		select {
		case ioErr <- err:
		default:
		}
	}
	out, errs, tail := stdio.NewGate(c.stdout, onError), stdio.NewGate(c.stderr, onError), &stdio.Tail{}
	cmd := &exec.Cmd{Path: program, Args: argv, Dir: dir, Env: env, Stdout: out, Stderr: io.MultiWriter(tail, errs)}
	setProcessGroup(cmd)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return l.opError(ctx, c.op, err)
	}
	go copyStdin(in, c.stdin, onError)
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	abort := func() {
		out.Close()
		errs.Close()
		in.Close()
		hangUpGroup(cmd)
		select {
		case <-exited: //nolint:errcheck // the cause is known
		case <-time.After(localGracePeriod):
		}
		killGroup(cmd)
	}
	select {
	case err = <-exited:
		select {
		case err = <-ioErr:
			return l.opError(ctx, c.op, err)
		default:
		}
	case err = <-ioErr:
		abort()
		return l.opError(ctx, c.op, err)
	case <-ctx.Done():
		abort()
		return l.opError(ctx, c.op, ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, signal := exitStatus(exit.ProcessState)
		return &ExitError{Argv: c.argv, Target: localTarget, Status: status, Signal: signal, Stderr: tail.String()}
	}
	if err != nil {
		return l.opError(ctx, c.op, err)
	}
	return nil
}

// copyStdin copies stdin to a program. If stdin fails, copyStdin calls onError and does not close in: the program must not
// mistake the error for EOF.
func copyStdin(in io.WriteCloser, stdin io.Reader, onError func(error)) {
	if stdin != nil {
		src := stdio.NewErrReader(stdin)
		if _, err := io.Copy(in, src); err != nil && src.Err() != nil {
			onError(src.Err())
			return
		}
	}
	in.Close()
}

// opError returns the error of an operation.
func (l *Local) opError(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	reason := classify(err)
	if reason == ReasonLost {
		reason = ReasonFailed // a Local has no connection
	}
	return &Error{Op: op, Target: localTarget, Reason: reason, Err: err}
}

// dir returns the working directory.
func (l *Local) dir() (string, error) {
	if l.Dir != "" {
		return l.Dir, nil
	}
	if home := getenv(l.Env, "HOME"); home != "" {
		return home, nil
	}
	return os.UserHomeDir()
}

// getenv returns the value of a variable. The last assignment takes precedence.
func getenv(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// findProgram finds a program like a shell whose working directory is dir.
func findProgram(name, dir, path string) (string, error) {
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, canExecute(name)
	}
	lookupErr := fmt.Errorf("%s: not found", name)
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			continue // an empty entry means the current directory, which is not safe
		}
		file := filepath.Join(dir, name)
		err := canExecute(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, os.ErrPermission) {
			lookupErr = err
		}
	}
	return "", lookupErr
}

func canExecute(file string) error {
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return &os.PathError{Op: "execute", Path: file, Err: os.ErrPermission}
	}
	return nil
}
