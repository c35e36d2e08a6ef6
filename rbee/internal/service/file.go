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

// changes is the content of [Service.Record]: what start changed outside rbee's
// directory.
type changes struct {
	Linger   bool     `json:"linger_enabled,omitempty"` // by rbee, not by the user
	MadeDirs []string `json:"made_dirs,omitempty"`      // for the service's file
}

func (s *Service) changes() changes {
	var c changes
	_ = statefile.Read(s.Record, &c) // without it nothing is known to be rbee's
	return c
}

// writeFile writes a service's file. The directories made for it, and those of
// others that the manager will make, are noted for removeFile.
func (s *Service) writeFile(path, text string, others ...string) error {
	made := atomicfile.MissingDirs(path)
	for _, dir := range others {
		if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
			made = append(made, dir)
		}
	}
	if len(made) > 0 {
		c := s.changes()
		c.MadeDirs = slices.Compact(slices.Sorted(slices.Values(append(c.MadeDirs, made...))))
		if err := statefile.Write(s.Record, c); err != nil {
			return err
		}
	}
	return atomicfile.WriteData(path, []byte(text), 0o600)
}

// removeFile removes a service's file and the directories made for it, as far
// as they are empty.
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
			_ = os.Remove(dir) // only if it is empty
		}
	}
	return nil
}

// fileEnv is the environment that a service's file sets for a manager.
func (s *Service) fileEnv(manager string) []string {
	return slices.Concat(s.Env, s.managerEnv(manager), fileSafeEnv(s.Inherited))
}

// managerEnv returns the variable with the name of the manager, if the daemon gets it.
func (s *Service) managerEnv(manager string) []string {
	if !s.SetManager {
		return nil
	}
	return []string{ManagerVariable + "=" + manager}
}

// Environ returns NAME=VALUE of those variables of this process that are set.
func Environ(names ...string) []string {
	var env []string
	for _, name := range names {
		if value, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+value)
		}
	}
	return env
}

// fileSafeEnv is what of an environment a service's file may hold: no secret, and nothing
// that its lines cannot hold.
func fileSafeEnv(env []string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(v string) bool {
		name, value, _ := strings.Cut(v, "=")
		return strings.ContainsFunc(value, unicode.IsControl) || !utf8.ValidString(value) || mayBeSecret(name, value)
	})
}

// mayBeSecret reports whether a variable is an address with somebody's name before an
// @: with a password after it or not, that may be all it takes to get in. Elsewhere
// an @ is part of a path, or of a language.
func mayBeSecret(name, value string) bool {
	switch strings.ToUpper(name) {
	case "HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY":
		return strings.Contains(value, "@")
	default:
		return false
	}
}
