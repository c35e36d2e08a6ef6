package pkgmgr

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// DefaultOptions returns the options that the rbee command uses for a config: the built-in
// recipes and the user's own, the record of installed hives and the caches in
// [DefaultPaths], and the lockfile next to the config file.
//
// Machines get the release of rbee that the go.mod of this program requires. The release is
// read from the directory in RBEE_BINARIES (see [artifact.Binaries.Dir]) or downloaded. If
// RBEE_RELEASE_URL is set, it replaces the address of the public releases. A program that
// requires a development version of this module uses the rbee in PATH, if any, for
// machines of the same platform.
//
// DefaultOptions returns an error if the recipes, the lockfile or the record cannot be read; see
// [catalog.Load], [lockfile.Load] and [Record.Extra].
func DefaultOptions(c *config.Config, connect Connect) (Options, error) {
	paths, err := DefaultPaths(os.Getenv)
	if err != nil {
		return Options{}, err
	}
	o := Options{Connect: connect, CacheDir: paths.CacheDir, Record: Record{Path: paths.Record()}, Lock: &lockfile.Lock{}}
	if o.Catalog, err = catalog.Load(paths.Recipes()); err != nil {
		return Options{}, err
	}
	if c.Path != "" {
		path, err := filepath.Abs(c.Path)
		if err != nil {
			return Options{}, err
		}
		if o.Lock, err = lockfile.Load(lockfile.Path(path)); err != nil {
			return Options{}, err
		}
		if o.Extra, err = o.Record.Extra(c, path); err != nil {
			return Options{}, err
		}
	}
	binaries := &artifact.Binaries{
		Version: moduleVersion(), Dir: os.Getenv("RBEE_BINARIES"), Cache: paths.BinaryCache(), ReleaseURL: os.Getenv("RBEE_RELEASE_URL"),
	}
	if binaries.Version == "" && binaries.Dir == "" {
		binaries.Self, binaries.Version = installedRbee()
	}
	o.Binaries, o.Version = binaries, cmp.Or(binaries.Version, artifact.DevVersion)
	return o, nil
}

// installedRbee returns the path and the version of the rbee in PATH. Both are "" if PATH
// contains no program named rbee, or another program with this name.
func installedRbee() (path, version string) {
	path, err := exec.LookPath("rbee")
	if err != nil {
		return "", ""
	}
	version, err = artifact.CheckBuild(path, wire.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH})
	if err != nil {
		return "", ""
	}
	return path, version
}

// modulePath is the path of this module.
const modulePath = "github.com/rbee-keeper/rbee"

// moduleVersion returns the release of this module that the running program was built
// with, such as "1.2.3", or "" for a development version.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	version := ""
	if info.Main.Path == modulePath {
		version = info.Main.Version
	}
	for _, dep := range info.Deps {
		if dep.Path == modulePath && dep.Replace == nil {
			version = cmp.Or(version, dep.Version)
		}
	}
	return artifact.ReleaseVersion(version)
}
