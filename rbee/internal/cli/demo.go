package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/rbee/internal/demo"
)

type demoCmd struct {
	Keep bool `help:"Keep the hosts running until Ctrl-C and print the environment variables for using them"`
}

// help implements [helper].
func (demoCmd) help() commandHelp {
	return commandHelp{
		text:     "The hosts are SSH servers in this process, each with its own home directory. The demo removes all its files at the end.",
		examples: []string{"rbee demo", "rbee demo --keep"},
	}
}

// Run runs the command.
func (c *demoCmd) Run(ctx context.Context, a *app) error {
	return demo.Run(ctx, demo.Options{Stdout: a.p.Stdout, Stderr: a.p.Stderr, Getenv: a.p.Getenv, Keep: c.Keep})
}
