// Package home provides access to the rbee directory of this machine: its paths, lock,
// daemon log and settings, and helpers for the files in it.
package home

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Paths below the rbee directory that package wire does not define.
const (
	TokenFile      = wire.RunDir + "/token"
	SettingsFile   = wire.RunDir + "/settings.json"
	DaemonFile     = wire.RunDir + "/hive.json"
	DaemonLock     = wire.RunDir + "/hive.lock"
	SupervisorFile = wire.RunDir + "/supervisor.json"
	LogFile        = wire.LogsDir + "/hive.log"
	OldLogFile     = wire.LogsDir + "/hive.log.1"

	// TempPrefix is the prefix of the names of temporary files. A temporary file is created
	// in the directory of the file that it replaces. In bin/, wire.UploadGlob matches it.
	TempPrefix = ".rbee-"
)

// Dir is the rbee directory of this machine. Set its fields before the first call and do
// not change them after it. Its methods are safe for concurrent use.
type Dir struct {
	// Root is the absolute path of the directory. Required. See [Default].
	Root string

	// User is the user's home directory; empty means os.UserHomeDir.
	User string
}

// Path returns the absolute path of name, a slash-separated path below the rbee directory.
func (d *Dir) Path(name string) string {
	return filepath.Join(d.Root, filepath.FromSlash(name))
}

// Check returns an error if rbee cannot use the directory safely: if its path is not absolute
// or contains control characters, or if the directory is or contains the user's home
// directory.
func (d *Dir) Check() error {
	if !filepath.IsAbs(d.Root) {
		return fmt.Errorf("invalid rbee directory %q: want an absolute path", d.Root)
	}
	if strings.ContainsFunc(d.Root, unicode.IsControl) {
		return fmt.Errorf("invalid rbee directory %q: want a path without control characters", d.Root)
	}
	user, err := d.UserHome()
	if err != nil {
		return nil // the user has no home directory
	}
	if rel, err := filepath.Rel(d.Root, user); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("invalid rbee directory %q: want a directory that does not contain the home directory %s: set RBEE_HOME", d.Root, user)
	}
	return nil
}

// UserHome returns the user's home directory.
func (d *Dir) UserHome() (string, error) {
	if d.User != "" {
		return d.User, nil
	}
	return os.UserHomeDir()
}

// Default returns the path of the rbee directory: RBEE_HOME, or ~/.local/share/rbee. env
// returns environment variables, as os.Getenv does. XDG_DATA_HOME has no effect, because
// the client must find the directory over SSH without the user's profile.
func Default(env func(string) string) (string, error) {
	if home := env("RBEE_HOME"); home != "" {
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("invalid RBEE_HOME %q: want an absolute path", home)
		}
		return filepath.Clean(home), nil
	}
	user := env("HOME")
	if !filepath.IsAbs(user) {
		return "", errors.New("cannot find the rbee directory: RBEE_HOME is not set, and HOME is not an absolute path")
	}
	return filepath.Join(user, ".local", "share", "rbee"), nil
}
