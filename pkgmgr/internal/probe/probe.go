// Package probe reads the state of a machine with one shell script. rbee need not be
// installed on the machine.
package probe

import (
	"bytes"
	"context"
	_ "embed" // for probe.sh
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Host runs shell scripts on a machine; see pkgmgr.Host.
type Host interface {
	Script(ctx context.Context, script string, stdout, stderr io.Writer) error
}

// Options select additional properties for Read.
type Options struct {
	Deep    bool // verify the checksums of installed files
	Devices bool // probe accelerators
}

//go:embed probe.sh
var probeSource string

// script returns the script that reads a machine. With o.Devices, it includes the script of
// package gpu, which detects the same accelerators as an installed rbee.
func script(o Options) string {
	var args []string
	if o.Devices {
		args = append(args, "--devices")
	}
	if o.Deep {
		args = append(args, "--deep")
	}
	text := fmt.Sprintf("set -- %s\nprobed_commands='%s'\nprobed_libraries='%s'\n",
		strings.Join(args, " "), strings.Join(wire.ProbedCommands, " "), strings.Join(wire.ProbedLibraries, " ")) + probeSource
	if o.Devices {
		text += gpu.ProbeScript()
	}
	return text
}

// Read reads the state of a machine with one command.
func Read(ctx context.Context, host Host, o Options) (*wire.State, error) {
	var out bytes.Buffer
	limited := &limitWriter{w: &out, left: maxOutput}
	if err := host.Script(ctx, script(o), limited, nil); err != nil {
		return nil, readError(err)
	}
	var state wire.State
	if err := wire.NewReader(bytes.NewReader(out.Bytes())).Read(&state); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, readError(errors.New("the output of the shell contains no record"))
		}
		return nil, readError(err)
	}
	if o.Devices && state.Schema == 0 && !state.DevicesKnown { // the script printed the record
		var err error
		if state.Devices, err = gpu.Parse(out.Bytes()); err != nil {
			return nil, readError(err)
		}
		state.DevicesKnown = true
	}
	Normalize(&state)
	return &state, nil
}

func readError(err error) error {
	return fmt.Errorf("cannot read the state of the machine: %w", err)
}

// maxOutput is the maximum size of the script's output in bytes, including output of shell
// startup files.
const maxOutput = 64 << 20

// Normalize converts the names of a platform that uname prints to the names that Go uses,
// removes workers with invalid types, and sorts workers by type.
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
	workers := s.Workers[:0]
	for _, w := range s.Workers {
		if config.ValidWorkerType(w.Type) {
			workers = append(workers, w)
		}
	}
	sort.Slice(workers, func(i, j int) bool { return workers[i].Type < workers[j].Type })
	s.Workers = workers
}

// limitWriter writes to w. It returns an error for more than left bytes.
type limitWriter struct {
	w    io.Writer
	left int // remaining number of bytes
}

func (l *limitWriter) Write(p []byte) (int, error) {
	if len(p) > l.left {
		return 0, fmt.Errorf("output of the probe script exceeds %d MiB", maxOutput>>20)
	}
	l.left -= len(p)
	return l.w.Write(p)
}
