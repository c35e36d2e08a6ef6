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

	// Keep keeps the hosts running until ctx is done, and prints the environment
	// variables for using them.
	Keep bool
}

// Run starts SSH hosts on this machine and runs commands of this program on them. It
// prints the command lines and their output to o.Stdout, and removes all files of the
// demo at the end.
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

// setUp runs workflow 1: write a config, validate it, install, and check the status.
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

// addHive runs workflow 2: add a machine to the config. sync installs only that hive.
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

// drift runs workflow 3: change a machine without rbee, and correct it with sync.
func (d *demo) drift() error {
	d.title("3. Drift: a worker was installed by hand")
	if err := d.copyProgram(0, ".local/share/rbee/workers/"+wire.EntryPrefix+extraWorker); err != nil {
		return err
	}
	return d.rbee(exitDrift, "status").
		rbee(exitOK, "sync", "--remove-extra").
		rbee(exitOK, "status").err
}

// migrate runs workflow 4: create a config from the state of the machines.
func (d *demo) migrate() error {
	d.title("4. Migration: create a config from the installed hives")
	out := filepath.Join(d.dir, "migrated") + "/"
	return d.rbee(exitOK, "migrate", "--output", out).
		show(filepath.Join(out, "hives.conf")).
		rbee(exitOK, "status", "--config", filepath.Join(out, "hives.conf")).err
}

// infer runs workflow 5: start a worker and send it a prompt.
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

// keepRunning prints the environment variables of the demo and waits until ctx is done.
func (d *demo) keepRunning() error {
	d.title("The hosts run until you press Ctrl-C. To use them, run this in another shell:")
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
