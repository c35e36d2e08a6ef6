package cli

import (
	"fmt"
	"runtime"

	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

type versionCmd struct{}

// help implements [helper].
func (versionCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee version", "rbee version --json"},
	}
}

// versionReport is the JSON output of the command.
type versionReport struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

// Run runs the command.
func (versionCmd) Run(a *app) error {
	r := versionReport{a.p.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if a.asJSON() {
		return ui.JSON(a.p.Stdout, r)
	}
	_, err := fmt.Fprintf(a.p.Stdout, "rbee %s %s/%s (%s)\n", r.Version, r.OS, r.Arch, r.Go)
	return err
}
