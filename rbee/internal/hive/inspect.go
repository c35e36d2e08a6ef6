package hive

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"runtime"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/machine"
)

// InspectOptions say how closely to look. The zero value is the quick look.
type InspectOptions struct {
	Deep    bool // read every installed file again, compare it with its record, and run verify commands
	Devices bool // ask for the accelerators too
}

// Inspect tells what is on this machine. It changes nothing and takes no lock,
// so what it sees during a change is the old or the new. It fails only when ctx
// ends or the home is unusable; everything that is wrong with what is installed
// is part of the state.
func (h *Hive) Inspect(ctx context.Context, o InspectOptions) (*wire.State, error) {
	if err := h.checkHome(); err != nil {
		return nil, err
	}
	s := &wire.State{
		Schema:      wire.Schema,
		MinReader:   wire.MinReader,
		Platform:    wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH},
		Home:        h.Home,
		MissingDirs: missingDirs(h.Home),
		DiskFree:    diskFree(h.Home),
	}
	s.Libc, s.LibcVersion = libc(ctx)
	s.Noexec, s.Commands = noexec(h.Home), probedCommands()
	if s.Libraries = probedLibraries("/", s.Libc, os.Getenv("LD_LIBRARY_PATH")); s.Libraries != nil {
		s.ROCm = rocmVersion("/")
	}
	s.Hostname, _ = os.Hostname()
	if u, err := user.Current(); err == nil {
		s.User = u.Username
	}
	s.Rbee, s.Broken = h.installed(o.Deep)
	s.Wheels = h.cachedWheels()
	s.Settings, _ = h.settings()
	s.Daemon = h.daemon(ctx)
	var err error
	if s.Workers, err = h.workers(ctx, o.Deep); err != nil {
		return nil, err
	}
	if o.Deep {
		h.verifyWorkers(ctx, s.Workers)
	}
	if o.Devices {
		if found, err := h.machine().Devices(ctx); err == nil {
			s.DevicesKnown = true
			s.Devices = found
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("inspecting %s: %w", h.Home, err)
	}
	return s, nil
}

// probedCommands are the programs on this machine's PATH that engines may need. The
// CUDA toolkit is also found where it is usually installed.
func probedCommands() []string {
	found := []string{}
	for _, c := range wire.ProbedCommands {
		if _, err := exec.LookPath(c); err == nil || c == "nvcc" && machine.CUDAHome() != "" {
			found = append(found, c)
		}
	}
	return found
}

// installed is the record of bin/rbee, and what is wrong with that file. Where
// the record does not fit the file, the file counts.
func (h *Hive) installed(deep bool) (rec *wire.Installed, broken string) {
	path := h.path(wire.Binary)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		if _, err := os.Lstat(path); err != nil {
			return nil, ""
		}
	}
	rec = new(wire.Installed)
	recErr := atomicfile.ReadJSON(h.path(wire.BinaryInfo), rec)
	switch {
	case err != nil:
		return rec, err.Error()
	case !info.Mode().IsRegular():
		return rec, path + " is no regular file"
	case info.Mode()&0o100 == 0:
		broken = path + " is not executable"
	}
	if recErr == nil && rec.Size == info.Size() && !deep {
		return rec, broken
	}
	sum, size, err := hashFile(path)
	if err != nil {
		return rec, err.Error()
	}
	if recErr == nil && rec.SHA256 == sum && rec.Size == size {
		return rec, broken
	}
	if recErr == nil && broken == "" {
		broken = path + " is not the file that was installed"
	}
	rec = &wire.Installed{SHA256: sum, Size: size, MadeDirs: rec.MadeDirs}
	if own, err := os.Stat(h.Exe); err == nil && os.SameFile(own, info) {
		rec.Version, broken = h.Version, "" // it runs this very code
	}
	return rec, broken
}

// settings are what the hive was last told; nil if never.
func (h *Hive) settings() (*wire.Settings, error) {
	var s wire.Settings
	if err := atomicfile.ReadJSON(h.path(settingsFile), &s); err != nil {
		return nil, err
	}
	return &s, nil
}

// defaultPort is the port of a hive that was told none.
const defaultPort = 8600

// port is where the daemon is to listen.
func (h *Hive) port() int {
	if s, err := h.settings(); err == nil && s.HivePort != 0 {
		return s.HivePort
	}
	return defaultPort
}
