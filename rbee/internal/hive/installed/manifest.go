package installed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Names in workers/ and workers/<type>/<build>/.
const (
	ManifestName = "manifest.json"
	EntryName    = "entry"     // link to the program in the payload
	PayloadDir   = "payload"   // the worker's files
	PreviousName = ".previous" // in workers/<type>/: link to the build of the version before
)

// Manifest is the record of an installed worker, workers/<type>/<build>/manifest.json.
type Manifest struct {
	Type      string `json:"type"`
	Version   string `json:"version"`
	Requested string `json:"requested"`
	Variant   string `json:"variant,omitempty"`

	// Steps made the payload.
	Steps []wire.InstallStep `json:"steps"`

	// Launch is how the worker is run, and LaunchDigest the [wire.Launch.Digest] of the
	// recipe.
	Launch       *wire.Launch `json:"launch,omitempty"`
	LaunchDigest string       `json:"launch_digest,omitempty"`

	// Verify is the command that proves that the worker works; nil for none.
	Verify *wire.Verify `json:"verify,omitempty"`

	// SHA256 tells what is installed, as in [wire.WorkerInstall]; for a built-in
	// worker it is that of the rbee binary. Size is that of all that was sent.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`

	Bytes       int64     `json:"bytes"` // of all files together
	InstalledAt time.Time `json:"installed_at"`
	Entry       string    `json:"entry"` // path of the program in the payload

	// FileCount is the number of files and links, with those that are not listed.
	FileCount int `json:"file_count,omitempty"`

	// Program is the entry of the program in the list of files; nil if it is a link
	// that is not listed.
	Program *File `json:"program,omitempty"`

	// Files are sorted by path. They are stored in a file of their own, see
	// [Manifest.ReadFiles].
	Files []File `json:"-"`
}

// File is one file of a worker's payload, or one symbolic link.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Mode   string `json:"mode,omitempty"` // "0755" or "0644"
	Link   string `json:"link,omitempty"` // what a symbolic link holds
}

// EntryPath returns the path of a type's entry point.
func (s *Store) EntryPath(typ string) string {
	return s.Home.Path(wire.WorkersDir + "/" + wire.EntryPrefix + typ)
}

// BuildDir returns the directory of a build.
func (s *Store) BuildDir(typ, build string) string {
	return s.Home.Path(wire.WorkersDir + "/" + typ + "/" + build)
}

// Workers lists what is installed, sorted by type.
func (s *Store) Workers(ctx context.Context, deep bool) ([]wire.Worker, error) {
	entries, err := os.ReadDir(s.Home.Path(wire.WorkersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listing the workers: %w", err)
	}
	var workers []wire.Worker
	for _, e := range entries {
		typ, ok := strings.CutPrefix(e.Name(), wire.EntryPrefix)
		if !ok || !wire.ValidName(typ) {
			continue
		}
		if w := s.Worker(ctx, typ, deep); w != nil {
			workers = append(workers, *w)
		}
	}
	return workers, nil
}

// EntryBuild is the build that a worker's entry point links to; empty if the
// entry point is not one that rbee made.
func (s *Store) EntryBuild(typ string) string {
	target, err := os.Readlink(s.EntryPath(typ))
	if err != nil {
		return ""
	}
	build, ok := strings.CutPrefix(target, typ+"/")
	if !ok {
		return ""
	}
	if build, ok = strings.CutSuffix(build, "/"+EntryName); !ok || VersionOf(build) == "" {
		return ""
	}
	return build
}

// Worker tells what is installed as a type; nil if nothing is.
func (s *Store) Worker(ctx context.Context, typ string, deep bool) *wire.Worker {
	return s.WorkerBuild(ctx, typ, s.EntryBuild(typ), deep)
}

// WorkerBuild is worker for one who has read already to which build the entry point
// leads.
func (s *Store) WorkerBuild(ctx context.Context, typ, build string, deep bool) *wire.Worker {
	if _, err := os.Lstat(s.EntryPath(typ)); err != nil {
		return nil
	}
	w := &wire.Worker{Type: typ, Version: VersionOf(build)}
	if w.Version == "" {
		w.Foreign = true
		if info, err := os.Stat(s.EntryPath(typ)); err != nil {
			w.Corrupt = "the entry point leads to no file"
		} else {
			w.Bytes, w.InstalledAt = info.Size(), info.ModTime().UTC().Truncate(time.Second)
		}
		return w
	}
	dir := s.BuildDir(typ, build)
	var m Manifest
	switch err := statefile.Read(filepath.Join(dir, ManifestName), &m); {
	case errors.Is(err, fs.ErrNotExist):
		w.Corrupt = ManifestName + " is missing"
		return w
	case err != nil:
		w.Corrupt = ManifestName + " cannot be read: " + err.Error()
		return w
	case m.Type != typ || m.Version != w.Version:
		w.Corrupt = fmt.Sprintf("%s is that of %s %s", ManifestName, m.Type, m.Version)
		return w
	}
	w.Requested, w.SHA256, w.Bytes, w.InstalledAt = m.Requested, m.SHA256, m.Bytes, m.InstalledAt
	w.Verify = m.Verify
	w.LaunchDigest = m.LaunchDigest
	w.Launch, w.Variant, w.Previous = m.Launch, m.Variant, VersionOf(s.PreviousBuild(typ))
	w.Corrupt = s.CheckBuild(ctx, &m, dir, deep)
	return w
}

// CheckBuild says what is wrong with a build, its files and the tools that it runs
// with; empty if nothing is.
func (s *Store) CheckBuild(ctx context.Context, m *Manifest, dir string, deep bool) string {
	if wrong := m.check(ctx, dir, deep); wrong != "" {
		return wrong
	}
	for _, step := range m.Steps {
		if step.Python == nil {
			continue
		}
		if wrong := s.CheckTool(ctx, &step.Python.Interpreter, deep); wrong != "" {
			return wrong
		}
	}
	return ""
}

// check says what is wrong with the files of a build; empty if nothing is.
func (m *Manifest) check(ctx context.Context, dir string, deep bool) string {
	entry, err := os.Stat(filepath.Join(dir, EntryName))
	switch {
	case err != nil:
		return m.Entry + " is missing"
	case !entry.Mode().IsRegular():
		return m.Entry + " is no regular file"
	case entry.Mode()&0o111 == 0:
		return m.Entry + " is not executable"
	}
	files := m.Files
	switch program := m.ProgramFile(); {
	case deep:
		if err := m.ReadFiles(dir); err != nil {
			return err.Error()
		}
		files = m.Files
		progress.FromContext(ctx).SetTotal(int64(len(files)))
	case program != nil:
		files = []File{*program}
	}
	for _, f := range files {
		switch {
		case ctx.Err() != nil:
			return ""
		case !filepath.IsLocal(f.Path):
			return ManifestName + " names a file outside"
		case !deep && f.Path != m.Entry, IsBytecode(f.Path):
			continue
		}
		progress.FromContext(ctx).Add(1)
		if wrong := f.check(filepath.Join(dir, PayloadDir, filepath.FromSlash(f.Path)), deep); wrong != "" {
			return f.Path + " " + wrong
		}
	}
	return ""
}

func (f File) check(path string, deep bool) string {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "is missing"
	case err != nil:
		return "cannot be read: " + err.Error()
	case f.Link != "":
		if target, err := os.Readlink(path); err != nil || target != f.Link {
			return "is not the link that was installed"
		}
		return ""
	case !info.Mode().IsRegular():
		return "is no regular file"
	case info.Size() != f.Size:
		return fmt.Sprintf("has %d bytes, want %d", info.Size(), f.Size)
	case (info.Mode()&0o100 != 0) != (f.Mode == ModeProgram):
		return fmt.Sprintf("has mode %04o, want %s", info.Mode().Perm(), f.Mode)
	case !deep:
		return ""
	}
	sum, _, err := fetch.HashFile(path)
	switch {
	case err != nil:
		return "cannot be read: " + err.Error()
	case sum != f.SHA256:
		return "has other content than was installed"
	}
	return ""
}
