package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type migrateCmd struct {
	Output    string   `short:"o" required:"" placeholder:"PATH" help:"File to create, or a directory for hives.conf"`
	SSHConfig string   `name:"ssh-config" placeholder:"PATTERN" help:"Include the hosts of ~/.ssh/config that match, such as 'gpu-*'"`
	Hosts     []string `placeholder:"HOST" help:"Include these hosts, in the form [user@]host[:port] (repeat, or separate with commas)"`
	Parallel  int      `placeholder:"N" help:"Number of hives at a time (default: automatic)"`
	Force     bool     `help:"Overwrite an existing file"`
}

// help implements [helper].
func (migrateCmd) help() commandHelp {
	return commandHelp{
		text:     "Reads the hives of the config, the record of installed hives, and the hosts that you pass.",
		examples: []string{"rbee migrate --output ~/.config/rbee/", "rbee migrate --ssh-config 'gpu-*' --output fleet.conf"},
	}
}

// Run runs the command.
func (c *migrateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageMigrate{
		OutputPath: c.Output, ConfigPath: a.config(), SSHConfig: c.SSHConfig,
		Hosts: c.Hosts, Parallel: c.Parallel, Force: c.Force,
	})
}
