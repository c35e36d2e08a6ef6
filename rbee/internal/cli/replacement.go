package cli

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/operations"
)

// replacementCmd is a removed command. Its error names the replacement.
type replacementCmd struct {
	Rest []string `arg:"" optional:"" passthrough:"" name:"args" help:"Arguments of the removed command"`
}

// Run runs the command.
func (replacementCmd) Run(selected *kong.Context) error {
	name := selected.Selected().Name
	replacement := map[string]string{
		"install-hive": "rbee sync", "uninstall-hive": "rbee uninstall", "install-worker": "rbee sync",
	}[name]
	return &usageError{
		message: fmt.Sprintf("%s was removed: use `%s`", name, replacement),
		hint:    fmt.Sprintf("edit the config, then run `%s`", replacement),
		code:    operations.CodeRemovedOperation,
	}
}
