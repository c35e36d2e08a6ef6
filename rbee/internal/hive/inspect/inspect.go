package inspect

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"runtime"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
)

// Options are the options of [Inspector.Inspect]. The zero value is a quick inspection.
type Options struct {
	Deep    bool // read every installed file, compare it with its record, and run verify commands
	Devices bool // include the accelerators
}

// Inspect returns the state of this machine. It is read-only and does not acquire the lock:
// during a change, it returns the old or the new state. It fails only if ctx ends or the
// rbee directory is invalid. It reports damaged files in the state.
func (in *Inspector) Inspect(ctx context.Context, o Options) (*wire.State, error) {
	if err := in.Home.Check(); err != nil {
		return nil, err
	}
	s := &wire.State{
		Schema:      wire.Schema,
		MinReader:   wire.MinReader,
		Platform:    wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH},
		Home:        in.Home.Root,
		MissingDirs: atomicfile.MissingDirs(in.Home.Root),
		DiskFree:    home.DiskFree(in.Home.Root),
	}
	s.Libc, s.LibcVersion = libc(ctx)
	s.Noexec, s.Commands = noexec(in.Home.Root), findCommands()
	if s.Libraries = findLibraries("/", s.Libc, os.Getenv("LD_LIBRARY_PATH")); s.Libraries != nil {
		s.ROCm = rocmVersion("/")
	}
	s.Hostname, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		s.User = u.Username
	}
	s.Rbee, s.Broken = in.Store.Binary(o.Deep)
	s.PreviousRbee = in.Store.PreviousBinary()
	s.Wheels = in.Store.CachedWheels()
	var err error
	newer := (*wire.NewerSchemaError)(nil)
	if s.Settings, err = in.Home.Settings(); errors.As(err, &newer) && s.Broken == "" {
		s.Broken = newer.Error() // only a newer rbee can read the settings
	}
	s.Daemon = in.Daemon.State(ctx)
	if s.Workers, err = in.Store.Workers(ctx, o.Deep); err != nil {
		return nil, err
	}
	if o.Deep {
		in.Verifier.VerifyWorkers(ctx, s.Workers)
	}
	if o.Devices {
		if found, err := in.Machine().Devices(ctx); err == nil {
			s.DevicesKnown = true
			s.Devices = found
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("cannot inspect %s: %w", in.Home.Root, err)
	}
	return s, nil
}

// findCommands returns the elements of [wire.ProbedCommands] that are on the PATH. It also
// finds nvcc in the default directory of the CUDA toolkit.
func findCommands() []string {
	found := []string{}
	for _, c := range wire.ProbedCommands {
		if _, err := exec.LookPath(c); err == nil || c == "nvcc" && machine.CUDAHome() != "" {
			found = append(found, c)
		}
	}
	return found
}
