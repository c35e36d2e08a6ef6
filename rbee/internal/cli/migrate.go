package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type migrateCmd struct {
	Output    string   `short:"o" required:"" placeholder:"PATH" help:"The file to write, or a directory for hives.conf."`
	SSHConfig string   `name:"ssh-config" placeholder:"PATTERN" help:"Look at these hosts of ssh_config too, such as 'gpu-*'."`
	Hosts     []string `placeholder:"HOST" help:"Look at these hosts too: [user@]host[:port],..."`
	Parallel  int      `placeholder:"N" help:"How many hives to look at at once; rbee chooses when not given."`
	Force     bool     `help:"Overwrite a file that exists."`
}

// Help is shown below the command's summary.
func (migrateCmd) Help() string {
	return describe("It looks at the hives of the config, those on record, and the hosts that are named.",
		[]string{"rbee migrate --output ~/.config/rbee/", "rbee migrate --ssh-config 'gpu-*' --output fleet.conf"},
		exitInvalid, exitUnreachable)
}

// Run does the command.
func (c *migrateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageMigrate{
		OutputPath: c.Output, ConfigPath: a.config(), SSHConfig: c.SSHConfig,
		Hosts: c.Hosts, Parallel: c.Parallel, Force: c.Force,
	})
}
