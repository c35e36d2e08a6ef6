package pkgmgr

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Validate checks whether the hives are reachable, whether the worker types exist, and
// whether each machine meets the platform, GPU and disk space requirements of its workers.
// Call [Fleet.Read] with [ReadOptions.Devices] first. Validate changes nothing. It
// does not check the syntax of the config and the recipes, which is checked when they are
// loaded.
func (f *Fleet) Validate(ctx context.Context) *operations.ValidateReport {
	v := &validation{report: &operations.ValidateReport{
		Warnings: []operations.ValidateWarning{}, Errors: []operations.ValidateError{},
	}}
	want, _ := f.resolveDesired(ctx, plan.Options{})
	for _, m := range f.members {
		if m.extra {
			continue
		}
		v.report.Hives++
		v.report.Workers += len(m.hive.Workers)
		v.hive = m.hive
		v.checkSSHKey()
		f.validateTypes(v, m)
		switch {
		case m.err != nil:
			v.report.Errors = append(v.report.Errors, operations.ValidateError{
				Hive: m.hive.Alias, Error: m.err.Message, Unreachable: string(m.err.Reason),
			})
		case m.state != nil:
			f.validateMachine(v, m, want)
		}
	}
	v.report.Status = operations.StatusValid
	if len(v.report.Errors) > 0 {
		v.report.Status = operations.StatusInvalid
	}
	return v.report
}

// validation collects the warnings and errors of a report. hive is the current hive.
type validation struct {
	hive   config.Hive
	report *operations.ValidateReport
}

// warn adds a warning about the current hive.
func (v *validation) warn(format string, args ...any) {
	v.report.Warnings = append(v.report.Warnings, operations.ValidateWarning{
		Hive: v.hive.Alias, Warning: fmt.Sprintf(format, args...),
	})
}

// fail adds an error of the current hive at a position in a file.
func (v *validation) fail(pos config.Pos, file, format string, args ...any) {
	v.report.Errors = append(v.report.Errors, operations.ValidateError{
		Hive: v.hive.Alias, Error: fmt.Sprintf(format, args...), File: file, Line: pos.Line, Column: pos.Column,
	})
}

// checkSSHKey warns if the SSH key of the current hive does not exist.
func (v *validation) checkSSHKey() {
	if v.hive.SSHKey == "" {
		return
	}
	if _, err := os.Stat(expandHome(v.hive.SSHKey)); errors.Is(err, fs.ErrNotExist) {
		v.warn("SSH key not found, will prompt for password")
	}
}

// expandHome replaces a leading ~/ with the user's home directory.
func expandHome(path string) string {
	rest, ok := strings.CutPrefix(path, "~/")
	if !ok {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return path
	}
	return filepath.Join(home, rest)
}

// validateTypes checks that the worker types of a hive exist.
func (f *Fleet) validateTypes(v *validation, m *member) {
	for _, w := range m.hive.Workers {
		recipe, ok := f.opts.Catalog.Recipe(w.Type)
		if !ok {
			v.fail(w.Pos, v.file(f), "%s", &catalog.UnknownTypeError{Type: w.Type, Nearest: f.opts.Catalog.Nearest(w.Type)})
			continue
		}
		if len(recipe.Sources) == 0 {
			v.warn("worker type '%s': %s", w.Type, recipe.Note)
		}
	}
}

func (v *validation) file(f *Fleet) string { return f.configPath }

// validateMachine checks that a machine meets the requirements of rbee and its workers.
func (f *Fleet) validateMachine(v *validation, m *member, desired plan.Desired) {
	s := m.state
	if s.Rbee == nil {
		if b, ok := desired.Binaries[s.Platform.Key()]; ok && b.Err != nil {
			v.fail(m.hive.Pos, "", "%s", b.Err)
		}
	}
	if s.Noexec != "" {
		v.fail(m.hive.Pos, "", "%s", catalog.NoexecMessage(s))
	}
	needDisk := uint64(0)
	for _, w := range m.hive.Workers {
		recipe, ok := f.opts.Catalog.Recipe(w.Type)
		if !ok {
			continue
		}
		want := desired.Workers[plan.WorkerKey{Hive: m.hive.Alias, Type: w.Type}]
		if want.Err != nil && len(recipe.Sources) > 0 && !errors.Is(want.Err, plan.ErrNotLocked) && !errors.Is(want.Err, plan.ErrRecipeChanged) {
			v.fail(w.Pos, v.file(f), "worker type '%s': %s", w.Type, want.Err)
		} else if unmet := catalog.UnmetNeeds(recipe.Needs, s); len(unmet) > 0 {
			v.fail(w.Pos, "", "worker type '%s' cannot run on this hive: %s", w.Type, strings.Join(unmet, "; "))
		} else if reason := recipe.NoGPUReason(want.Version, catalog.MachineOf(s)); reason != "" {
			v.warn("worker type '%s' will run on the CPU: %s", w.Type, reason)
		}
		installed := slices.ContainsFunc(s.Workers, func(have wire.Worker) bool { return have.Type == w.Type })
		if !installed {
			needDisk += plan.DiskNeed(want, s)
		}
	}
	if s.DiskFree > 0 && needDisk > s.DiskFree {
		v.fail(m.hive.Pos, "", "insufficient disk space in %s: %s free, %s needed", s.Home, bytesize.Format(s.DiskFree), bytesize.Format(needDisk))
	}
}
