// Package probe reads a machine with one shell script, whether rbee is installed on it or
// not.
package probe

import (
	"bytes"
	"context"
	_ "embed" // the probe
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Host runs a shell script on a machine; see pkgmgr.Host.
type Host interface {
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error
}

// Options say what is read besides what is always read.
type Options struct {
	Deep    bool // read installed files again and compare their checksums
	Devices bool // accelerators
}

//go:embed probe.sh
var probeSource string

// script returns the script that reads a machine. With devices, the script of
// package gpu follows, so that an install decides as the installed rbee will.
func script(o Options) string {
	var args []string
	if o.Devices {
		args = append(args, "--devices")
	}
	if o.Deep {
		args = append(args, "--deep")
	}
	text := fmt.Sprintf("set -- %s\ncommands_wanted='%s'\nlibraries_wanted='%s'\n",
		strings.Join(args, " "), strings.Join(wire.ProbedCommands, " "), strings.Join(wire.ProbedLibraries, " ")) + probeSource
	if o.Devices {
		text += gpu.ProbeScript()
	}
	return text
}

// Read reads a machine with one command.
func Read(ctx context.Context, host Host, o Options) (*wire.State, error) {
	var out bytes.Buffer
	limited := &limitWriter{w: &out, left: maxOutput}
	if err := host.Script(ctx, script(o), limited, nil); err != nil {
		return nil, fmt.Errorf("reading the machine: %w", err)
	}
	var state wire.State
	if err := wire.NewReader(bytes.NewReader(out.Bytes())).Read(&state); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("reading the machine: its shell answered nothing that rbee understands")
		}
		return nil, fmt.Errorf("reading the machine: %w", err)
	}
	if o.Devices && state.Schema == 0 && !state.DevicesKnown { // no rbee answered
		var err error
		if state.Devices, err = gpu.Parse(out.Bytes()); err != nil {
			return nil, fmt.Errorf("reading the machine: %w", err)
		}
		state.DevicesKnown = true
	}
	Normalize(&state)
	return &state, nil
}

// maxOutput bounds what a machine may answer, noise of its shell included.
const maxOutput = 64 << 20

// Normalize turns what a shell says of a platform into Go's words, refuses to
// take over names of workers that could not have come from rbee, and sorts the
// others.
func Normalize(s *wire.State) {
	s.OS = strings.ToLower(s.OS)
	switch s.Arch {
	case "x86_64":
		s.Arch = "amd64"
	case "aarch64", "armv8l":
		s.Arch = "arm64"
	}
	if name, version, ok := strings.Cut(s.Libc, " "); ok {
		s.Libc, s.LibcVersion = name, version
	}
	kept := s.Workers[:0]
	for _, w := range s.Workers {
		if config.ValidWorkerType(w.Type) {
			kept = append(kept, w)
		}
	}
	sort.Slice(kept, func(i, j int) bool { return kept[i].Type < kept[j].Type })
	s.Workers = kept
}

// limitWriter fails once more than left bytes were written.
type limitWriter struct {
	w    io.Writer
	left int
}

func (l *limitWriter) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, errors.New("the machine answers too much")
	}
	l.left -= len(p)
	return l.w.Write(p)
}
