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

// installWorker installs a worker type as described by w. It reuses an intact build of the
// same content, unless w.Force is set.
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
		current := s.Store.Worker(ctx, w.Type, true)
		if current != nil && current.Version == w.Version && current.SHA256 == sum && current.Corrupt == "" {
			build := s.Store.EntryBuild(w.Type)
			if !current.Verify.Equal(w.Verify) { // verify before updateManifest records the new command
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
			return "used an existing build", s.cleanType(w.Type, s.removePhase(index))
		}
	}
	total := wire.TotalSize(w.Steps)
	typeDir := s.Home.Path(wire.WorkersDir + "/" + w.Type)
	if err := os.MkdirAll(typeDir, 0o755); err != nil { //nolint:gosec // world-readable programs
		return "", home.WrapDiskFull(err, s.Home.Root, total)
	}
	staged, err := os.MkdirTemp(typeDir, stagingPrefix)
	if err != nil {
		return "", home.WrapDiskFull(err, s.Home.Root, total)
	}
	defer func() {
		_ = removeTree(staged, s.removePhase(index))
		_ = os.Remove(typeDir) // fails unless it is empty
	}()
	m := &installed.Manifest{
		Type: w.Type, Version: w.Version, Requested: w.Requested, Variant: w.Variant, Entry: w.Entry,
		Steps: w.Steps, Launch: w.Launch, LaunchDigest: w.LaunchDigest, Verify: w.Verify, SHA256: sum, InstalledAt: time.Now().UTC().Truncate(time.Second),
	}
	st := &stage{stepRunner: s, index: index, dir: staged, payload: filepath.Join(staged, installed.PayloadDir), manifest: m, total: total}
	if err := st.build(ctx); err != nil {
		st.keepPartialDownloads(err)
		_ = s.cache().cleanWheels(nil) // on failure, the next run removes the wheels
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
	_ = s.cache().cleanWheels(s.removePhase(index)) // on failure, the next run removes the wheels

	return fmt.Sprintf("%d files, %s", m.FileCount, bytesize.Format(m.Bytes)), nil
}

// checkReadable returns an error if the manifest of the installed worker needs a newer
// rbee.
func (in *Installer) checkReadable(typ string) error {
	var newer *wire.NewerSchemaError
	if build := in.Store.EntryBuild(typ); build != "" {
		if _, err := statefile.ReadSchema(filepath.Join(in.Store.BuildDir(typ, build), installed.ManifestName)); errors.As(err, &newer) {
			return fmt.Errorf("cannot replace the installed %s: %w", typ, err)
		}
	}
	return nil
}

// findBuild returns an intact build with the version and digest of w that is not installed,
// but was kept after a rollback or because processes use it; empty if none exists.
func (in *Installer) findBuild(ctx context.Context, w *wire.WorkerInstall, sum string) string {
	entries, _ := os.ReadDir(in.Home.Path(wire.WorkersDir + "/" + w.Type)) // a missing directory has no builds
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

// digest returns the digest that identifies the content of an install.
func (in *Installer) digest(w *wire.WorkerInstall) (string, error) {
	if w.Steps[0].Kind != wire.StepBuiltin {
		return wire.Digest(w.Steps, w.Entry), nil
	}
	sum, _, err := fetch.HashFile(in.Home.Path(wire.Binary))
	if err != nil {
		return "", fmt.Errorf("cannot install a built-in worker: rbee is not installed or not readable: %w", err)
	}
	return sum, nil
}

// updateManifest updates the fields of the manifest that come from the config and the
// recipe.
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

// commit installs a staged version: it renames the directory, links the entry point and
// removes unused builds.
func (in *Installer) commit(staged string, m *installed.Manifest, ph *progress.Phase) error {
	build, err := in.newBuildName(m.Type, m.Version)
	if err != nil {
		return err
	}
	dir := in.Store.BuildDir(m.Type, build)
	if err := os.Rename(staged, dir); err != nil {
		return fmt.Errorf("cannot install %s %s: %w", m.Type, m.Version, err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	in.testPoint("renamed")
	if err := in.linkEntry(m.Type, build); err != nil {
		return err
	}
	in.testPoint("linked")
	return in.cleanType(m.Type, ph)
}

// linkEntry links the entry point of a type to a build. If the old build has another
// version, linkEntry records it as the previous build.
func (in *Installer) linkEntry(typ, build string) error {
	if old := in.Store.EntryBuild(typ); old != "" && installed.VersionOf(old) != installed.VersionOf(build) {
		if err := in.replaceLink(old, in.Home.Path(wire.WorkersDir+"/"+typ+"/"+installed.PreviousName)); err != nil {
			return fmt.Errorf("cannot record the previous version: %w", err)
		}
	}
	if err := in.replaceLink(typ+"/"+build+"/"+installed.EntryName, in.Store.EntryPath(typ)); err != nil {
		return fmt.Errorf("cannot link the entry point of %s: %w", typ, err)
	}
	return atomicfile.SyncDir(in.Home.Path(wire.WorkersDir))
}

// replaceLink atomically creates or replaces a symbolic link.
func (in *Installer) replaceLink(target, path string) error {
	return atomicfile.Symlink(target, path, filepath.Join(filepath.Dir(path), home.TempPrefix+home.RandomSuffix()))
}

// rollback restores the previous version of a worker type. Running workers keep the build
// that they were started from.
func (in *Installer) rollback(ctx context.Context, w *wire.WorkerInstall, ph *progress.Phase) (note string, err error) {
	build := in.Store.PreviousBuild(w.Type)
	current, previous := installed.VersionOf(in.Store.EntryBuild(w.Type)), installed.VersionOf(build)
	switch {
	case current == "":
		return "", fmt.Errorf("cannot roll back worker type %s: it was not installed by rbee", w.Type)
	case previous == "":
		return "", fmt.Errorf("cannot roll back worker type %s %s: no previous version", w.Type, current)
	}
	dir := in.Store.BuildDir(w.Type, build)
	var m installed.Manifest
	if err := statefile.Read(filepath.Join(dir, installed.ManifestName), &m); err != nil {
		return "", fmt.Errorf("cannot roll back worker type %s to %s: %w", w.Type, previous, err)
	}
	if problem := in.Store.CheckBuild(ctx, &m, dir, true); problem != "" {
		return "", fmt.Errorf("cannot roll back worker type %s: version %s is damaged: %s", w.Type, previous, problem)
	}
	if err := in.linkEntry(w.Type, build); err != nil {
		return "", err
	}
	return fmt.Sprintf("%s → %s", current, previous), in.cleanType(w.Type, ph)
}

// removeWorker stops the processes of a worker type and removes its entry point and files.
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
	// Remove the link to the previous build, so that cleanType removes this build too.
	if err := os.Remove(in.Home.Path(wire.WorkersDir + "/" + w.Type + "/" + installed.PreviousName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return note, errors.Join(in.cleanType(w.Type, ph), in.cleanTools(), in.cache().cleanWheels(ph))
}

// cleanWorkers removes unused builds, tools and wheels of all worker types.
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

// cleanType removes the builds of a type, except for the installed build, the previous one
// and builds in use by processes. It then removes the directory of the type if it is empty.
// It keeps files that rbee did not create. ph, which may be nil, counts the files.
func (in *Installer) cleanType(typ string, ph *progress.Phase) error {
	dir, current := in.Home.Path(wire.WorkersDir+"/"+typ), in.Store.EntryBuild(typ)
	if current != "" { // an older rbee may have been killed between two renames
		build := filepath.Join(dir, current)
		if _, err := os.Lstat(build); errors.Is(err, fs.ErrNotExist) {
			_ = os.Rename(backupPath(build), build) // fails if no backup exists
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
	_ = os.Remove(dir) // fails unless it is empty
	return err
}

// isBuild reports whether a directory is a build that rbee created: whether it contains a
// manifest or, if the manifest was lost, the link to the program.
func isBuild(dir string) bool {
	if _, err := os.Lstat(filepath.Join(dir, installed.ManifestName)); err == nil {
		return true
	}
	program, err := os.Readlink(filepath.Join(dir, installed.EntryName))
	return err == nil && strings.HasPrefix(program, installed.PayloadDir+"/") && installed.VersionOf(filepath.Base(dir)) != ""
}

// removeBuild removes a build or a staging directory. It first renames a build to a staging
// directory, so that an interrupted removal does not leave a partial build. It keeps
// other directories.
func removeBuild(dir string, ph *progress.Phase) error {
	if !strings.HasPrefix(filepath.Base(dir), stagingPrefix) {
		if !isBuild(dir) {
			return nil
		}
		addBuildTotal(ph, dir)
		renamed := filepath.Join(filepath.Dir(dir), stagingPrefix+home.RandomSuffix())
		if err := os.Rename(dir, renamed); err != nil {
			return err
		}
		dir = renamed
	}
	return removeTree(dir, ph)
}
