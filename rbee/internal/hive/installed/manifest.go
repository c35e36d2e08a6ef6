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
	PayloadDir   = "payload"   // the files of the worker
	PreviousName = ".previous" // in workers/<type>/: link to the build of the previous version
)

// Manifest is the record of an installed worker, workers/<type>/<build>/manifest.json.
type Manifest struct {
	Type      string `json:"type"`
	Version   string `json:"version"`
	Requested string `json:"requested"`
	Variant   string `json:"variant,omitempty"`

	// Steps are the install steps that created the payload.
	Steps []wire.InstallStep `json:"steps"`

	// Launch describes how to start the worker. LaunchDigest is the [wire.Launch.Digest]
	// of the recipe.
	Launch       *wire.Launch `json:"launch,omitempty"`
	LaunchDigest string       `json:"launch_digest,omitempty"`

	// Verify is the verify command of the recipe; nil if the recipe has none.
	Verify *wire.Verify `json:"verify,omitempty"`

	// SHA256 identifies the installed artifacts, as in [wire.WorkerInstall]. For a
	// built-in worker it is the checksum of the rbee binary. Size is the total size of
	// the artifacts in bytes.
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`

	Bytes       int64     `json:"bytes"` // total size of all files
	InstalledAt time.Time `json:"installed_at"`
	Entry       string    `json:"entry"` // path of the program in the payload

	// FileCount is the number of files and links, including bytecode files, which are not
	// in Files.
	FileCount int `json:"file_count,omitempty"`

	// Program is the program in the list of files; nil if it is not listed.
	Program *File `json:"program,omitempty"`

	// Files are sorted by path. They are stored in a separate file; see
	// [Manifest.ReadFiles].
	Files []File `json:"-"`
}

// File is a file or a symbolic link in the payload of a worker.
type File struct {
	Path   string `json:"path"`
	Size   int64  `json:"size,omitempty"`
	SHA256 string `json:"sha256,omitempty"`
	Mode   string `json:"mode,omitempty"` // "0755" or "0644"
	Link   string `json:"link,omitempty"` // target of a symbolic link
}

// EntryPath returns the path of the entry point of a worker type.
func (s *Store) EntryPath(typ string) string {
	return s.Home.Path(wire.WorkersDir + "/" + wire.EntryPrefix + typ)
}

// BuildDir returns the directory of a build.
func (s *Store) BuildDir(typ, build string) string {
	return s.Home.Path(wire.WorkersDir + "/" + typ + "/" + build)
}

// Workers returns the installed workers, sorted by type.
func (s *Store) Workers(ctx context.Context, deep bool) ([]wire.Worker, error) {
	entries, err := os.ReadDir(s.Home.Path(wire.WorkersDir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the workers: %w", err)
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

// EntryBuild returns the build that the entry point of a worker type links to; empty if
// rbee did not create the entry point.
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

// Worker returns the installed worker of a type; nil if the type is not installed. If deep
// is set, Worker reads every file and compares its checksum.
func (s *Store) Worker(ctx context.Context, typ string, deep bool) *wire.Worker {
	return s.WorkerBuild(ctx, typ, s.EntryBuild(typ), deep)
}

// WorkerBuild returns the same as [Store.Worker]. build is the build of the entry point, as
// returned by [Store.EntryBuild].
func (s *Store) WorkerBuild(ctx context.Context, typ, build string, deep bool) *wire.Worker {
	if _, err := os.Lstat(s.EntryPath(typ)); err != nil {
		return nil
	}
	w := &wire.Worker{Type: typ, Version: VersionOf(build)}
	if w.Version == "" {
		w.Unmanaged = true
		if info, err := os.Stat(s.EntryPath(typ)); err != nil {
			w.Corrupt = "the entry point links to a missing file"
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
		w.Corrupt = fmt.Sprintf("%s describes %s %s", ManifestName, m.Type, m.Version)
		return w
	}
	w.Requested, w.SHA256, w.Bytes, w.InstalledAt = m.Requested, m.SHA256, m.Bytes, m.InstalledAt
	w.Verify = m.Verify
	w.LaunchDigest = m.LaunchDigest
	w.Launch, w.Variant, w.Previous = m.Launch, m.Variant, VersionOf(s.PreviousBuild(typ))
	w.Corrupt = s.CheckBuild(ctx, &m, dir, deep)
	return w
}

// CheckBuild checks the files of a build and the tools that it needs. It returns a
// description of the first problem; empty if the build is intact.
func (s *Store) CheckBuild(ctx context.Context, m *Manifest, dir string, deep bool) string {
	if problem := m.check(ctx, dir, deep); problem != "" {
		return problem
	}
	for _, step := range m.Steps {
		if step.Python == nil {
			continue
		}
		if problem := s.CheckTool(ctx, &step.Python.Interpreter, deep); problem != "" {
			return problem
		}
	}
	return ""
}

// check returns a description of the first damaged file of a build; empty if the files
// are intact.
func (m *Manifest) check(ctx context.Context, dir string, deep bool) string {
	entry, err := os.Stat(filepath.Join(dir, EntryName))
	switch {
	case err != nil:
		return m.Entry + " is missing"
	case !entry.Mode().IsRegular():
		return m.Entry + " is not a regular file"
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
			return ManifestName + " lists a file outside the payload"
		case !deep && f.Path != m.Entry, IsBytecode(f.Path):
			continue
		}
		progress.FromContext(ctx).Add(1)
		if problem := f.check(filepath.Join(dir, PayloadDir, filepath.FromSlash(f.Path)), deep); problem != "" {
			return f.Path + " " + problem
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
			return "is not the installed link"
		}
		return ""
	case !info.Mode().IsRegular():
		return "is not a regular file"
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
		return "was modified since it was installed"
	}
	return ""
}
