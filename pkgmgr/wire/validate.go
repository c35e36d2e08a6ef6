package wire

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
)

var nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,127}$`)

// ValidName reports whether a worker type or version may be a file's name on a machine.
func ValidName(name string) bool { return nameForm.MatchString(name) }

// Validate reports why a machine refuses the settings; nil if it does not.
func (s *Settings) Validate() error {
	if s.HivePort < 1 || s.HivePort > 65535 {
		return fmt.Errorf("hive_port is %d, want 1 to 65535", s.HivePort)
	}
	return nil
}

// Validate reports why a machine refuses the step before it looks at what is installed; nil if it does not.
func (s *Step) Validate() error {
	switch s.Action {
	case ActionInstallSelf:
		if s.Install == nil {
			return errors.New("the step does not say what to install")
		}
	case ActionInstallWorker:
		return s.Worker.Validate()
	case ActionRemoveWorker, ActionRollback:
		if s.Worker == nil || !ValidName(s.Worker.Type) {
			return errors.New("the step names no worker type")
		}
	case ActionRollbackSelf, ActionStart, ActionStop, ActionRemoveSelf:
	default:
		return fmt.Errorf("unknown action %q", s.Action)
	}
	return nil
}

// Validate reports why a machine refuses to install the worker; nil if it does not. A nil w is refused.
func (w *WorkerInstall) Validate() error {
	switch {
	case w == nil:
		return errors.New("the step names no worker")
	case !ValidName(w.Type):
		return fmt.Errorf("%q is no name for a worker type", w.Type)
	case !ValidName(w.Version):
		return fmt.Errorf("%q is no version of a worker", w.Version)
	case len(w.Steps) == 0:
		return errors.New("the worker has no install steps")
	case w.Entry != "" && !isLocal(w.Entry):
		return fmt.Errorf("the program %q is no path inside the payload", w.Entry)
	}
	for i := range w.Steps {
		if err := w.Steps[i].validate(len(w.Steps)); err != nil {
			return err
		}
	}
	return nil
}

// validate checks one of a number of steps.
func (s *InstallStep) validate(of int) error {
	if s.Into != "" && !isLocal(s.Into) {
		return fmt.Errorf("%q is no path inside the payload", s.Into)
	}
	switch s.Kind {
	case StepBuiltin:
		if !ValidName(s.Builtin) || of > 1 {
			return fmt.Errorf("%q is no worker inside rbee", s.Builtin)
		}
		return nil
	case StepFile, StepArchive:
		if s.Artifact == nil {
			return fmt.Errorf("the step %s names no artifact", s.Kind)
		}
	case StepPython:
		if s.Python == nil {
			return errors.New("the python step names no packages")
		}
		for _, t := range []Tool{s.Python.UV, s.Python.Interpreter} {
			if !ValidName(t.Name) || !ValidName(t.Version) || !isLocal(t.Entry) {
				return fmt.Errorf("the tool %s %s has no right name", t.Name, t.Version)
			}
			if err := t.Format.validate(t.Strip); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("unknown kind of install step %q", s.Kind)
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
		return fmt.Errorf("unknown format %q", f)
	}
	if strip < 0 {
		return fmt.Errorf("%d directories cannot be left out", strip)
	}
	return nil
}

func (a *Artifact) validate() error {
	if !ValidSHA256(a.SHA256) {
		return fmt.Errorf("%s has SHA-256 %q, want 64 hex digits", a.Name, a.SHA256)
	}
	if !filepath.IsLocal(a.Name) || filepath.Base(a.Name) != a.Name || a.Name == "." {
		return fmt.Errorf("%q is no name for an artifact", a.Name)
	}
	if a.URL == "" {
		return nil
	}
	u, err := url.Parse(a.URL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("the URL of %s is not one of http or https", a.Name)
	}
	return nil
}

// isLocal reports whether a slash-separated path stays inside the directory that it is below.
func isLocal(path string) bool { return filepath.IsLocal(filepath.FromSlash(path)) }
