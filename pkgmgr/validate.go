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

// Validate checks hives that [Fleet.Read] has read, with Devices asked for:
// whether each could be reached, and whether its workers exist, fit its platform
// and find the GPU and the disk that they need. It changes nothing. Files that a
// config and recipes are written in are checked when they are loaded.
func (f *Fleet) Validate(ctx context.Context) *operations.ValidateReport {
	v := &validation{report: &operations.ValidateReport{
		Warnings: []operations.ValidateWarning{}, Errors: []operations.ValidateError{},
	}}
	want, _ := f.lookUp(ctx, plan.Options{})
	for _, m := range f.members {
		if m.extra {
			continue
		}
		v.report.Hives++
		v.report.Workers += len(m.hive.Workers)
		v.hive = m.hive
		v.checkKey()
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

// validation collects what is found about the hive at hand.
type validation struct {
	hive   config.Hive
	report *operations.ValidateReport
}

func (v *validation) warn(format string, args ...any) {
	v.report.Warnings = append(v.report.Warnings, operations.ValidateWarning{
		Hive: v.hive.Alias, Warning: fmt.Sprintf(format, args...),
	})
}

func (v *validation) fail(pos config.Pos, file, format string, args ...any) {
	v.report.Errors = append(v.report.Errors, operations.ValidateError{
		Hive: v.hive.Alias, Error: fmt.Sprintf(format, args...), File: file, Line: pos.Line, Column: pos.Column,
	})
}

func (v *validation) checkKey() {
	if v.hive.SSHKey == "" {
		return
	}
	if _, err := os.Stat(expandHome(v.hive.SSHKey)); errors.Is(err, fs.ErrNotExist) {
		v.warn("SSH key not found, will prompt for password")
	}
}

// expandHome replaces a leading ~/ by the user's home directory.
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

// validateTypes checks what needs no machine: that worker types exist.
func (f *Fleet) validateTypes(v *validation, m *member) {
	for _, w := range m.hive.Workers {
		recipe, ok := f.opts.Catalog.Recipe(w.Type)
		if !ok {
			v.fail(w.Pos, v.file(f), "%s", &catalog.UnknownTypeError{Type: w.Type, Nearest: f.opts.Catalog.Nearest(w.Type)})
			continue
		}
		if len(recipe.Sources) == 0 {
			v.warn("worker '%s': %s", w.Type, recipe.Note)
		}
	}
}

func (v *validation) file(f *Fleet) string { return f.configPath }

// validateMachine checks what the machine must have.
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
			v.fail(w.Pos, v.file(f), "worker '%s': %s", w.Type, want.Err)
		} else if lacks := catalog.UnmetNeeds(recipe.Needs, s); len(lacks) > 0 {
			v.fail(w.Pos, "", "worker '%s' cannot run on this hive: %s", w.Type, strings.Join(lacks, "; "))
		} else if why := recipe.NoGPUReason(want.Version, catalog.MachineOf(s)); why != "" {
			v.warn("worker '%s' runs on the CPU there: %s", w.Type, why)
		}
		installed := slices.ContainsFunc(s.Workers, func(have wire.Worker) bool { return have.Type == w.Type })
		if !installed {
			needDisk += plan.DiskNeed(want, s)
		}
	}
	if s.DiskFree > 0 && needDisk > s.DiskFree {
		v.fail(m.hive.Pos, "", "%s has %s free, its workers need %s", s.Home, bytesize.Format(s.DiskFree), bytesize.Format(needDisk))
	}
}
