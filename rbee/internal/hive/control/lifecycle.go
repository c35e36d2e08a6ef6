package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

const (
	startTimeout = 15 * time.Second      // time limit for the first response of a new daemon
	StopTimeout  = 10 * time.Second      // time between SIGTERM and SIGKILL
	pollInterval = 50 * time.Millisecond // time between two checks of the daemon
)

// State returns the state of the daemon.
func (dm *Daemon) State(ctx context.Context) wire.Daemon {
	var rec Record
	var newer *wire.NewerSchemaError
	if err := statefile.Read(dm.Home.Path(home.DaemonFile), &rec); errors.As(err, &newer) {
		return wire.Daemon{Problem: newer.Error()}
	} else if err != nil || !rec.Alive() {
		return wire.Daemon{}
	}
	d := wire.Daemon{
		PID: rec.PID, Port: rec.Port, Version: rec.Version, SHA256: rec.SHA256,
		Since: rec.Since, Supervisor: rec.Supervisor,
	}
	switch info, err := dm.fetchInfo(ctx, rec.Port); {
	case err != nil:
		d.Problem = err.Error()
	case info.PID != rec.PID:
		d.Problem = fmt.Sprintf("process %d listens on port %d", info.PID, rec.Port)
	default:
		d.Running = true
	}
	return d
}

// portReleaseTimeout limits the wait for the port of a killed process. The kernel reports
// the process as exited before its last thread exits, which closes the port.
const portReleaseTimeout = time.Second

// waitForPort waits until the daemon can listen on its port.
func waitForPort(ctx context.Context, port int) error {
	for end := time.Now().Add(portReleaseTimeout); ; {
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", Loopback(port))
		switch {
		case err == nil:
			return ln.Close()
		case !errors.Is(err, syscall.EADDRINUSE):
			return err
		case time.Now().After(end):
			return &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonPortInUse, Subject: operations.SubjectPort.WithName(strconv.Itoa(port)),
				Message: fmt.Sprintf("port %d is used by another process: stop it, or set another hive_port", port), Err: err,
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Start starts the daemon with the installed binary and the stored settings. It first stops
// a daemon that runs another binary or listens on another port. It returns when the new
// daemon responds. The caller must hold the lock of the rbee directory.
func (dm *Daemon) Start(ctx context.Context) (note string, err error) {
	sum, _, err := fetch.HashFile(dm.Home.Path(wire.Binary))
	if err != nil {
		return "", fmt.Errorf("cannot start the daemon: %w", err)
	}
	port, err := dm.Home.Port()
	if err != nil {
		return "", fmt.Errorf("cannot start the daemon: %w", err)
	}
	auto := false
	if s, err := dm.Home.Settings(); err == nil {
		auto = s.AutoStart
	}
	sup := dm.supervisor(ctx)
	if d := dm.State(ctx); d.Running && d.SHA256 == sum && d.Port == port {
		if d.Supervisor == sup.Name() {
			err = sup.Enable(ctx, auto)
		}
		return "already running", err
	}
	if _, err := dm.Stop(ctx); err != nil {
		return "", err
	}
	if err := waitForPort(ctx, port); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dm.Home.Path(wire.LogsDir), 0o700); err != nil {
		return "", err
	}
	var logSize int64
	if info, err := os.Stat(dm.Home.Path(home.LogFile)); err == nil {
		logSize = info.Size()
	}
	exited, err := sup.Start(ctx, auto)
	if err == nil {
		err = dm.waitReady(ctx, sum, port, exited)
	}
	if err != nil {
		_, stopErr := dm.Stop(context.WithoutCancel(ctx))
		if tail := dm.Home.LogTail(logSize); tail != "" {
			err = fmt.Errorf("%w; last log lines:\n%s", err, tail)
		}
		return "", errors.Join(fmt.Errorf("cannot start the daemon: %w", err), stopErr)
	}
	return "started", nil
}

// waitReady waits until the new daemon responds. exited, if not nil, is closed when the
// process exits.
func (dm *Daemon) waitReady(ctx context.Context, sum string, port int, exited <-chan struct{}) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("no response on port %d within %s", port, startTimeout))
	defer cancel()
	for {
		if d := dm.State(ctx); d.Running && d.SHA256 == sum && d.Port == port {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-exited:
			return errors.New("the process exited immediately")
		case <-time.After(pollInterval):
		}
	}
}

// Stop stops the daemon under any service manager. The caller must hold the lock of the
// rbee directory.
func (dm *Daemon) Stop(ctx context.Context) (note string, err error) {
	var rec Record
	err = statefile.Read(dm.Home.Path(home.DaemonFile), &rec)
	if newer := (*wire.NewerSchemaError)(nil); errors.As(err, &newer) {
		return "", fmt.Errorf("cannot stop the daemon: %w", err)
	}
	running := err == nil && rec.Alive()
	if err := dm.Service().Stop(ctx); err != nil {
		return "", err
	}
	if !running {
		return "was not running", nil
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := rec.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return "", fmt.Errorf("cannot stop the daemon, process %d: %w", rec.PID, err)
		}
		for end := time.Now().Add(StopTimeout); time.Now().Before(end); {
			if !rec.Alive() {
				return "stopped", nil
			}
			select {
			case <-ctx.Done():
				return "", context.Cause(ctx)
			case <-time.After(pollInterval):
			}
		}
	}
	return "", fmt.Errorf("cannot stop the daemon: process %d did not exit within %s of SIGKILL", rec.PID, StopTimeout)
}
