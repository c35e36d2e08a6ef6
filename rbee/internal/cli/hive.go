package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strconv"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/daemon"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/install"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/verify"
)

type hiveCmd struct {
	Inspect hiveInspectCmd `cmd:"" help:"Print the state of this machine"`
	Apply   hiveApplyCmd   `cmd:"" help:"Run the steps read from stdin"`
	Serve   hiveServeCmd   `cmd:"" help:"Run the hive daemon"`

	Connect      hiveConnectCmd       `cmd:"" help:"Connect stdin and stdout to a loopback port of this machine"`
	Capabilities localCapabilitiesCmd `cmd:"" help:"Print the GPUs and resources of this machine"`
}

type hiveInspectCmd struct {
	Devices bool `help:"Also detect GPUs"`
	Deep    bool `help:"Read installed files and compare checksums"`
}

type hiveApplyCmd struct{}

type localCapabilitiesCmd struct{}

type hiveConnectCmd struct {
	Port int `arg:"" help:"Loopback port"`
}

type hiveServeCmd struct {
	Port int `help:"Loopback port to listen on (default: from the settings of the hive)"`
}

// inspector returns the inspector of the hive on this machine. The other parts of the
// hive share its fields.
func (a *app) inspector() (*inspect.Inspector, error) {
	root, err := home.Default(a.p.Getenv)
	if err != nil {
		return nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("cannot find the rbee executable: %w", err)
	}
	dir := &home.Dir{Root: root}
	store := &installed.Store{Home: dir, Version: a.p.Version, Exe: exe}
	return &inspect.Inspector{
		Home: dir, Store: store, Daemon: &control.Daemon{Home: dir}, Verifier: &verify.Verifier{Home: dir, Store: store},
	}, nil
}

// Run runs the command.
func (c *hiveInspectCmd) Run(ctx context.Context, a *app) error {
	i, err := a.inspector()
	if err != nil {
		return err
	}
	state, err := i.Inspect(ctx, inspect.Options{Deep: c.Deep, Devices: c.Devices})
	if err != nil {
		return err
	}
	return wire.NewWriter(a.p.Stdout).Write(state)
}

// Run runs the command.
func (hiveApplyCmd) Run(ctx context.Context, a *app) error {
	i, err := a.inspector()
	if err != nil {
		result := &wire.Result{Error: err.Error(), Cause: wire.CauseOf(err)}
		return errors.Join(err, wire.NewWriter(a.p.Stdout).Write(wire.Message{Result: result}))
	}
	in := &install.Installer{Home: i.Home, Store: i.Store, Daemon: i.Daemon, Inspector: i, Verifier: i.Verifier}
	return in.Apply(ctx, a.p.Stdin, a.p.Stdout)
}

// Run runs the command.
func (c *hiveServeCmd) Run(ctx context.Context, a *app) error {
	i, err := a.inspector()
	if err != nil {
		return err
	}
	s := &daemon.Server{Home: i.Home, Store: i.Store, Inspector: i, Verifier: i.Verifier}
	return s.Serve(ctx, daemon.Options{Port: c.Port, Log: slog.New(slog.NewTextHandler(a.p.Stderr, nil))})
}

// Run runs the command.
func (localCapabilitiesCmd) Run(ctx context.Context, a *app) error {
	i, err := a.inspector()
	if err != nil {
		return err
	}
	report, err := i.Capabilities(ctx)
	if err != nil {
		return err
	}
	return wire.NewWriter(a.p.Stdout).Write(report)
}

// Run runs the command. It returns when either side closes the connection.
func (c *hiveConnectCmd) Run(ctx context.Context, a *app) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	go func() {
		_, _ = io.Copy(conn, a.p.Stdin) // the other side detects a failure
		_ = conn.(*net.TCPConn).CloseWrite()
	}()
	_, err = io.Copy(a.p.Stdout, conn)
	return err
}

// inspectLine recognizes the command line that runs on every machine each time its
// state is read. Parsing it without the grammar saves a quarter of its CPU time. All
// other command lines are left to the grammar.
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
