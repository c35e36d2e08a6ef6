package cli

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// interruptible gives a context that the first interrupt cancels. After that
// the signals have their usual effect again: the second one ends the program
// at once. A hangup cancels too, however often it comes: sshd sends it to a
// command whose connection is gone, and that command still has to tidy up.
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
				fmt.Fprintln(a.p.Stderr, "stopping, press again to quit at once")
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
