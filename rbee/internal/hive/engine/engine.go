// Package engine starts and probes one inference engine: what its recipe's placeholders
// stand for, its environment, its process, whether it serves, and its verify command.
// Package workers decides when.
package engine

import (
	"context"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Engine is a worker type as it is installed.
type Engine struct {
	Version string
	Entry   string // absolute path of its program
	Payload string // absolute path of the directory with its files; empty for one put there by hand
	Launch  wire.Launch
	Verify  *wire.Verify // nil for none
}

// Model is a model as an engine gets it.
type Model struct {
	ID       string // as the list of models tells it
	Path     string // file or directory
	SHA256   string // of the file, in hex; empty for a directory
	Estimate int64  // device memory in bytes with the context of one request, 0 if not known
	Context  int    // length of context in tokens that is counted with, 0 if not known
	Cache    int64  // part of Estimate that the context of one request takes
	Explain  string // how the estimate came about

	// Sum computes SHA256 where that is empty, if the recipe asks for it: it is as
	// slow as reading the file. Nil if there is nothing to compute.
	Sum func(ctx context.Context) (string, error)
}

// IsFile tells one file from a directory.
func (m Model) IsFile() bool { return m.SHA256 != "" || m.Sum != nil }
