package cli

import (
	"fmt"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/operations"
)

// replacementCmd is a command that rbee had once: it names what took its place.
type replacementCmd struct {
	Rest []string `arg:"" optional:"" passthrough:"" help:"Ignored"`
}

// Run runs the command.
func (replacementCmd) Run(selected *kong.Context) error {
	name := selected.Selected().Name
	by := map[string]string{
		"install-hive": "rbee sync", "uninstall-hive": "rbee uninstall", "install-worker": "rbee sync",
	}[name]
	return &usageError{
		message: fmt.Sprintf("%s was removed: use `%s`", name, by),
		hint:    fmt.Sprintf("what is installed follows the config; `%s --help` shows how", by),
		code:    operations.CodeRemovedOperation,
	}
}
