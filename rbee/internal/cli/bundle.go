package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type bundleCmd struct {
	Create bundleCreateCmd `cmd:"" help:"Write all that a config needs into one file."`
}

type bundleCreateCmd struct {
	File     string     `arg:"" help:"The file to write."`
	Platform []string   `placeholder:"OS/ARCH" help:"What hives that cannot be read from here may be; linux/amd64 when not given."`
	Force    bool       `help:"Overwrite a file that exists."`
	Scope    scopeFlags `embed:""`
}

// Help is shown below the command's summary.
func (bundleCreateCmd) Help() string {
	return describe("`rbee sync --bundle FILE` installs from it, on a machine without the internet and to hives without it. It holds rbee, the lock, your own recipes and every file of the workers, each with its checksum. For a hive that cannot be read from here, every variant of its workers goes in.",
		[]string{"rbee bundle create fleet.rbee", "rbee bundle create fleet.rbee --platform linux/amd64 --platform linux/arm64"},
		exitInvalid)
}

// Run does the command.
func (c *bundleCreateCmd) Run(ctx context.Context, a *app) error {
	return a.operate(ctx, operations.PackageBundle{
		Scope: a.scope(c.Scope), OutputPath: c.File, Platforms: c.Platform, Force: c.Force,
	})
}
