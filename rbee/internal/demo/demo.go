// Package demo runs the demo of rbee on SSH hosts in this process.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Exit codes of the commands of the demo.
const (
	exitOK    = 0
	exitDrift = 2
)

// Options configure a demo.
type Options struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string

	// Keep keeps the hosts running until ctx is done, and prints the environment for
	// using them.
	Keep bool
}

// Run runs the demo: it starts SSH hosts on this machine and runs commands of this
// program on them, with their command lines and output on o.Stdout. It removes all
// its files.
func Run(ctx context.Context, o Options) (err error) {
	d, err := newDemo(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.runWorkflows(); err != nil {
		return err
	}
	if o.Keep {
		return d.keepRunning()
	}
	return d.cleanUp()
}

// extraWorker is the worker that the third workflow installs without rbee.
const extraWorker = "comfyui"

// runWorkflows runs the workflows. It stops at the first command that fails.
func (d *demo) runWorkflows() error {
	d.printLine("Three SSH hosts are running on this machine, without rbee.")
	for _, workflow := range []func() error{d.setUp, d.addHive, d.drift, d.migrate, d.infer} {
		if err := workflow(); err != nil {
			return err
		}
	}
	return nil
}

// setUp is workflow 1: write a config, validate it, install, check the status.
func (d *demo) setUp() error {
	d.title("1. First setup: a config with two machines")
	if err := d.writeConfig(2); err != nil {
		return err
	}
	return d.rbee(exitOK, "validate").
		rbee(exitDrift, "status").
		rbee(exitOK, "install").
		rbee(exitOK, "status").err
}

// addHive is workflow 2: one more machine in the config, and sync installs only that.
func (d *demo) addHive() error {
	d.title("2. New hive: add a third machine to the config")
	if err := d.writeConfig(3); err != nil {
		return err
	}
	return d.rbee(exitDrift, "sync", "--dry-run").
		rbee(exitOK, "sync").
		rbee(exitOK, "status").
		rbee(exitOK, "sync").err
}

// drift is workflow 3: a user changes a machine without rbee.
func (d *demo) drift() error {
	d.title("3. Drift: a worker was installed by hand")
	if err := d.copyProgram(0, ".local/share/rbee/workers/"+wire.EntryPrefix+extraWorker); err != nil {
		return err
	}
	return d.rbee(exitDrift, "status").
		rbee(exitOK, "sync", "--remove-extra").
		rbee(exitOK, "status").err
}

// migrate is workflow 4: create a config from the state of the machines.
func (d *demo) migrate() error {
	d.title("4. Migration: create a config from the installed hives")
	out := filepath.Join(d.dir, "migrated") + "/"
	return d.rbee(exitOK, "migrate", "--output", out).
		show(filepath.Join(out, "hives.conf")).
		rbee(exitOK, "status", "--config", filepath.Join(out, "hives.conf")).err
}

// infer is workflow 5: a worker on a machine answers a prompt.
func (d *demo) infer() error {
	d.title("5. Inference: start a worker and send it a prompt")
	return d.rbee(exitOK, "spawn-worker", "--hive", d.alias(1), "--worker", "echo", "--model", "parrot").
		rbee(exitOK, "list-workers").
		rbee(exitOK, "infer", "Busy bees make the best honey.", "--model", "parrot", "--verbose").err
}

// cleanUp uninstalls rbee from the hosts.
func (d *demo) cleanUp() error {
	d.title("Clean up")
	if err := d.rbee(exitOK, "uninstall", "--yes").err; err != nil {
		return err
	}
	d.installed = false
	if err := d.checkEmpty(); err != nil {
		return err
	}
	d.printLine("\nDemo finished: all commands succeeded and all files were removed.")
	return nil
}

// keepRunning prints the environment of the demo and waits until ctx is done.
func (d *demo) keepRunning() error {
	d.title("The hosts run until you press Ctrl-C. To use them, run in another shell:")
	for _, v := range d.laptopEnv() {
		d.printLine("export " + shellQuote(v))
	}
	d.printLine("alias rbee=" + shellQuote(d.exe))
	<-d.ctx.Done()
	return nil
}

// unexpectedExit returns the error of a command with an unexpected exit code.
func unexpectedExit(command string, got, want int) error {
	return fmt.Errorf("demo failed: `%s` exited with code %d, want %d", command, got, want)
}
