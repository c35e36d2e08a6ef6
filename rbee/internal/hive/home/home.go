// Package home is rbee's directory on this machine: its paths, its lock, the
// daemon's log and the settings; and what rbee does with files there.
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

// Names below the home that package wire has no use for.
const (
	TokenFile      = wire.RunDir + "/token"
	SettingsFile   = wire.RunDir + "/settings.json"
	DaemonFile     = wire.RunDir + "/hive.json"
	DaemonLock     = wire.RunDir + "/hive.lock"
	SupervisorFile = wire.RunDir + "/supervisor.json"
	LogFile        = wire.LogsDir + "/hive.log"
	OldLogFile     = wire.LogsDir + "/hive.log.1"

	// TempPrefix begins the name of everything that is being made beside what
	// it will replace. It matches wire.UploadGlob.
	TempPrefix = ".rbee-"
)

// Dir is rbee's directory on this machine. Set its fields before the first call and
// leave them alone afterwards; its methods may then be called from several goroutines.
type Dir struct {
	// Root is the absolute path of the directory. Required. See [Default].
	Root string

	// User is the user's home directory; empty means os.UserHomeDir.
	User string
}

// Path returns a place in the home, given with slashes.
func (d *Dir) Path(name string) string {
	return filepath.Join(d.Root, filepath.FromSlash(name))
}

// Check refuses homes in which a file of somebody else could be taken for
// one of rbee's.
func (d *Dir) Check() error {
	if !filepath.IsAbs(d.Root) {
		return fmt.Errorf("rbee's directory %q is no absolute path", d.Root)
	}
	if strings.ContainsFunc(d.Root, unicode.IsControl) {
		return fmt.Errorf("rbee's directory %q holds control characters, which no service file can name", d.Root)
	}
	user, err := d.UserHome()
	if err != nil {
		return nil // without a home directory there is none to protect
	}
	if rel, err := filepath.Rel(d.Root, user); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("rbee's directory %s is or holds the home directory %s: set RBEE_HOME to a directory of its own", d.Root, user)
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

// Default returns rbee's directory on this machine: RBEE_HOME, or
// ~/.local/share/rbee. env is os.Getenv or the like. XDG_DATA_HOME does not
// count: the other side must find the directory without the user's profile.
func Default(env func(string) string) (string, error) {
	if home := env("RBEE_HOME"); home != "" {
		if !filepath.IsAbs(home) {
			return "", fmt.Errorf("RBEE_HOME is %q, want an absolute path", home)
		}
		return filepath.Clean(home), nil
	}
	user := env("HOME")
	if !filepath.IsAbs(user) {
		return "", errors.New("neither RBEE_HOME nor HOME names a directory")
	}
	return filepath.Join(user, ".local", "share", "rbee"), nil
}
