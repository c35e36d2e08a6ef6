package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// interruptible returns a context that the first interrupt cancels. After that the
// signals have their default effect, so that the second one terminates the program.
// Hangups also cancel the context, but never terminate the program: sshd sends one
// when a connection is lost, and the command still has to clean up.
func (a *app) interruptible(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	go func() {
		select {
		case <-hangups:
			cancel()
		case <-signals:
			signal.Stop(signals)
			cancel()
			if a.terminal(a.p.Stderr) {
				resume := a.suspend()
				fmt.Fprintln(a.p.Stderr, "Stopping; press Ctrl-C again to quit now.")
				resume()
			}
		case <-ctx.Done():
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		signal.Stop(hangups)
		cancel()
	}
}
