package service

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// changes is the content of [Service.Record]: the changes that Start made outside the rbee
// directory.
type changes struct {
	Linger   bool     `json:"linger_enabled,omitempty"` // rbee, not the user, enabled lingering
	MadeDirs []string `json:"made_dirs,omitempty"`      // directories created for the service file
}

func (s *Service) changes() changes {
	var c changes
	_ = statefile.Read(s.Record, &c) // without a record, no change is known
	return c
}

// writeFile writes the service file. It records the directories that removeFile must remove:
// the parent directories that writeFile creates, and the missing directories of managerDirs,
// which the service manager will create.
func (s *Service) writeFile(path, text string, managerDirs ...string) error {
	created := atomicfile.MissingDirs(path)
	for _, dir := range managerDirs {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			created = append(created, dir)
		}
	}
	if len(created) > 0 {
		c := s.changes()
		c.MadeDirs = slices.Compact(slices.Sorted(slices.Values(append(c.MadeDirs, created...))))
		if err := statefile.Write(s.Record, c); err != nil {
			return err
		}
	}
	return atomicfile.WriteData(path, []byte(text), 0o600)
}

// removeFile removes the service file, and the recorded directories if they are empty.
func (s *Service) removeFile(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	home, err := s.userHome()
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(s.changes().MadeDirs) {
		if rel, err := filepath.Rel(home, dir); err == nil && rel != "." && filepath.IsLocal(rel) {
			_ = os.Remove(dir) // fails unless the directory is empty
		}
	}
	return nil
}

// fileEnv returns the environment variables in the service file for a manager.
func (s *Service) fileEnv(manager string) []string {
	return slices.Concat(s.Env, s.managerEnv(manager), fileSafeEnv(s.Inherited))
}

// managerEnv returns [ManagerVariable] with the name of the manager, if SetManager is set.
func (s *Service) managerEnv(manager string) []string {
	if !s.SetManager {
		return nil
	}
	return []string{ManagerVariable + "=" + manager}
}

// Environ returns the named variables of this process as NAME=VALUE. It omits unset ones.
func Environ(names ...string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// fileSafeEnv returns env without variables that may be secret or that a service file cannot
// represent.
func fileSafeEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) || mayBeSecret(name, value)
	})
}

// mayBeSecret reports whether a variable is a URL with user information, even without a
// password: the user name may be a token. In other variables, an @ is part of a path or of
// a locale.
func mayBeSecret(name, value string) bool {
	switch strings.ToUpper(name) {
	case "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY":
		return strings.Contains(value, "@")
	default:
		return false
	}
}
