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

// localGrace is how long a local command may take to end after SIGHUP, before it is killed.
const localGrace = 2 * time.Second

// localTarget is this machine's name in errors.
const localTarget = "localhost"

// Local does on this machine, without SSH, what a [Client] does on a host, by the same rules. The zero value works. It is
// safe for concurrent use.
type Local struct {
	Env []string // additions to this process's environment, as NAME=value; programs are looked for in this PATH
	Dir string   // where commands and relative paths start; "": the home directory (HOME in Env comes first)
}

// NewLocal gives a Local that starts in the home directory.
func NewLocal() *Local { return &Local{} }

// Target is "localhost".
func (l *Local) Target() string { return localTarget }

// Close does nothing.
func (l *Local) Close() error { return nil }

// Dial connects from this machine.
func (l *Local) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, l.fail(ctx, "forward "+address, err)
	}
	return conn, nil
}

// Run is [Client.Run] here. When ctx ends, the program's process group gets SIGHUP and two seconds later SIGKILL.
func (l *Local) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkArgv(argv); err != nil {
		return l.fail(ctx, "run", err)
	}
	return l.run(ctx, command{"run", argv, "", stdin, stdout, stderr}, argv)
}

// Script is [Client.Script] here.
func (l *Local) Script(ctx context.Context, script string, stdout, stderr io.Writer) error {
	if strings.ContainsRune(script, 0) {
		return l.fail(ctx, "script", errNUL)
	}
	input := stdio.NewOpenReader(scriptInput(script))
	defer input.Close()
	after := stdio.NewMarkFilter(stdout)
	cmd := command{"script", scriptArgv(), "", input, after, stderr}
	return notStarted(l.run(ctx, cmd, scriptArgv()), after, cmd, localTarget)
}

func (l *Local) run(ctx context.Context, c command, argv []string) error {
	if ctx.Err() != nil {
		return l.fail(ctx, c.op, ctx.Err())
	}
	dir, err := l.dir()
	if err != nil {
		return l.fail(ctx, c.op, err)
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
	broken := make(chan error, 1)
	failed := func(err error) {
		select {
		case broken <- err:
		default:
		}
	}
	out, errs, end := stdio.NewGate(c.stdout, failed), stdio.NewGate(c.stderr, failed), &stdio.Tail{}
	cmd := &exec.Cmd{Path: program, Args: argv, Dir: dir, Env: env, Stdout: out, Stderr: io.MultiWriter(end, errs)}
	ownGroup(cmd)
	in, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return l.fail(ctx, c.op, err)
	}
	go feedPipe(in, c.stdin, failed)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()

	abort := func() {
		out.Close()
		errs.Close()
		in.Close()
		hangUp(cmd)
		select {
		case <-ended: //nolint:errcheck // what ended it is known
		case <-time.After(localGrace):
		}
		killGroup(cmd)
	}
	select {
	case err = <-ended:
		select {
		case err = <-broken:
			return l.fail(ctx, c.op, err)
		default:
		}
	case err = <-broken:
		abort()
		return l.fail(ctx, c.op, err)
	case <-ctx.Done():
		abort()
		return l.fail(ctx, c.op, ctx.Err())
	}
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		status, signal := exitStatus(exit.ProcessState)
		return &ExitError{Argv: c.argv, Target: localTarget, Status: status, Signal: signal, Stderr: end.String()}
	}
	if err != nil {
		return l.fail(ctx, c.op, err)
	}
	return nil
}

// feedPipe sends stdin to a program. When the caller's reader fails, the program must not take that for the end.
func feedPipe(in io.WriteCloser, stdin io.Reader, failed func(error)) {
	if stdin != nil {
		src := stdio.NewErrReader(stdin)
		if _, err := io.Copy(in, src); err != nil && src.Err() != nil {
			failed(src.Err())
			return
		}
	}
	in.Close()
}

// fail makes an operation's error.
func (l *Local) fail(ctx context.Context, op string, err error) error {
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	reason := classify(err)
	if reason == ReasonLost {
		reason = ReasonFailed // there is no connection to lose
	}
	return &Error{Op: op, Target: localTarget, Reason: reason, Err: err}
}

// dir is where commands and relative paths start.
func (l *Local) dir() (string, error) {
	if l.Dir != "" {
		return l.Dir, nil
	}
	if home := getenv(l.Env, "HOME"); home != "" {
		return home, nil
	}
	return os.UserHomeDir()
}

// getenv finds a variable; the last assignment counts.
func getenv(env []string, name string) string {
	for i := len(env) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(env[i], name+"="); ok {
			return v
		}
	}
	return ""
}

// findProgram looks for a program as a shell in dir would.
func findProgram(name, dir, path string) (string, error) {
	if strings.ContainsRune(name, '/') {
		if !filepath.IsAbs(name) {
			name = filepath.Join(dir, name)
		}
		return name, canExecute(name)
	}
	found := fmt.Errorf("%s: not found", name)
	for _, dir := range filepath.SplitList(path) {
		if dir == "" {
			continue // the current folder, which no program should come from unasked
		}
		file := filepath.Join(dir, name)
		err := canExecute(file)
		if err == nil {
			return file, nil
		}
		if errors.Is(err, os.ErrPermission) {
			found = err
		}
	}
	return "", found
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
