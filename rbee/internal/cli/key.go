package cli

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

type keyCmd struct {
	Add    keyAddCmd    `cmd:"" help:"Make a key, and show it this once."`
	List   keyListCmd   `cmd:"" help:"List the keys, without their secrets."`
	Revoke keyRevokeCmd `cmd:"" help:"Let a key be good for nothing from now on."`
}

type keyAddCmd struct {
	Name  string `arg:"" help:"Whose it is, or what for."`
	Scope string `default:"infer" enum:"infer,admin" placeholder:"SCOPE" help:"infer asks models; admin does everything (${default})."`
}

type keyListCmd struct{}

type keyRevokeCmd struct {
	Name string `arg:"" help:"The key's name, or its id."`
}

func keysPath(p pkgmgr.Paths) string { return filepath.Join(p.StateDir, "keys.json") }

func (a *app) keys() (*access.Keys, error) {
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	return access.OpenKeys(keysPath(paths)), nil
}

// Help is shown below the command's summary.
func (keyAddCmd) Help() string {
	return describe("The secret goes to stdout, and is kept as a hash alone: it cannot be shown again. A queen that runs knows the key within a second.",
		[]string{"rbee key add laptop", "rbee key add chat-ui --scope infer > key.txt", "export RBEE_API_KEY=$(rbee key add me --scope admin)"})
}

// Run does the command.
func (c *keyAddCmd) Run(_ context.Context, a *app) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	key, secret, err := keys.Add(c.Name, access.Scope(c.Scope))
	if err != nil {
		return err
	}
	if a.asJSON() {
		return ui.JSON(a.p.Stdout, struct {
			access.Key
			Secret string `json:"secret"`
		}{key, secret})
	}
	_, err = fmt.Fprintln(a.p.Stdout, secret)
	return err
}

// Help is shown below the command's summary.
func (keyListCmd) Help() string {
	return describe("A key is known by its name and its id; its secret was shown when it was made.", []string{"rbee key list", "rbee key list --json"})
}

// Run does the command.
func (keyListCmd) Run(_ context.Context, a *app) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	list, err := keys.List()
	if err != nil {
		return err
	}
	if a.asJSON() {
		return ui.JSON(a.p.Stdout, map[string]any{"keys": list})
	}
	rows := make([]ui.KeyRow, 0, len(list))
	for _, k := range list {
		rows = append(rows, ui.KeyRow{Name: k.Name, ID: k.ID, Scope: string(k.Scope), CreatedAt: k.CreatedAt})
	}
	return ui.Keys(a.p.Stdout, a.style(a.p.Stdout), rows)
}

// Help is shown below the command's summary.
func (keyRevokeCmd) Help() string {
	return describe("A queen that runs refuses it within a second.", []string{"rbee key revoke laptop"})
}

// Run does the command.
func (c *keyRevokeCmd) Run(_ context.Context, a *app) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	key, err := keys.Revoke(c.Name)
	if err != nil {
		return err
	}
	if a.asJSON() {
		return ui.JSON(a.p.Stdout, map[string]any{"revoked": key})
	}
	_, err = fmt.Fprintf(a.p.Stdout, "%s is revoked\n", key.Name)
	return err
}
