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
	Add    keyAddCmd    `cmd:"" help:"Create an API key and print it once"`
	List   keyListCmd   `cmd:"" help:"List API keys, without their secrets"`
	Revoke keyRevokeCmd `cmd:"" help:"Revoke an API key"`
}

type keyAddCmd struct {
	Name  string `arg:"" help:"Name of the key, such as its user or application"`
	Scope string `default:"infer" enum:"infer,admin" placeholder:"SCOPE" help:"Permissions: infer for requests to models, admin for everything (default: ${default})"`
}

type keyListCmd struct{}

type keyRevokeCmd struct {
	Name string `arg:"" help:"Name or ID of the key"`
}

func keysPath(p pkgmgr.Paths) string { return filepath.Join(p.StateDir, "keys.json") }

func (a *app) keys() (*access.Keys, error) {
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	return access.OpenKeys(keysPath(paths)), nil
}

// help implements [helper].
func (keyAddCmd) help() commandHelp {
	return commandHelp{
		text:     "The key is printed to stdout. Only its hash is stored, so it cannot be shown again. A running queen accepts it within a second.",
		examples: []string{"rbee key add laptop", "rbee key add chat-ui --scope infer > key.txt", "export RBEE_API_KEY=$(rbee key add me --scope admin)"},
	}
}

// Run runs the command.
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

// help implements [helper].
func (keyListCmd) help() commandHelp {
	return commandHelp{
		examples: []string{"rbee key list", "rbee key list --json"},
	}
}

// Run runs the command.
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

// help implements [helper].
func (keyRevokeCmd) help() commandHelp {
	return commandHelp{
		text:     "A running queen rejects the key within a second.",
		examples: []string{"rbee key revoke laptop"},
	}
}

// Run runs the command.
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
	_, err = fmt.Fprintf(a.p.Stdout, "Revoked key %s\n", key.Name)
	return err
}
