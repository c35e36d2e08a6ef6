// Package engine runs one inference engine. It expands the placeholders of its recipe,
// builds its environment, starts and watches its process, probes its port, and runs its
// verify command. Package workers uses it to manage workers.
package engine

import (
	"context"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Engine describes an installed worker type.
type Engine struct {
	Version string
	Entry   string // absolute path of the program
	Payload string // absolute path of the directory with its files; empty if rbee did not install it
	Launch  wire.Launch
	Verify  *wire.Verify // nil for none
}

// Model describes the model that an engine loads.
type Model struct {
	ID        string // as in the list of models
	Path      string // file or directory
	SHA256    string // of the file, in hex; empty for a directory
	Estimate  int64  // device memory in bytes with the context of one request; 0 if unknown
	Context   int    // context length in tokens that Estimate includes; 0 if unknown
	Cache     int64  // bytes of Estimate for the context of one request
	Breakdown string // how Estimate was computed, for messages

	// Sum computes the checksum if SHA256 is empty and the recipe uses it. Sum reads the
	// complete file. It is nil for a directory.
	Sum func(ctx context.Context) (string, error)
}

// IsFile reports whether the model is one file, not a directory.
func (m Model) IsFile() bool { return m.SHA256 != "" || m.Sum != nil }
