// Package cli is the command line: one command, one file. A command turns its
// flags into an operation, has a runner do it, and hands events and report to
// package ui. It decides nothing about machines; it decides prompts, hints and
// exit codes.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
)

// Process is everything that the program has from its caller. Standard streams
// that are files are looked at for being terminals.
type Process struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Env     []string // NAME=value
	Version string

	// Open makes the runner of operations; nil makes a queen in this process.
	Open func(controller.Options) (Runner, error)
}

// Runner does operations until it is closed.
type Runner interface {
	operations.Runner
	Close() error
}

// Getenv is the value of an environment variable, or "".
func (p Process) Getenv(name string) string {
	value, _ := p.LookupEnv(name)
	return value
}

// LookupEnv is the value of an environment variable; ok is false if there is none.
func (p Process) LookupEnv(name string) (value string, ok bool) {
	for _, e := range slices.Backward(p.Env) {
		if key, value, ok := strings.Cut(e, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// Run runs one command line and returns the program's exit code. The first
// interrupt ends the command cleanly, the second one the program.
func Run(ctx context.Context, p Process) int {
	a := newApp(p)
	ctx, stop := a.interruptible(ctx)
	defer stop()
	defer func() { _ = a.close() }() // what went wrong has been told by the command itself
	err := a.run(ctx)
	return a.finish(ctx, err)
}

// run parses the command line and does what it says.
func (a *app) run(ctx context.Context) error {
	if c, ok := inspectLine(a.p.Args); ok {
		return c.Run(ctx, a)
	}
	parser, err := newParser(&a.grammar, a.p.Stdout)
	if err != nil {
		return fmt.Errorf("the command line's grammar is wrong: %w", err)
	}
	if len(a.p.Args) > 0 && a.p.Args[0] == completeCommand {
		return a.complete(ctx, parser.Model.Node, a.p.Args[1:])
	}
	args := a.p.Args
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	switch {
	case errors.Is(err, errHelp):
		return nil
	case err != nil:
		return a.usage(err)
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	return parsed.Run(a)
}

// usage makes a usageError of what kong says.
func (a *app) usage(err error) error {
	command := "rbee"
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			command = node.FullPath()
		}
	}
	a.json = a.json || wantsJSON(a.p.Args)
	return &usageError{message: err.Error(), hint: fmt.Sprintf("`%s --help` shows how it is used", command)}
}

// wantsJSON looks for --json where the command line could not be parsed.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}
