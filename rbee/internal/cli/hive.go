package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive"
)

type hiveCmd struct {
	Inspect hiveInspectCmd `cmd:"" help:"Say what this machine has."`
	Apply   hiveApplyCmd   `cmd:"" help:"Do the steps that come on stdin."`
	Serve   hiveServeCmd   `cmd:"" help:"Be the hive daemon."`
}

type hiveInspectCmd struct {
	Devices bool `help:"Look for accelerators too."`
	Deep    bool `help:"Read installed files and compare their checksums."`
}

type hiveApplyCmd struct{}

type hiveServeCmd struct {
	Port int `help:"The loopback port to listen on; the one of the hive's settings when not given."`
}

// hive is this machine's side of rbee.
func (a *app) hive() (*hive.Hive, error) {
	home, err := hive.DefaultHome(a.p.Getenv)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("finding the program's own file: %w", err)
	}
	return &hive.Hive{Home: home, Version: a.p.Version, Exe: exe, Devices: devices}, nil
}

// devices are this machine's accelerators, in the words of the wire. Those that
// cannot be used have their error.
func devices(ctx context.Context) ([]wire.Device, error) {
	report, err := gpu.Detect(ctx)
	if err != nil {
		return nil, err
	}
	found := make([]wire.Device, len(report.Devices))
	for i, d := range report.Devices {
		found[i] = wire.Device{Vendor: string(d.Vendor), Name: d.Name, MemoryBytes: d.MemoryTotal, Error: d.Error}
	}
	return found, nil
}

// Run does the command.
func (c *hiveInspectCmd) Run(ctx context.Context, a *app) error {
	h, err := a.hive()
	if err != nil {
		return err
	}
	state, err := h.Inspect(ctx, hive.InspectOptions{Deep: c.Deep, Devices: c.Devices})
	if err != nil {
		return err
	}
	return wire.NewWriter(a.p.Stdout).Write(state)
}

// Run does the command.
func (hiveApplyCmd) Run(ctx context.Context, a *app) error {
	h, err := a.hive()
	if err != nil {
		return err
	}
	return h.Apply(ctx, a.p.Stdin, a.p.Stdout)
}

// Run does the command.
func (c *hiveServeCmd) Run(ctx context.Context, a *app) error {
	h, err := a.hive()
	if err != nil {
		return err
	}
	return h.Serve(ctx, hive.ServeOptions{Port: c.Port, Log: slog.New(slog.NewTextHandler(a.p.Stderr, nil))})
}

// inspectLine recognises the one command line that every machine is asked each
// time its state is read. Doing without the grammar of the whole program saves
// it a quarter of its CPU time. Anything but the very words is left to the grammar.
func inspectLine(args []string) (c hiveInspectCmd, ok bool) {
	if len(args) < 2 || args[0] != "hive" || args[1] != "inspect" {
		return c, false
	}
	for _, arg := range args[2:] {
		switch arg {
		case "--devices":
			c.Devices = true
		case "--deep":
			c.Deep = true
		default:
			return hiveInspectCmd{}, false
		}
	}
	return c, true
}
