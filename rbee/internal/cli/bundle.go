package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type bundleCmd struct {
	Create bundleCreateCmd `cmd:"" help:"Create a bundle from the config"`
}

type bundleCreateCmd struct {
	File     string     `arg:"" help:"File to create"`
	Platform []string   `placeholder:"OS/ARCH" help:"Platforms of hives that cannot be reached (repeat, or separate with commas; default: linux/amd64)"`
	Force    bool       `help:"Overwrite an existing file"`
	Scope    scopeFlags `embed:""`
}

// help implements [helper].
func (bundleCreateCmd) help() commandHelp {
	return commandHelp{
		text:     "`rbee sync --bundle FILE` installs from the bundle, without internet access on this machine or the hives. The bundle contains rbee, the lockfile, your own recipes and all artifacts of the workers with their checksums. For a hive that cannot be reached, it contains every variant of the workers.",
		examples: []string{"rbee bundle create fleet.rbee", "rbee bundle create fleet.rbee --platform linux/amd64 --platform linux/arm64"},
	}
}

// Run runs the command.
func (c *bundleCreateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageBundle{
		Scope: a.scope(c.Scope), OutputPath: c.File, Platforms: c.Platform, Force: c.Force,
	})
}
