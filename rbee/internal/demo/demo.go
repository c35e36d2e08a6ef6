// Package demo shows rbee on SSH hosts that run in this process.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// The exit codes that the commands of the demo end with.
const (
	exitOK    = 0
	exitDrift = 2
)

// Options configure a demo.
type Options struct {
	Stdout, Stderr io.Writer
	Getenv         func(string) string

	// Keep leaves the hosts up until ctx ends, and prints the environment to go on by hand.
	Keep bool
}

// Run plays the demo: it starts SSH hosts on this machine and runs commands of this
// program, which it prints, against them. Nothing is left behind.
func Run(ctx context.Context, o Options) (err error) {
	d, err := newDemo(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()
	if err := d.play(); err != nil {
		return err
	}
	if o.Keep {
		return d.keep()
	}
	return d.end()
}

// extraWorker is what somebody puts on a host by hand in the third workflow.
const extraWorker = "comfyui"

// play runs the workflows. It stops at the first command that does not end as
// it should.
func (d *demo) play() error {
	d.say("Three SSH hosts are up on this machine, with nothing of rbee on them.")
	for _, part := range []func() error{d.setUp, d.addHive, d.drift, d.migrate, d.infer} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// setUp is workflow 1: write a config, validate, install, check.
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
	d.title("2. A third machine comes into the config")
	if err := d.writeConfig(3); err != nil {
		return err
	}
	return d.rbee(exitDrift, "sync", "--dry-run").
		rbee(exitOK, "sync").
		rbee(exitOK, "status").
		rbee(exitOK, "sync").err
}

// drift is workflow 3: somebody changes a machine by hand.
func (d *demo) drift() error {
	d.title("3. Somebody installs a worker by hand")
	if err := d.putByHand(0, ".local/share/rbee/workers/"+wire.EntryPrefix+extraWorker); err != nil {
		return err
	}
	return d.rbee(exitDrift, "status").
		rbee(exitOK, "sync", "--remove-extra").
		rbee(exitOK, "status").err
}

// migrate is workflow 4: the config is written anew from what machines have.
func (d *demo) migrate() error {
	d.title("4. A config made from what the machines have")
	out := filepath.Join(d.dir, "migrated") + "/"
	return d.rbee(exitOK, "migrate", "--output", out).
		show(filepath.Join(out, "hives.conf")).
		rbee(exitOK, "status", "--config", filepath.Join(out, "hives.conf")).err
}

// infer is what it is all for: a worker runs on a machine and answers.
func (d *demo) infer() error {
	d.title("5. A worker process on a machine answers from here")
	return d.rbee(exitOK, "spawn-worker", "--hive", d.alias(1), "--worker", "echo", "--model", "parrot").
		rbee(exitOK, "list-workers").
		rbee(exitOK, "infer", "Busy bees make the best honey.", "--model", "parrot", "--verbose").err
}

// end removes everything again.
func (d *demo) end() error {
	d.title("Clean up")
	if err := d.rbee(exitOK, "uninstall", "--yes").err; err != nil {
		return err
	}
	d.installed = false
	if err := d.checkEmpty(); err != nil {
		return err
	}
	d.say("\nThe demo is over: every command ended as it should, and nothing is left.")
	return nil
}

// keep waits until it is interrupted.
func (d *demo) keep() error {
	d.title("The hosts stay up until you press Ctrl-C. To go on by hand, in another shell:")
	for _, v := range d.ownEnv() {
		d.say("export " + shellQuote(v))
	}
	d.say("alias rbee=" + shellQuote(d.exe))
	<-d.ctx.Done()
	return nil
}

// failed is the end of a demo in which a command did not end as it should.
func failed(command string, got, want int) error {
	return fmt.Errorf("the demo failed: `%s` ended with exit code %d, not with %d", command, got, want)
}
