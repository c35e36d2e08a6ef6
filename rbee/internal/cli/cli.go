// Package cli is the command line, with one file per command. A command converts
// its flags to an operation, runs it, and passes events and report to package ui.
// The package is responsible for prompts, hints and exit codes; the operations are
// responsible for the hives.
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

// Process is the environment of the program. Standard streams that are files are
// checked for being terminals.
type Process struct {
	Args    []string // without the program's name
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Env     []string // NAME=value
	Version string

	// Open returns the runner of operations; nil means a controller in this process.
	Open func(controller.Options) (Runner, error)
}

// Runner runs operations until it is closed.
type Runner interface {
	operations.Runner
	Close() error
}

// Getenv returns the value of an environment variable, or "".
func (p Process) Getenv(name string) string {
	value, _ := p.LookupEnv(name)
	return value
}

// LookupEnv returns the value of an environment variable; ok reports whether it is
// set.
func (p Process) LookupEnv(name string) (value string, ok bool) {
	for _, e := range slices.Backward(p.Env) {
		if key, value, ok := strings.Cut(e, "="); ok && key == name {
			return value, true
		}
	}
	return "", false
}

// Run runs one command line and returns the exit code of the program. The first
// interrupt cancels the command, the second one terminates the program.
func Run(ctx context.Context, p Process) int {
	a := newApp(p)
	ctx, stop := a.interruptible(ctx)
	defer stop()
	defer func() { _ = a.close() }() // the command has already reported the error
	err := a.run(ctx)
	return a.finish(ctx, err)
}

// run parses the command line and runs its command.
func (a *app) run(ctx context.Context) error {
	if c, ok := inspectLine(a.p.Args); ok {
		return c.Run(ctx, a)
	}
	parser, err := newParser(&a.grammar, a.p.Stdout)
	if err != nil {
		return fmt.Errorf("invalid command line grammar: %w", err)
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

// usage converts an error of kong to a usageError.
func (a *app) usage(err error) error {
	command, isGroup := "rbee", true
	var parse *kong.ParseError
	if errors.As(err, &parse) && parse.Context != nil {
		if node := parse.Context.Selected(); node != nil {
			command, isGroup = node.FullPath(), len(node.Children) > 0
		}
	}
	a.json = a.json || wantsJSON(a.p.Args)
	return &usageError{message: parserMessage(err.Error(), isGroup), hint: fmt.Sprintf("run `%s --help`", command)}
}

// wantsJSON reports whether a command line that cannot be parsed contains --json.
func wantsJSON(args []string) bool {
	if end := slices.Index(args, "--"); end >= 0 {
		args = args[:end]
	}
	return slices.Contains(args, "--json")
}
