package wire

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
)

var namePattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

// nameFormat describes namePattern in errors.
const nameFormat = "at most 128 letters, digits and ._+-"

// ValidName reports whether a worker type or version can be used as a file name on a
// machine.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// Validate returns an error if the settings are invalid.
func (s *Settings) Validate() error {
	if s.HivePort < 1 || s.HivePort > 65535 {
		return fmt.Errorf("invalid hive_port %d: want 1 to 65535", s.HivePort)
	}
	return nil
}

// Validate returns an error if the step is invalid on every machine.
func (s *Step) Validate() error {
	switch s.Action {
	case ActionInstallSelf:
		if s.Install == nil {
			return errors.New("invalid step: no binary to install")
		}
	case ActionInstallWorker:
		return s.Worker.Validate()
	case ActionRemoveWorker, ActionRollback:
		if s.Worker == nil || !ValidName(s.Worker.Type) {
			return errors.New("invalid step: no worker type")
		}
	case ActionRollbackSelf, ActionStart, ActionStop, ActionRemoveSelf:
	default:
		return fmt.Errorf("unknown action %q", s.Action)
	}
	return nil
}

// Validate returns an error if w is nil or invalid.
func (w *WorkerInstall) Validate() error {
	switch {
	case w == nil:
		return errors.New("invalid step: no worker")
	case !ValidName(w.Type):
		return fmt.Errorf("invalid worker type %q: want %s", w.Type, nameFormat)
	case !ValidName(w.Version):
		return fmt.Errorf("invalid worker version %q: want %s", w.Version, nameFormat)
	case len(w.Steps) == 0:
		return errors.New("invalid worker: no install steps")
	case w.Entry != "" && !isLocal(w.Entry):
		return fmt.Errorf("invalid program path %q: want a path inside the payload", w.Entry)
	}
	for i := range w.Steps {
		if err := w.Steps[i].validate(len(w.Steps)); err != nil {
			return err
		}
	}
	return nil
}

// validate returns an error if s is not a valid step of a worker with the given number of
// steps.
func (s *InstallStep) validate(count int) error {
	if s.Into != "" && !isLocal(s.Into) {
		return fmt.Errorf("invalid target %q: want a path inside the payload", s.Into)
	}
	switch s.Kind {
	case StepBuiltin:
		if !ValidName(s.Builtin) {
			return fmt.Errorf("invalid built-in server %q: want %s", s.Builtin, nameFormat)
		}
		if count > 1 {
			return fmt.Errorf("invalid built-in server %q: want no other install steps", s.Builtin)
		}
		return nil
	case StepFile, StepArchive:
		if s.Artifact == nil {
			return fmt.Errorf("invalid %s step: no artifact", s.Kind)
		}
	case StepPython:
		if s.Python == nil {
			return errors.New("invalid python step: no packages")
		}
		for _, t := range []Tool{s.Python.UV, s.Python.Interpreter} {
			if !ValidName(t.Name) || !ValidName(t.Version) || !isLocal(t.Entry) {
				return fmt.Errorf("invalid tool %q, version %q, program %q: want file names and a relative path", t.Name, t.Version, t.Entry)
			}
			if err := t.Format.validate(t.Strip); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("unknown install step kind %q", s.Kind)
	}
	for _, a := range s.Artifacts() {
		if err := a.validate(); err != nil {
			return err
		}
	}
	if s.Kind == StepArchive {
		return s.Format.validate(s.Strip)
	}
	return nil
}

func (f Format) validate(strip int) error {
	switch f {
	case FormatTarGz, FormatTarZst, FormatZip:
	default:
		return fmt.Errorf("unknown archive format %q", f)
	}
	if strip < 0 {
		return fmt.Errorf("invalid strip count %d: want 0 or more", strip)
	}
	return nil
}

func (a *Artifact) validate() error {
	if !ValidSHA256(a.SHA256) {
		return fmt.Errorf("invalid SHA-256 %q of %s: want 64 hex digits", a.SHA256, a.Name)
	}
	if !filepath.IsLocal(a.Name) || filepath.Base(a.Name) != a.Name || a.Name == "." {
		return fmt.Errorf("invalid artifact name %q: want a file name", a.Name)
	}
	if a.URL == "" {
		return nil
	}
	u, err := url.Parse(a.URL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("invalid URL of %s: want http or https", a.Name)
	}
	return nil
}

// isLocal reports whether a slash-separated relative path stays inside its base directory.
func isLocal(path string) bool { return filepath.IsLocal(filepath.FromSlash(path)) }
