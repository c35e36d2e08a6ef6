package pkgmgr

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Paths contains the directories of rbee's files on this machine.
type Paths struct {
	Home      string // the user's home directory
	ConfigDir string // hives.conf and the user's own recipes
	StateDir  string // the record of hives
	CacheDir  string // files that can be downloaded again
}

// DefaultPaths returns the subdirectories rbee of the user directories that the XDG base
// directory specification defines. env returns the value of an environment variable.
func DefaultPaths(env func(string) string) (Paths, error) {
	home := env("HOME")
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return Paths{}, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoHome, Message: "cannot determine the home directory: HOME is not set", Err: err}
		}
	}
	xdgDir := func(variable string, fallback ...string) string {
		if dir := env(variable); filepath.IsAbs(dir) {
			return filepath.Join(dir, "rbee")
		}
		return filepath.Join(append(append([]string{home}, fallback...), "rbee")...)
	}
	return Paths{
		Home:      home,
		ConfigDir: xdgDir("XDG_CONFIG_HOME", ".config"),
		StateDir:  xdgDir("XDG_STATE_HOME", ".local", "state"),
		CacheDir:  xdgDir("XDG_CACHE_HOME", ".cache"),
	}, nil
}

// Config returns the path of the default config file.
func (p Paths) Config() string { return filepath.Join(p.ConfigDir, "hives.conf") }

// Recipes returns the directory of the user's own recipes.
func (p Paths) Recipes() string { return filepath.Join(p.ConfigDir, "workers") }

// Record returns the path of the record of installed hives.
func (p Paths) Record() string { return filepath.Join(p.StateDir, "fleet.json") }

// BinaryCache returns the directory of downloaded rbee binaries.
func (p Paths) BinaryCache() string { return filepath.Join(p.CacheDir, "binaries") }

// ConfigFile returns the absolute path of a config file, or of the default one if name is
// empty. It replaces a leading ~/ with the home directory.
func (p Paths) ConfigFile(name string) (string, error) {
	if name == "" {
		return p.Config(), nil
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		name = filepath.Join(p.Home, rest)
	}
	return filepath.Abs(name)
}
