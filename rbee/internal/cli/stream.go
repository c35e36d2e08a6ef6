package cli

import (
	"context"
	"fmt"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// stream returns a handler that writes the text of one type of event to out. Notes
// are printed on stderr until the first text; --verbose prints all events.
func (a *app) stream(text operations.EventType, out *ui.Text) operations.Handler {
	plain := &ui.Plain{W: a.p.Stderr, Verbose: true}
	g := a.flags()
	return func(e operations.Event) {
		switch {
		case e.Type == text:
			out.Write(e.Text)
		case g.Quiet, out.HasText() && !g.Verbose:
		case e.Type == operations.EventNote || g.Verbose:
			plain.Handle(e)
		}
	}
}

// endStream closes the runner after a stream that ended with err. An interrupted
// stream is not reported as an error.
func (a *app) endStream(ctx context.Context, out *ui.Text, err error) error {
	if err != nil && out.HasText() {
		out.EndLine()
	}
	if closeErr := a.close(); err == nil {
		err = closeErr
	}
	switch {
	case err != nil && ctx.Err() != nil:
		return outcomeError(operations.OutcomeFailed)
	case err != nil:
		return err
	case out.Err() != nil:
		return fmt.Errorf("cannot write the result: %w", out.Err())
	}
	return nil
}
