package cli

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// stream gives a handler that passes the text of one type of event on to out.
// Nothing is drawn beside it: notes become lines on stderr until text comes, and
// what else happens is told with --verbose.
func (a *app) stream(text operations.EventType, out *ui.Text) operations.Handler {
	plain := &ui.Plain{W: a.p.Stderr, Verbose: true}
	g := a.flags()
	return func(e operations.Event) {
		switch {
		case e.Type == text:
			out.Write(e.Text)
		case g.Quiet, out.Written() && !g.Verbose:
		case e.Type == operations.EventNote || g.Verbose:
			plain.Handle(e)
		}
	}
}

// endStream ends the runner after a stream, whose text came before err. Somebody
// who interrupts a stream has seen enough, and needs no word about it.
func (a *app) endStream(ctx context.Context, out *ui.Text, err error) error {
	if err != nil && out.Written() {
		out.EndLine()
	}
	if closing := a.close(); err == nil {
		err = closing
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return outcomeError(operations.OutcomeFailed)
	case err != nil:
		return err
	case out.Err() != nil:
		return fmt.Errorf("writing the result: %w", out.Err())
	}
	return nil
}
