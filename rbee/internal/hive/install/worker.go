package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// installWorker makes a worker type be what w says.
func (s *stepRunner) installWorker(ctx context.Context, index int, w *wire.WorkerInstall) (note string, err error) {
	if err := s.checkReadable(w.Type); err != nil {
		return "", err
	}
	sum, err := s.digest(w)
	if err != nil {
		return "", err
	}
	if !w.Force {
		ctx := s.checkContext(ctx, index)
		have := s.Store.Worker(ctx, w.Type, true)
		if have != nil && have.Version == w.Version && have.SHA256 == sum && have.Corrupt == "" {
			build := s.Store.EntryBuild(w.Type)
			if !have.Verify.Equal(w.Verify) { // its record would claim what nobody has seen
				if err := s.verifyBuild(ctx, index, w, build); err != nil {
					return "", err
				}
			}
			return "already installed", s.updateManifest(w, build)
		}
		if build := s.findBuild(ctx, w, sum); build != "" {
			if err := s.verifyBuild(ctx, index, w, build); err != nil {
				return "", err
			}
			if err := errors.Join(s.updateManifest(w, build), s.linkEntry(w.Type, build)); err != nil {
				return "", err
			}
			return "was still there", s.cleanType(w.Type, s.removePhase(index))
		}
	}
	total := wire.Bytes(w.Steps)
	typeDir := s.Home.Path(wire.WorkersDir + "/" + w.Type)
	if err := os.MkdirAll(typeDir, 0o755); err != nil { //nolint:gosec // programs are for everybody
		return "", home.WrapDiskFull(err, s.Home.Root, total)
	}
	staged, err := os.MkdirTemp(typeDir, stagingPrefix)
	if err != nil {
		return "", home.WrapDiskFull(err, s.Home.Root, total)
	}
	defer func() {
		_ = removeTree(staged, s.removePhase(index))
		_ = os.Remove(typeDir) // only if nothing else is in it
	}()
	m := &installed.Manifest{
		Type: w.Type, Version: w.Version, Requested: w.Requested, Variant: w.Variant, Entry: w.Entry,
		Steps: w.Steps, Launch: w.Launch, LaunchDigest: w.LaunchDigest, Verify: w.Verify, SHA256: sum, InstalledAt: time.Now().UTC().Truncate(time.Second),
	}
	st := &stage{stepRunner: s, index: index, dir: staged, payload: filepath.Join(staged, installed.PayloadDir), manifest: m, total: total}
	if err := st.build(ctx); err != nil {
		st.keepPartialDownloads(err)
		_ = s.cache().cleanWheels(nil) // else the next run does it
		st.removeToolsOnVerifyError(err)
		return "", home.WrapDiskFull(err, s.Home.Root, max(total, m.Size))
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := s.commit(staged, m, s.removePhase(index)); err != nil {
		return "", home.WrapDiskFull(err, s.Home.Root, 4096)
	}
	st.removeDownloads()
	_ = s.cache().cleanWheels(s.removePhase(index)) // else the next run does it

	return fmt.Sprintf("%d files, %s", m.FileCount, bytesize.Format(m.Bytes)), nil
}

// checkReadable returns an error if a newer rbee installed a worker so that this one cannot
// read its record.
func (in *Installer) checkReadable(typ string) error {
	var newer *wire.NewerSchemaError
	if build := in.Store.EntryBuild(typ); build != "" {
		if _, err := statefile.ReadSchema(filepath.Join(in.Store.BuildDir(typ, build), installed.ManifestName)); errors.As(err, &newer) {
			return fmt.Errorf("cannot replace the installed %s: %w", typ, err)
		}
	}
	return nil
}

// findBuild is the build of a version that lies there, whole, although it is not
// the one that is installed: after a rollback, or because processes run from it. It
// is empty if there is none.
func (in *Installer) findBuild(ctx context.Context, w *wire.WorkerInstall, sum string) string {
	entries, _ := os.ReadDir(in.Home.Path(wire.WorkersDir + "/" + w.Type)) // what is not there has no builds
	for _, e := range entries {
		if installed.VersionOf(e.Name()) != w.Version {
			continue
		}
		dir := in.Store.BuildDir(w.Type, e.Name())
		var m installed.Manifest
		if statefile.Read(filepath.Join(dir, installed.ManifestName), &m) != nil {
			continue
		}
		if m.Type == w.Type && m.Version == w.Version && m.SHA256 == sum && in.Store.CheckBuild(ctx, &m, dir, true) == "" {
			return e.Name()
		}
	}
	return ""
}

// digest is what tells this install from others.
func (in *Installer) digest(w *wire.WorkerInstall) (string, error) {
	if w.Steps[0].Kind != wire.StepBuiltin {
		return wire.Digest(w.Steps, w.Entry), nil
	}
	sum, _, err := fetch.HashFile(in.Home.Path(wire.Binary))
	if err != nil {
		return "", fmt.Errorf("a built-in worker needs rbee itself: %w", err)
	}
	return sum, nil
}

// updateManifest brings the record of what the config and the recipe say up to date.
func (in *Installer) updateManifest(w *wire.WorkerInstall, build string) error {
	path := filepath.Join(in.Store.BuildDir(w.Type, build), installed.ManifestName)
	var m installed.Manifest
	if err := statefile.Read(path, &m); err != nil {
		return err
	}
	if m.Requested == w.Requested && m.Variant == w.Variant && m.Launch.Equal(w.Launch) && m.LaunchDigest == w.LaunchDigest && m.Verify.Equal(w.Verify) {
		return nil
	}
	m.Requested, m.Variant, m.Launch, m.LaunchDigest, m.Verify = w.Requested, w.Variant, w.Launch, w.LaunchDigest, w.Verify
	return statefile.Write(path, m)
}

// commit puts a staged version in place: the directory, then the entry point,
// then away with other versions.
func (in *Installer) commit(staged string, m *installed.Manifest, ph *progress.Phase) error {
	build, err := in.newBuildName(m.Type, m.Version)
	if err != nil {
		return err
	}
	dir := in.Store.BuildDir(m.Type, build)
	if err := os.Rename(staged, dir); err != nil {
		return fmt.Errorf("putting %s %s in place: %w", m.Type, m.Version, err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	in.testPoint("put")
	if err := in.linkEntry(m.Type, build); err != nil {
		return err
	}
	in.testPoint("linked")
	return in.cleanType(m.Type, ph)
}

// linkEntry makes the entry point of a type lead to a build, and remembers the one of
// another version that it led to.
func (in *Installer) linkEntry(typ, build string) error {
	if before := in.Store.EntryBuild(typ); before != "" && installed.VersionOf(before) != installed.VersionOf(build) {
		if err := in.replaceLink(before, in.Home.Path(wire.WorkersDir+"/"+typ+"/"+installed.PreviousName)); err != nil {
			return fmt.Errorf("remembering the version before: %w", err)
		}
	}
	if err := in.replaceLink(typ+"/"+build+"/"+installed.EntryName, in.Store.EntryPath(typ)); err != nil {
		return fmt.Errorf("putting the entry point of %s in place: %w", typ, err)
	}
	return atomicfile.SyncDir(in.Home.Path(wire.WorkersDir))
}

// replaceLink makes a symbolic link, in the place of one that may be there.
func (in *Installer) replaceLink(target, path string) error {
	return atomicfile.Symlink(target, path, filepath.Join(filepath.Dir(path), home.TempPrefix+home.RandomSuffix()))
}

// rollback makes the version before be the one that is installed. Workers that
// run go on with what they were started from.
func (in *Installer) rollback(ctx context.Context, w *wire.WorkerInstall, ph *progress.Phase) (note string, err error) {
	build := in.Store.PreviousBuild(w.Type)
	now, before := installed.VersionOf(in.Store.EntryBuild(w.Type)), installed.VersionOf(build)
	switch {
	case now == "":
		return "", fmt.Errorf("worker type %s is not installed by rbee there", w.Type)
	case before == "":
		return "", fmt.Errorf("no earlier version of %s is there, only %s", w.Type, now)
	}
	dir := in.Store.BuildDir(w.Type, build)
	var m installed.Manifest
	if err := statefile.Read(filepath.Join(dir, installed.ManifestName), &m); err != nil {
		return "", fmt.Errorf("reading the record of %s %s: %w", w.Type, before, err)
	}
	if wrong := in.Store.CheckBuild(ctx, &m, dir, true); wrong != "" {
		return "", fmt.Errorf("%s %s is damaged: %s", w.Type, before, wrong)
	}
	if err := in.linkEntry(w.Type, build); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s → %s", now, before), in.cleanType(w.Type, ph)
}

// removeWorker removes a worker type: its processes, the entry point, its files.
func (in *Installer) removeWorker(ctx context.Context, w *wire.WorkerInstall, ph *progress.Phase) (note string, err error) {
	if err := in.stopWorkers(ctx, w.Type); err != nil {
		return "", err
	}
	err = os.Remove(in.Store.EntryPath(w.Type))
	if errors.Is(err, fs.ErrNotExist) {
		note, err = "was not installed", nil
	}
	if err != nil {
		return "", err
	}
	// Nothing is left to go back to.
	if err := os.Remove(in.Home.Path(wire.WorkersDir + "/" + w.Type + "/" + installed.PreviousName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return note, errors.Join(in.cleanType(w.Type, ph), in.cleanTools(), in.cache().cleanWheels(ph))
}

// cleanWorkers removes what no entry point leads to.
func (in *Installer) cleanWorkers(ph *progress.Phase) error {
	entries, err := os.ReadDir(in.Home.Path(wire.WorkersDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), home.TempPrefix):
			err = errors.Join(err, os.Remove(in.Home.Path(wire.WorkersDir+"/"+e.Name())))
		case e.IsDir() && wire.ValidName(e.Name()):
			err = errors.Join(err, in.cleanType(e.Name(), ph))
		}
	}
	return errors.Join(err, in.cleanTools(), in.cache().cleanWheels(ph))
}

// cleanType removes every build of a type but the one that the entry point leads
// to, that of the version before, and those that processes run from, and the type's
// directory if that leaves it empty. Files that are not rbee's stay. ph, which may be
// nil, counts the files.
func (in *Installer) cleanType(typ string, ph *progress.Phase) error {
	dir, current := in.Home.Path(wire.WorkersDir+"/"+typ), in.Store.EntryBuild(typ)
	if current != "" { // an earlier rbee may have been cut off between two renames
		build := filepath.Join(dir, current)
		if _, err := os.Lstat(build); errors.Is(err, fs.ErrNotExist) {
			_ = os.Rename(backupPath(build), build) // where there is one
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	inUse, useErr := in.buildsInUse(typ)
	if err := errors.Join(err, useErr); err != nil {
		return err
	}
	previous := in.Store.PreviousBuild(typ)
	for _, e := range entries {
		name := e.Name()
		switch {
		case strings.HasPrefix(name, home.TempPrefix):
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		case e.IsDir() && name != current && name != previous && !inUse(name):
			err = errors.Join(err, removeBuild(filepath.Join(dir, name), ph))
		case name == installed.PreviousName && previous == "":
			err = errors.Join(err, os.Remove(filepath.Join(dir, name)))
		}
	}
	_ = os.Remove(dir) // only if nothing is left in it
	return err
}

// isBuild reports whether a directory is a build of rbee's: one that has a manifest, or
// that has lost it and has still the link to the program.
func isBuild(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, installed.ManifestName)); err == nil {
		return true
	}
	program, err := os.Readlink(filepath.Join(dir, installed.EntryName))
	return err == nil && strings.HasPrefix(program, installed.PayloadDir+"/") && installed.VersionOf(filepath.Base(dir)) != ""
}

// removeBuild removes a build or what was to become one. The new name keeps a removal
// that is cut short from leaving half a build.
func removeBuild(dir string, ph *progress.Phase) error {
	if !strings.HasPrefix(filepath.Base(dir), stagingPrefix) {
		if !isBuild(dir) {
			return nil
		}
		addBuildTotal(ph, dir)
		away := filepath.Join(filepath.Dir(dir), stagingPrefix+home.RandomSuffix())
		if err := os.Rename(dir, away); err != nil {
			return err
		}
		dir = away
	}
	return removeTree(dir, ph)
}
