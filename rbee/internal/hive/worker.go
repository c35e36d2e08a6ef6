package hive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/atomicfile"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// installWorker makes a worker type be what w says.
func (s *session) installWorker(ctx context.Context, index int, w *wire.WorkerInstall) (note string, err error) {
	if err := checkWorker(w); err != nil {
		return "", err
	}
	sum, err := s.sourceSum(w.Source)
	if err != nil {
		return "", err
	}
	if !w.Force {
		have := s.worker(ctx, w.Type, true)
		if have != nil && have.Version == w.Version && have.SHA256 == sum && have.Corrupt == "" {
			return "already installed", s.noteRequest(w)
		}
	}
	typeDir := s.path(wire.WorkersDir + "/" + w.Type)
	if err := os.MkdirAll(typeDir, 0o755); err != nil { //nolint:gosec // programs are for everybody
		return "", explainFull(err, s.Home, w.Source.Size)
	}
	staged, err := os.MkdirTemp(typeDir, stagingPrefix)
	if err != nil {
		return "", explainFull(err, s.Home, w.Source.Size)
	}
	defer func() {
		_ = os.RemoveAll(staged)
		_ = os.Remove(typeDir) // only if nothing else is in it
	}()
	m := &Manifest{
		Type: w.Type, Version: w.Version, Requested: w.Requested,
		Source: w.Source, Launch: w.Launch, SHA256: sum, InstalledAt: time.Now().UTC().Truncate(time.Second),
	}
	if err := s.stage(ctx, index, staged, m); err != nil {
		return "", explainFull(err, s.Home, max(w.Source.Size, m.Size))
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	if err := s.commit(staged, m); err != nil {
		return "", explainFull(err, s.Home, 4096)
	}
	return fmt.Sprintf("%d files, %s", len(m.Files), sizeText(uint64(m.Bytes))), nil //nolint:gosec // a size
}

func checkWorker(w *wire.WorkerInstall) error {
	switch {
	case w == nil:
		return errors.New("the step names no worker")
	case !validName(w.Type):
		return fmt.Errorf("%q is no name for a worker type", w.Type)
	case !validName(w.Version):
		return fmt.Errorf("%q is no version of a worker", w.Version)
	}
	switch src := w.Source; src.Kind {
	case wire.SourceBuiltin:
		if !validName(src.Builtin) {
			return fmt.Errorf("%q is no worker inside rbee", src.Builtin)
		}
		return nil
	case wire.SourceURL, wire.SourcePush:
		return checkSource(src)
	default:
		return fmt.Errorf("unknown kind of source %q", src.Kind)
	}
}

// sourceSum is the SHA-256 that the source has.
func (h *Hive) sourceSum(src wire.Source) (string, error) {
	if src.Kind != wire.SourceBuiltin {
		return strings.ToLower(src.SHA256), nil
	}
	sum, _, err := hashFile(h.path(wire.Binary))
	if err != nil {
		return "", fmt.Errorf("a built-in worker needs rbee itself: %w", err)
	}
	return sum, nil
}

// noteRequest brings the record of what the config and the recipe say up to date.
func (h *Hive) noteRequest(w *wire.WorkerInstall) error {
	path := filepath.Join(h.versionDir(w.Type, w.Version), manifestName)
	var m Manifest
	if err := atomicfile.ReadJSON(path, &m); err != nil || m.Requested == w.Requested && m.Launch.Equal(w.Launch) {
		return err
	}
	m.Requested, m.Launch = w.Requested, w.Launch
	return atomicfile.WriteJSON(path, m)
}

// stage fills a directory with everything a version consists of.
func (s *session) stage(ctx context.Context, index int, staged string, m *Manifest) error {
	payload := filepath.Join(staged, payloadDir)
	if err := errors.Join(os.Chmod(staged, 0o755), os.Mkdir(payload, 0o755)); err != nil { //nolint:gosec // programs are for everybody
		return err
	}
	var err error
	if m.Source.Kind == wire.SourceBuiltin {
		err = s.stageBuiltin(payload, m)
	} else {
		err = s.stageArtefact(ctx, index, staged, m)
	}
	if err != nil {
		return err
	}
	if err := m.openEntry(payload); err != nil {
		return err
	}
	if err := os.Symlink(payloadDir+"/"+m.Entry, filepath.Join(staged, entryName)); err != nil {
		return err
	}
	slices.SortFunc(m.Files, func(a, b File) int { return cmp.Compare(a.Path, b.Path) })
	for _, f := range m.Files {
		m.Bytes += f.Size
	}
	if err := syncTree(staged, m); err != nil {
		return err
	}
	s.reach("staged")
	if err := atomicfile.WriteJSON(filepath.Join(staged, manifestName), m); err != nil {
		return err
	}
	s.reach("complete")
	return nil
}

func (h *Hive) stageBuiltin(payload string, m *Manifest) error {
	m.Entry = wire.EntryPrefix + m.Source.Builtin
	path := filepath.Join(payload, m.Entry)
	if err := linkOrCopy(h.path(wire.Binary), path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	m.Size = info.Size()
	m.Files = []File{{Path: m.Entry, Size: m.Size, SHA256: m.SHA256, Mode: modeProgram}}
	return nil
}

// openEntry makes the program executable. It may be a link to another file of
// the payload, which was found to lead nowhere else.
func (m *Manifest) openEntry(payload string) error {
	root, err := filepath.EvalSymlinks(payload)
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(m.Entry)))
	if err != nil {
		return fmt.Errorf("the artefact holds no program %q", m.Entry)
	}
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("the program %q is outside of the artefact", m.Entry)
	}
	i := slices.IndexFunc(m.Files, func(f File) bool { return f.Path == filepath.ToSlash(rel) && f.Link == "" })
	if i < 0 {
		return fmt.Errorf("%q is no file of the artefact", m.Entry)
	}
	m.Files[i].Mode = modeProgram
	if info, err := os.Stat(path); err == nil && info.Mode().Perm() == 0o755 {
		return nil
	}
	return os.Chmod(path, 0o755) //nolint:gosec // a program
}

// commit puts a staged version in place: the directory, then the entry point,
// then away with other versions.
func (h *Hive) commit(staged string, m *Manifest) error {
	dir := h.versionDir(m.Type, m.Version)
	if err := replaceDir(staged, dir); err != nil {
		return fmt.Errorf("putting %s %s in place: %w", m.Type, m.Version, err)
	}
	if err := atomicfile.SyncDir(filepath.Dir(dir)); err != nil {
		return err
	}
	h.reach("replaced")
	link := h.path(wire.WorkersDir + "/" + tempPrefix + random())
	if err := os.Symlink(m.Type+"/"+m.Version+"/"+entryName, link); err != nil {
		return err
	}
	if err := os.Rename(link, h.entryPath(m.Type)); err != nil {
		_ = os.Remove(link)
		return fmt.Errorf("putting the entry point of %s in place: %w", m.Type, err)
	}
	if err := atomicfile.SyncDir(h.path(wire.WorkersDir)); err != nil {
		return err
	}
	h.reach("linked")
	return h.cleanType(m.Type)
}

// removeWorker removes a worker type: its processes, the entry point, its files.
func (h *Hive) removeWorker(ctx context.Context, w *wire.WorkerInstall) (note string, err error) {
	if w == nil || !validName(w.Type) {
		return "", errors.New("the step names no worker type")
	}
	if err := h.stopWorkers(ctx, w.Type); err != nil {
		return "", err
	}
	err = os.Remove(h.entryPath(w.Type))
	if errors.Is(err, fs.ErrNotExist) {
		note, err = "was not installed", nil
	}
	if err != nil {
		return "", err
	}
	return note, h.cleanType(w.Type)
}

// cleanWorkers removes what no entry point leads to.
func (h *Hive) cleanWorkers() error {
	entries, err := os.ReadDir(h.path(wire.WorkersDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), tempPrefix):
			err = errors.Join(err, os.Remove(h.path(wire.WorkersDir+"/"+e.Name())))
		case e.IsDir() && validName(e.Name()):
			err = errors.Join(err, h.cleanType(e.Name()))
		}
	}
	return err
}

// cleanType removes every version of a type but the one that the entry point
// leads to and those that processes run, and the type's directory if that leaves
// it empty. Files that are not rbee's stay.
func (h *Hive) cleanType(typ string) error {
	dir, current := h.path(wire.WorkersDir+"/"+typ), h.entryVersion(typ)
	if current != "" {
		// Two renames instead of an exchange, and killed between them.
		if _, err := os.Lstat(filepath.Join(dir, current)); errors.Is(err, fs.ErrNotExist) {
			_ = os.Rename(filepath.Join(dir, oldPrefix+current), filepath.Join(dir, current))
		}
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	running, useErr := workers.Versions(h.path(workerRecords), typ)
	err = errors.Join(err, useErr)
	for _, e := range entries {
		if e.IsDir() && e.Name() != current && !slices.Contains(running, e.Name()) {
			err = errors.Join(err, discard(filepath.Join(dir, e.Name())))
		}
	}
	_ = os.Remove(dir) // only if nothing is left in it
	return err
}

// discard removes a version or what was to become one. The new name keeps a
// removal that is cut short from leaving half a version.
func discard(dir string) error {
	name := filepath.Base(dir)
	if !strings.HasPrefix(name, stagingPrefix) && !strings.HasPrefix(name, oldPrefix) {
		if _, err := os.Lstat(filepath.Join(dir, manifestName)); err != nil {
			return nil //nolint:nilerr // not rbee's
		}
		away := filepath.Join(filepath.Dir(dir), stagingPrefix+random())
		if err := os.Rename(dir, away); err != nil {
			return err
		}
		dir = away
	}
	return os.RemoveAll(dir)
}
