package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/rbee/internal/demo"
)

type demoCmd struct {
	Keep bool `help:"Leave the hosts up until Ctrl-C, and print the environment to go on by hand."`
}

// Help is shown below the command's summary.
func (demoCmd) Help() string {
	return describe("The hosts speak the real SSH protocol and have a home directory each. Nothing is left behind.",
		[]string{"rbee demo", "rbee demo --keep"})
}

// Run does the command.
func (c *demoCmd) Run(ctx context.Context, a *app) error {
	return demo.Run(ctx, demo.Options{Stdout: a.p.Stdout, Stderr: a.p.Stderr, Getenv: a.p.Getenv, Keep: c.Keep})
}
