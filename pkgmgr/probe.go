package pkgmgr

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

//go:embed probe.sh
var probeSource string

// probeScript returns the script that reads a machine. With devices, the script of
// package gpu follows, so that an install decides as the installed rbee will.
func probeScript(o ReadOptions) string {
	var args []string
	if o.Devices {
		args = append(args, "--devices")
	}
	if o.Deep {
		args = append(args, "--deep")
	}
	script := fmt.Sprintf("set -- %s\ncommands_wanted='%s'\nlibraries_wanted='%s'\n",
		strings.Join(args, " "), strings.Join(wire.ProbedCommands, " "), strings.Join(wire.ProbedLibraries, " ")) + probeSource
	if o.Devices {
		script += gpu.ProbeScript()
	}
	return script
}

// probe reads a machine with one command, or with none where its daemon tells. A
// daemon of another rbee than the one that is installed may tell it wrongly.
func probe(ctx context.Context, host Host, o ReadOptions) (*wire.State, error) {
	if t, ok := host.(StateReader); ok {
		s, err := t.ReadState(ctx, o)
		if err == nil && s.Compatible() && s.Rbee != nil && s.Rbee.SHA256 == s.Daemon.SHA256 && s.Broken == "" {
			normalise(s)
			return s, nil
		}
	}
	var out bytes.Buffer
	limited := &limitWriter{w: &out, left: maxProbeOutput}
	if err := host.Script(ctx, probeScript(o), limited, nil); err != nil {
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
	normalise(&state)
	return &state, nil
}

// maxProbeOutput bounds what a machine may answer, noise of its shell included.
const maxProbeOutput = 64 << 20

// normalise turns what a shell says of a platform into Go's words, refuses to
// take over names of workers that could not have come from rbee, and sorts the
// others.
func normalise(s *wire.State) {
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
