package sshx

import (
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/sshx/internal/stdio"
	"golang.org/x/crypto/ssh"
)

// command is a command to run on a remote host or on this machine.
type command struct {
	op     string
	argv   []string // for error messages
	line   string   // command line for the login shell
	stdin  io.Reader
	stdout io.Writer // nil discards the output
	stderr io.Writer // nil discards the output
}

// runWrapper prints the start mark and then runs a command. Its text contains no newline and no character that is special to
// csh or fish within single quotes.
const runWrapper = "sh -c '" + stdio.PrintMark + `; exec "$@"' sh `

// Run runs a program with arguments in the home directory of the user, without a terminal. The arguments are quoted, so no
// shell interprets them. A nil stdin is empty; a nil writer discards the output. stdout does not contain the output of the
// login shell's start-up files.
//
// If the program does not exit with status 0, the error is an [*ExitError]. Other errors are [*Error] values. When ctx ends,
// Run returns immediately. The program then gets EOF on its input and, if sshd supports signals (OpenSSH 7.9 or newer), its
// process group gets SIGHUP. Run does not use the writers after it has returned, but one Read of stdin can still be in
// progress. The writers must not block forever.
func (c *Client) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkArgv(argv); err != nil {
		return &Error{Op: "run", Target: c.target, Reason: ReasonFailed, Err: err}
	}
	return c.run(ctx, command{"run", argv, runWrapper + Quote(argv...), stdin, stdout, stderr})
}

// Script runs a POSIX shell script. It sends the script over standard input to `sh -s`, so that the text does not appear in
// process lists. The standard input of the script itself is empty. When the connection or ctx ends, the process group of the
// script gets SIGHUP and terminates, unless the script prevents it (trap, nohup, setsid). Otherwise, Script is like
// [Client.Run].
func (c *Client) Script(ctx context.Context, script string, stdout, stderr io.Writer) error {
	if strings.ContainsRune(script, 0) {
		return &Error{Op: "script", Target: c.target, Reason: ReasonFailed, Err: errNUL}
	}
	input := stdio.NewOpenReader(scriptInput(script))
	defer input.Close()
	return c.run(ctx, command{"script", scriptArgv(), "sh -s", input, stdout, stderr})
}

//go:embed script.sh
var scriptSource string

func scriptArgv() []string { return []string{"sh", "-s"} }

// scriptInput returns the input of `sh -s` that runs a script. The shell reads the complete input before it runs it. Standard
// input then remains open until the connection ends. A background watcher waits for EOF and sends SIGHUP to the process
// group, unless the shell (or the program that has replaced it) has already exited. The shell ignores SIGPIPE: it may report
// terminated children to a closed connection before it runs the SIGHUP trap of the script.
func scriptInput(script string) string {
	return "{ " + strings.Replace(joinScript(scriptSource), `"$script"`, Quote(script), 1) + " }\n"
}

// joinScript returns an embedded script as one line, without comments, and with the command that prints the start mark.
func joinScript(source string) string {
	var parts []string
	for line := range strings.Lines(source) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			parts = append(parts, line)
		}
	}
	return strings.Replace(strings.Join(parts, " "), ": start;", stdio.PrintMark+";", 1)
}

var errNUL = errors.New("NUL byte in argument")

func checkArgv(argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return errors.New("empty program name")
	}
	for _, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return errNUL
		}
	}
	return nil
}

// run runs a command whose output starts after the start mark.
func (c *Client) run(ctx context.Context, cmd command) error {
	filter := stdio.NewMarkFilter(cmd.stdout)
	cmd.stdout = filter
	s, err := c.startSession(ctx, cmd)
	if err != nil {
		return err
	}
	err = s.wait(ctx)
	return checkStarted(err, filter, cmd, c.target)
}

// checkStarted returns err if the command has printed the start mark. Otherwise the command was not started, and checkStarted
// returns an error with the output that the host sent instead.
func checkStarted(err error, filter *stdio.MarkFilter, cmd command, target string) error {
	if filter.Seen() {
		return err
	}
	preamble := strings.TrimSpace(strings.ToValidUTF8(string(filter.Preamble()), "\uFFFD"))
	var exit *ExitError
	if errors.As(err, &exit) && exit.Stderr == "" {
		exit.Stderr = preamble
	}
	if err == nil {
		err = &Error{Op: cmd.op, Target: target, Reason: ReasonFailed,
			Err: fmt.Errorf("the account does not run commands: the host sent %q", preamble)}
	}
	return err
}

// session is a command that is running on the host.
type session struct {
	client *Client
	cmd    command
	ssh    *ssh.Session
	in     io.WriteCloser
	out    *stdio.Gate
	err    *stdio.Gate
	tail   *stdio.Tail
	exited chan error // receives the result of ssh.Session.Wait
	ioErr  chan error // receives the first error of the caller's reader or writers
}

// startSession opens a session and starts the command in it. It returns when ctx ends.
func (c *Client) startSession(ctx context.Context, cmd command) (*session, error) {
	if ctx.Err() != nil {
		return nil, c.opError(ctx, cmd.op, ctx.Err())
	}
	type result struct {
		s   *session
		err error
	}
	started := make(chan result, 1)
	go func() {
		s, err := c.openSession(ctx, cmd)
		started <- result{s, err}
	}()
	select {
	case r := <-started:
		if r.err != nil {
			return nil, c.opError(ctx, cmd.op, r.err)
		}
		return r.s, nil
	case <-ctx.Done():
		go func() {
			if r := <-started; r.s != nil {
				r.s.abort()
			}
		}()
		return nil, c.opError(ctx, cmd.op, ctx.Err())
	}
}

func (c *Client) openSession(ctx context.Context, cmd command) (*session, error) {
	sess, err := c.newSession(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{client: c, cmd: cmd, ssh: sess, tail: &stdio.Tail{}, exited: make(chan error, 1), ioErr: make(chan error, 1)}
	s.out = stdio.NewGate(cmd.stdout, s.setIOError)
	s.err = stdio.NewGate(cmd.stderr, s.setIOError)
	sess.Stdout, sess.Stderr = s.out, io.MultiWriter(s.tail, s.err)
	if s.in, err = sess.StdinPipe(); err == nil {
		if err = sess.Start(cmd.line); err != nil && !isDropped(err) {
			err = errors.New("the host rejected the command") // the original error contains the command line
		}
	}
	if err != nil {
		sess.Close()
		c.releaseSession()
		return nil, err
	}
	go func() {
		err := sess.Wait()
		sess.Close()
		c.releaseSession()
		s.exited <- err
	}()
	go s.copyStdin()
	return s, nil
}

// copyStdin copies stdin to the program. If stdin fails, copyStdin does not close the input of the program, which must not
// mistake the error for EOF.
func (s *session) copyStdin() {
	if s.cmd.stdin != nil {
		src := stdio.NewErrReader(s.cmd.stdin)
		if _, err := io.Copy(s.in, src); err != nil && src.Err() != nil {
			s.setIOError(src.Err())
			return
		}
	}
	s.in.Close()
}

func (s *session) setIOError(err error) {
	select {
	case s.ioErr <- err:
	default:
	}
}

// wait waits for the command to exit.
func (s *session) wait(ctx context.Context) error {
	select {
	case err := <-s.exited:
		return s.result(ctx, err)
	case err := <-s.ioErr:
		s.abort()
		return s.ioError(ctx, err)
	case <-ctx.Done():
		s.abort()
		return s.client.opError(ctx, s.cmd.op, ctx.Err())
	case <-s.client.done:
		// The command may have exited just before the connection ended.
		select {
		case err := <-s.exited:
			return s.result(ctx, err)
		case <-time.After(closeTimeout):
			s.abort()
			return s.client.opError(ctx, s.cmd.op, io.EOF)
		}
	}
}

// result returns the error of the session. An error of the caller's reader or writers takes precedence over the exit status.
func (s *session) result(ctx context.Context, err error) error {
	select {
	case err := <-s.ioErr:
		return s.ioError(ctx, err)
	default:
		return s.exitError(ctx, err)
	}
}

// ioError returns the error for a failure of the caller's reader or writers, which does not affect the connection.
func (s *session) ioError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return s.client.opError(ctx, s.cmd.op, ctx.Err())
	}
	return &Error{Op: s.cmd.op, Target: s.client.target, Reason: ReasonFailed, Err: err}
}

// exitError returns the error for a result of ssh.Session.Wait.
func (s *session) exitError(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	exit := &ExitError{Argv: s.cmd.argv, Target: s.client.target, Status: -1, Stderr: s.tail.String()}
	var status *ssh.ExitError
	var missing *ssh.ExitMissingError
	switch {
	case errors.As(err, &status):
		exit.Status, exit.Signal = status.ExitStatus(), status.Signal()
		return exit
	case errors.As(err, &missing):
		if cause := s.client.checkAlive(ctx); cause != nil {
			return s.client.opError(ctx, s.cmd.op, io.EOF)
		}
		return exit
	}
	return s.client.opError(ctx, s.cmd.op, err)
}

// abort ends the session without waiting for the host. It stops the output to the caller, sends SIGHUP and closes the
// session. Sending to an unresponsive host can block, so abort does not wait for it.
func (s *session) abort() {
	s.out.Close()
	s.err.Close()
	go func() {
		_ = s.ssh.Signal(ssh.SIGHUP)
		s.ssh.Close() // also closes the standard input of the program
	}()
}
