// Package hive is this machine's side of rbee: it tells what is installed here
// and what runs ([Hive.Inspect]), changes it ([Hive.Apply]), and is the daemon
// ([Hive.Serve]). The other side is package pkgmgr; between them lies package
// wire.
//
// # Files
//
// Everything of rbee lies in one directory, [Hive.Home]:
//
//	bin/rbee, rbee.prev, rbee.json     the hive's own rbee, the one before, its record
//	workers/rbee-worker-<type>         link to <type>/<version>/entry
//	workers/<type>/<version>/          manifest.json, files.json, entry (a link), payload/
//	workers/<type>/<version>@2/        other content of it, that came while the one before was there
//	workers/<type>/<version>/verified.json  in which boot the verify command passed last
//	tools/<name>-<version>-<digest>/   what workers are installed and run with
//	cache/uv/, cache/wheels/           unpacked wheels, which environments are linked from
//	run/                               token, settings.json, hive.json, hive.lock, supervisor.json
//	run/workers/<id>.json              the record of a worker process
//	logs/hive.log, hive.log.1          the daemon's output, and what it was before the last rotation
//	logs/workers/<id>.log, <id>.log.1  what a worker process wrote
//	lock                               held with flock while a request is applied
//
// # Whole or not at all
//
// A new thing is built beside the old one, on the same filesystem, and takes its
// place with one rename or one exchange. A process that is killed at any point
// leaves the old or the new; what it left beside them is removed by the next
// request, which is safe because only the holder of the lock builds anything.
//
// # The daemon
//
// It listens on loopback alone and wants the token in run/token, which only the
// machine's user can read. It does runtime operations as jobs (package jobs):
// worker processes (package workers), models (package models). What it is asked
// for below /v1/workers/{id}/proxy/ goes to that worker.
//
// Its record in run/hive.json holds its pid together
// with the start time of that process and the boot of the machine, so a pid that
// now belongs to somebody else is never signalled.
package hive

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"unicode"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
)

// Names below the home that package wire has no use for.
const (
	tokenFile      = wire.RunDir + "/token"
	settingsFile   = wire.RunDir + "/settings.json"
	daemonFile     = wire.RunDir + "/hive.json"
	daemonLock     = wire.RunDir + "/hive.lock"
	supervisorFile = wire.RunDir + "/supervisor.json"
	logFile        = wire.LogsDir + "/hive.log"
	oldLogFile     = wire.LogsDir + "/hive.log.1"

	// tempPrefix begins the name of everything that is being made beside what
	// it will replace. It matches wire.UploadGlob.
	tempPrefix = atomicfile.TempPrefix
)

// Dir is rbee's directory on this machine. Set its fields before the first call and
// leave them alone afterwards; its methods may then be called from several goroutines.
type Dir struct {
	// Root is the absolute path of the directory. Required. See [DefaultHome].
	Root string

	// User is the user's home directory; empty means os.UserHomeDir.
	User string
}

// Path is a place in the home, given with slashes.
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
		return nil //nolint:nilerr // without a home directory there is none to protect
	}
	if rel, err := filepath.Rel(d.Root, user); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("rbee's directory %s is or holds the home directory %s: set RBEE_HOME to a directory of its own", d.Root, user)
	}
	return nil
}

func (d *Dir) UserHome() (string, error) {
	if d.User != "" {
		return d.User, nil
	}
	return os.UserHomeDir()
}

// DefaultHome is rbee's directory on this machine: RBEE_HOME, or
// ~/.local/share/rbee. env is os.Getenv or the like. XDG_DATA_HOME does not
// count: the other side must find the directory without the user's profile.
func DefaultHome(env func(string) string) (string, error) {
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
