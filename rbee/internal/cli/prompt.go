package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// prompter asks questions on the terminal of stdin and stderr. It suspends the
// progress while it waits for an answer.
type prompter struct{ a *app }

// Secret asks for a password or passphrase without echoing it.
func (p *prompter) Secret(ctx context.Context, question string) (string, error) {
	file, ok := p.a.p.Stdin.(*os.File)
	if !ok {
		return "", errors.New("cannot ask for a secret without a terminal")
	}
	defer p.a.suspend()()
	fd := int(file.Fd())
	// Echo is disabled before the question appears, so that a quick answer is not shown.
	state, err := term.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("cannot disable echo on the terminal: %w", err)
	}
	fmt.Fprint(p.a.p.Stderr, strings.TrimRight(question, " :")+": ")
	answer, err := waitFor(ctx, func() (string, error) {
		secret, err := term.ReadPassword(fd)
		return string(secret), err
	})
	restoreErr := term.Restore(fd, state)
	fmt.Fprintln(p.a.p.Stderr)
	return answer, errors.Join(err, restoreErr)
}

// Confirm asks a question and reports whether the answer is yes.
func (p *prompter) Confirm(ctx context.Context, question string) (bool, error) {
	defer p.a.suspend()()
	fmt.Fprint(p.a.p.Stderr, strings.TrimSpace(question)+" [y/N] ")
	answer, err := waitFor(ctx, func() (string, error) { return readLine(p.a.p.Stdin) })
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// readLine reads up to the end of a line.
func readLine(r io.Reader) (string, error) {
	return bufio.NewReader(r).ReadString('\n')
}

// waitFor returns the result of read, or the error of ctx when it is done first. The
// goroutine of read then continues until the program exits.
func waitFor(ctx context.Context, read func() (string, error)) (string, error) {
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() {
		text, err := read()
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
