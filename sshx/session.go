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

// command is one thing to do on a host, remote or local.
type command struct {
	op     string
	argv   []string // for messages
	line   string   // for the login shell
	stdin  io.Reader
	stdout io.Writer // nil discards
	stderr io.Writer // nil discards
}

// runWrapper starts a command behind the mark. It holds no character that means something to csh or fish within single
// quotes, and no newline.
const runWrapper = "sh -c '" + stdio.PrintMark + `; exec "$@"' sh `

// Run runs a program with its arguments in the user's home directory, without a terminal. argv is quoted, so no shell
// ever looks into it. A nil stdin is empty, nil writers discard. What the login shell's start-up files print to standard
// output is left out.
//
// A program that ends with another status than 0 gives an [*ExitError]; everything else that goes wrong an [*Error].
// When ctx ends, Run returns at once: the program gets the end of its input and, where sshd passes signals on (OpenSSH
// 7.9 or newer), SIGHUP for its process group. The writers are not used after Run has returned; they must not block for
// ever. One Read of stdin may still be under way.
func (c *Client) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	if err := checkArgv(argv); err != nil {
		return &Error{Op: "run", Target: c.target, Reason: ReasonFailed, Err: err}
	}
	return c.run(ctx, command{"run", argv, runWrapper + Quote(argv...), stdin, stdout, stderr})
}

// Script runs a script of the POSIX shell. It goes over standard input to `sh -s`, so that its text shows up in no list of
// processes; its own standard input is empty. When the connection or ctx ends, the script's process group gets SIGHUP,
// so it ends too, unless it is made to survive (trap, nohup, setsid). Otherwise Script is like [Client.Run].
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

// scriptInput wraps a script for `sh -s`. The shell reads all of it before it starts. Standard input stays open after it;
// a watcher waits for its end, which comes with the end of the connection, and then hangs up the process group. It does
// nothing once the shell, or what the shell has become, is gone. The shell itself survives SIGPIPE, for it often has a word
// to say about its dying children, to a reader that is gone, before it comes to the script's own trap for SIGHUP.
func scriptInput(script string) string {
	return "{ " + strings.Replace(joinScript(scriptSource), `"$script"`, Quote(script), 1) + " }\n"
}

// joinScript returns an embedded script as one line without comments, with the mark that precedes the output.
func joinScript(source string) string {
	var parts []string
	for line := range strings.Lines(source) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			parts = append(parts, line)
		}
	}
	return strings.Replace(strings.Join(parts, " "), ": start;", stdio.PrintMark+";", 1)
}

var errNUL = errors.New("a NUL byte cannot be passed to a program")

func checkArgv(argv []string) error {
	if len(argv) == 0 || argv[0] == "" {
		return errors.New("no program is given")
	}
	for _, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return errNUL
		}
	}
	return nil
}

// run runs a command whose output begins after the mark.
func (c *Client) run(ctx context.Context, cmd command) error {
	after := stdio.NewMarkFilter(cmd.stdout)
	cmd.stdout = after
	s, err := c.startSession(ctx, cmd)
	if err != nil {
		return err
	}
	err = s.wait(ctx)
	return notStarted(err, after, cmd, c.target)
}

// notStarted finds out when a command has never begun, although it seems to have ended, and says what came instead.
func notStarted(err error, after *stdio.MarkFilter, cmd command, target string) error {
	if after.Seen() {
		return err
	}
	noise := strings.TrimSpace(strings.ToValidUTF8(string(after.Noise()), "\uFFFD"))
	var exit *ExitError
	if errors.As(err, &exit) && exit.Stderr == "" {
		exit.Stderr = noise
	}
	if err == nil {
		err = &Error{Op: cmd.op, Target: target, Reason: ReasonFailed,
			Err: fmt.Errorf("the account does not run commands; it answered %q", noise)}
	}
	return err
}

// session is a command that runs on the host.
type session struct {
	client *Client
	cmd    command
	ssh    *ssh.Session
	in     io.WriteCloser
	out    *stdio.Gate
	err    *stdio.Gate
	tail   *stdio.Tail
	ended  chan error // takes what ssh.Session.Wait says
	broken chan error // takes the first failure of the caller's reader or writers
}

// startSession opens a session and starts the command in it. It gives up when ctx ends.
func (c *Client) startSession(ctx context.Context, cmd command) (*session, error) {
	if ctx.Err() != nil {
		return nil, c.fail(ctx, cmd.op, ctx.Err())
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
			return nil, c.fail(ctx, cmd.op, r.err)
		}
		return r.s, nil
	case <-ctx.Done():
		go func() {
			if r := <-started; r.s != nil {
				r.s.abort()
			}
		}()
		return nil, c.fail(ctx, cmd.op, ctx.Err())
	}
}

func (c *Client) openSession(ctx context.Context, cmd command) (*session, error) {
	sess, err := c.newSession(ctx)
	if err != nil {
		return nil, err
	}
	s := &session{client: c, cmd: cmd, ssh: sess, tail: &stdio.Tail{}, ended: make(chan error, 1), broken: make(chan error, 1)}
	s.out = stdio.NewGate(cmd.stdout, s.fail)
	s.err = stdio.NewGate(cmd.stderr, s.fail)
	sess.Stdout, sess.Stderr = s.out, io.MultiWriter(s.tail, s.err)
	if s.in, err = sess.StdinPipe(); err == nil {
		if err = sess.Start(cmd.line); err != nil && !isDropped(err) {
			err = errors.New("the host refused to start a command") // the original shows the whole command line
		}
	}
	if err != nil {
		sess.Close()
		c.sessionEnded()
		return nil, err
	}
	go func() {
		err := sess.Wait()
		sess.Close()
		c.sessionEnded()
		s.ended <- err
	}()
	go s.feed()
	return s, nil
}

// feed sends stdin. When the caller's reader fails, the program must not take that for the end of its input.
func (s *session) feed() {
	if s.cmd.stdin != nil {
		src := stdio.NewErrReader(s.cmd.stdin)
		if _, err := io.Copy(s.in, src); err != nil && src.Err() != nil {
			s.fail(src.Err())
			return
		}
	}
	s.in.Close()
}

func (s *session) fail(err error) {
	select {
	case s.broken <- err:
	default:
	}
}

// wait waits for the command's end.
func (s *session) wait(ctx context.Context) error {
	select {
	case err := <-s.ended:
		return s.result(ctx, err)
	case err := <-s.broken:
		s.abort()
		return s.localFailure(ctx, err)
	case <-ctx.Done():
		s.abort()
		return s.client.fail(ctx, s.cmd.op, ctx.Err())
	case <-s.client.done:
		// The command may have ended just before the connection did.
		select {
		case err := <-s.ended:
			return s.result(ctx, err)
		case <-time.After(closeLimit):
			s.abort()
			return s.client.fail(ctx, s.cmd.op, io.EOF)
		}
	}
}

// result words the end of the session. A failure of the caller's own reader or writer explains more than the status.
func (s *session) result(ctx context.Context, err error) error {
	select {
	case err := <-s.broken:
		return s.localFailure(ctx, err)
	default:
		return s.exitError(ctx, err)
	}
}

// localFailure is for an error of the caller's own reader or writer, which says nothing about the connection.
func (s *session) localFailure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return s.client.fail(ctx, s.cmd.op, ctx.Err())
	}
	return &Error{Op: s.cmd.op, Target: s.client.target, Reason: ReasonFailed, Err: err}
}

// exitError reads how the command ended.
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
		if cause := s.client.lost(ctx); cause != nil {
			return s.client.fail(ctx, s.cmd.op, io.EOF)
		}
		return exit
	}
	return s.client.fail(ctx, s.cmd.op, err)
}

// abort leaves the session without waiting for the far side: no more output comes to the caller, and the program is told
// to end. Messages to a host that is gone can block, so they are sent in the background.
func (s *session) abort() {
	s.out.Close()
	s.err.Close()
	go func() {
		_ = s.ssh.Signal(ssh.SIGHUP)
		s.ssh.Close() // which is the end of the program's input, too
	}()
}
