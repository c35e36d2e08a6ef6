package pkgmgr

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Paths are where this machine keeps rbee's files.
type Paths struct {
	Home      string // the user's home directory
	ConfigDir string // hives.conf and the user's own recipes
	StateDir  string // the record of hives
	CacheDir  string // what can be fetched again
}

// DefaultPaths are the places of the XDG base directory specification, with
// rbee below each; env looks an environment variable up.
func DefaultPaths(env func(string) string) (Paths, error) {
	home := env("HOME")
	if home == "" {
		var err error
		if home, err = os.UserHomeDir(); err != nil {
			return Paths{}, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNoHome, Message: "neither HOME nor a home directory is set", Err: err}
		}
	}
	under := func(variable string, fallback ...string) string {
		if dir := env(variable); filepath.IsAbs(dir) {
			return filepath.Join(dir, "rbee")
		}
		return filepath.Join(append(append([]string{home}, fallback...), "rbee")...)
	}
	return Paths{
		Home:      home,
		ConfigDir: under("XDG_CONFIG_HOME", ".config"),
		StateDir:  under("XDG_STATE_HOME", ".local", "state"),
		CacheDir:  under("XDG_CACHE_HOME", ".cache"),
	}, nil
}

// Config is the config file that is used when none is named.
func (p Paths) Config() string { return filepath.Join(p.ConfigDir, "hives.conf") }

// Recipes is the directory of the user's own recipes.
func (p Paths) Recipes() string { return filepath.Join(p.ConfigDir, "workers") }

// Record is the file that remembers installed hives.
func (p Paths) Record() string { return filepath.Join(p.StateDir, "fleet.json") }

// BinaryCache keeps fetched rbee binaries.
func (p Paths) BinaryCache() string { return filepath.Join(p.CacheDir, "binaries") }

// ConfigFile is the absolute path of the named config file, or of the default
// one for an empty name. A leading ~/ is the home directory.
func (p Paths) ConfigFile(name string) (string, error) {
	if name == "" {
		return p.Config(), nil
	}
	if rest, ok := strings.CutPrefix(name, "~/"); ok {
		name = filepath.Join(p.Home, rest)
	}
	return filepath.Abs(name)
}
