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

// Options say how closely to look. The zero value is the quick look.
type Options struct {
	Deep    bool // read every installed file again, compare it with its record, and run verify commands
	Devices bool // ask for the accelerators too
}

// Inspect tells what is on this machine. It changes nothing and takes no lock,
// so what it sees during a change is the old or the new. It fails only when ctx
// ends or the home is unusable; everything that is wrong with what is installed
// is part of the state.
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
		s.Broken = newer.Error() // a newer rbee can do without replacing them
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
		return nil, fmt.Errorf("inspecting %s: %w", in.Home.Root, err)
	}
	return s, nil
}

// findCommands are the programs on this machine's PATH that engines may need. The
// CUDA toolkit is also found where it is usually installed.
func findCommands() []string {
	found := []string{}
	for _, c := range wire.ProbedCommands {
		if _, err := exec.LookPath(c); err == nil || c == "nvcc" && machine.CUDAHome() != "" {
			found = append(found, c)
		}
	}
	return found
}
