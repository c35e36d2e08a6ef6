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

// prompter asks on the terminal that stdin and stderr are. The drawing gives
// way while it asks.
type prompter struct{ a *app }

// Secret asks for a password or passphrase without showing it.
func (p *prompter) Secret(ctx context.Context, question string) (string, error) {
	file, ok := p.a.p.Stdin.(*os.File)
	if !ok {
		return "", errors.New("there is no terminal to ask on")
	}
	defer p.a.suspend()()
	fd := int(file.Fd())
	// The echo goes off before the question comes, so that no quick answer is shown.
	before, err := term.MakeRaw(fd)
	if err != nil {
		return "", fmt.Errorf("asking on the terminal: %w", err)
	}
	fmt.Fprint(p.a.p.Stderr, strings.TrimRight(question, " :")+": ")
	answer, err := waitFor(ctx, func() (string, error) {
		secret, err := term.ReadPassword(fd)
		return string(secret), err
	})
	restored := term.Restore(fd, before)
	fmt.Fprintln(p.a.p.Stderr)
	return answer, errors.Join(err, restored)
}

// Confirm asks yes or no; everything but yes is no.
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

// readLine reads up to the end of a line and not beyond what the terminal gives at once.
func readLine(r io.Reader) (string, error) {
	return bufio.NewReader(r).ReadString('\n')
}

// waitFor returns what read returns, or the end of ctx if that comes first;
// read then goes on by itself until the program ends.
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
	case got := <-answers:
		return got.text, got.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
