package install

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// stage creates a version of a worker in a staging directory.
type stage struct {
	*stepRunner
	index      int    // of the step in the request
	dir        string // staging directory, renamed to workers/<type>/<build> at the end
	payload    string
	manifest   *installed.Manifest
	total      int64    // known bytes to receive or download
	downloads  []string // paths of artifacts in the download directory
	incomplete bool     // a download failed
	bytecode   fileTotals
	wheels     map[string]*unpackedWheel // unpacked by this install, by SHA-256

	mu         sync.Mutex
	received   int64
	reportedAt time.Time
}

// addReceived counts received bytes, and reports them at most every progress.MinInterval.
func (st *stage) addReceived(n int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.received += n
	if time.Since(st.reportedAt) < progress.MinInterval && st.received != st.total {
		return
	}
	st.reportedAt = time.Now()
	st.send(wire.Message{Progress: &wire.Progress{Index: st.index, Phase: wire.PhaseDownload, Bytes: st.received, Total: st.total}})
}

// build creates all files of the version.
func (st *stage) build(ctx context.Context) error {
	m := st.manifest
	if err := errors.Join(os.Chmod(st.dir, 0o755), os.Mkdir(st.payload, 0o755)); err != nil { //nolint:gosec // world-readable programs
		return err
	}
	st.total -= st.cache().unpackedBytes(m.Steps)
	if err := st.checkSpace(); err != nil {
		return withPosition(&m.Steps[0], err)
	}
	for i := range m.Steps {
		if err := st.installStep(ctx, &m.Steps[i]); err != nil {
			if ctx.Err() != nil {
				return err
			}
			return withPosition(&m.Steps[i], err)
		}
	}
	if err := st.makeEntryExecutable(); err != nil {
		return withPosition(&m.Steps[0], err)
	}
	if err := os.Symlink(installed.PayloadDir+"/"+m.Entry, filepath.Join(st.dir, installed.EntryName)); err != nil {
		return err
	}
	sort.Slice(m.Files, func(i, j int) bool { return m.Files[i].Path < m.Files[j].Path })
	for _, f := range m.Files {
		m.Bytes += f.Size
	}
	m.Bytes += st.bytecode.Bytes
	m.FileCount = len(m.Files) + st.bytecode.Files
	if err := st.verify(ctx); err != nil {
		return err
	}
	if err := st.sync(); err != nil {
		return err
	}
	st.testPoint("staged")
	if err := writeManifest(st.dir, m); err != nil {
		return err
	}
	st.commitWheels()
	st.testPoint("complete")
	return nil
}

// withPosition prepends the position of a step in the recipe to an error. For errors that
// concern all steps, the caller passes the first step.
func withPosition(step *wire.InstallStep, err error) error {
	if step.Position == "" {
		return err
	}
	return fmt.Errorf("%s: %w", step.Position, err)
}

func (st *stage) checkSpace() error {
	needed := uint64(max(st.total, 0))
	if len(st.manifest.Steps) > 1 || st.manifest.Steps[0].Kind != wire.StepFile {
		needed *= 2 // for the archive, and at least as much for its unpacked files
	}
	if free := home.DiskFree(st.Home.Root); free > 0 && free < needed {
		return &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonDiskFull,
			Message: fmt.Sprintf("insufficient disk space in %s: %s free, at least %s needed", st.Home.Root, bytesize.Format(free), bytesize.Format(needed)),
		}
	}
	return nil
}

// installStep runs one install step and then checks that no link points outside the
// payload, so that the next step can trust existing paths.
func (st *stage) installStep(ctx context.Context, step *wire.InstallStep) (err error) {
	switch step.Kind {
	case wire.StepBuiltin:
		err = st.builtin(step)
	case wire.StepFile:
		err = st.file(ctx, step)
	case wire.StepArchive:
		err = st.archive(ctx, step)
	case wire.StepPython:
		err = st.python(ctx, step)
	default:
		err = fmt.Errorf("unknown kind of install step %q", step.Kind)
	}
	if err != nil {
		return err
	}
	return st.checkLinks()
}

func (st *stage) builtin(step *wire.InstallStep) error {
	m := st.manifest
	m.Entry = wire.EntryPrefix + step.Builtin
	path := filepath.Join(st.payload, m.Entry)
	if err := home.LinkOrCopy(st.Home.Path(wire.Binary), path); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	m.Size = info.Size()
	m.Files = []installed.File{{Path: m.Entry, Size: m.Size, SHA256: m.SHA256, Mode: installed.ModeProgram}}
	return nil
}

// file moves an artifact into the payload. The artifact becomes the program of the worker if
// neither an earlier step nor an option set an entry.
func (st *stage) file(ctx context.Context, step *wire.InstallStep) error {
	m := st.manifest
	paths, err := st.fetchArtifacts(ctx, step.Artifact)
	if err != nil {
		return err
	}
	st.testPoint("received")
	into := cmp.Or(step.Into, wire.EntryPrefix+m.Type)
	m.Entry = cmp.Or(m.Entry, into)
	target, err := st.payloadPath(into)
	if err != nil {
		return err
	}
	info, err := os.Stat(paths[0])
	if err != nil {
		return err
	}
	mode, perm := installed.ModeData, fs.FileMode(0o644)
	if into == m.Entry {
		mode, perm = installed.ModeProgram, 0o755
	}
	if err := errors.Join(os.Rename(paths[0], target), os.Chmod(target, perm)); err != nil {
		return err
	}
	m.Size += info.Size()
	st.addFiles(installed.File{Path: into, Size: info.Size(), SHA256: strings.ToLower(step.Artifact.SHA256), Mode: mode})
	return nil
}

// payloadPath returns the path for a new file or directory in the payload, and creates its
// parent directories. It fails if the path or a parent directory is a link, so that no step
// writes outside the payload.
func (st *stage) payloadPath(name string) (string, error) {
	root, err := os.OpenRoot(st.payload)
	if err != nil {
		return "", err
	}
	defer root.Close()
	name = filepath.Clean(filepath.FromSlash(name))
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return "", err
	}
	path := st.payload
	for part := range strings.SplitSeq(filepath.Dir(name), string(filepath.Separator)) {
		path = filepath.Join(path, part)
		if info, err := os.Lstat(path); err != nil || !info.IsDir() {
			return "", fmt.Errorf("cannot create %q: %q in the payload is not a directory", name, part)
		}
	}
	path = filepath.Join(st.payload, name)
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		return "", fmt.Errorf("cannot create %q: %q in the payload is a link", name, name)
	}
	return path, nil
}

// addFiles adds files to the manifest, and replaces entries with the same path.
func (st *stage) addFiles(files ...installed.File) {
	m := st.manifest
	added := map[string]bool{}
	for _, f := range files {
		added[f.Path] = true
	}
	m.Files = append(slices.DeleteFunc(m.Files, func(f installed.File) bool { return added[f.Path] }), files...)
}

func (st *stage) archive(ctx context.Context, step *wire.InstallStep) error {
	paths, err := st.fetchArtifacts(ctx, step.Artifact)
	if err != nil {
		return err
	}
	st.testPoint("received")
	dir := st.payload
	if step.Into != "" {
		if dir, err = st.payloadPath(step.Into); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // world-readable programs
			return err
		}
	}
	files, err := st.unpack(ctx, paths[0], step.Format, step.Strip, dir)
	if err != nil {
		return fmt.Errorf("cannot unpack %s: %w", step.Artifact.Name, err)
	}
	for i := range files {
		files[i].Path = strings.TrimPrefix(step.Into+"/"+files[i].Path, "/")
	}
	st.manifest.Size += step.Artifact.Size
	st.addFiles(files...)
	return nil
}

// python creates a virtual environment from wheels. It does not resolve or build packages,
// and downloads only the listed artifacts.
func (st *stage) python(ctx context.Context, step *wire.InstallStep) error {
	p := step.Python
	uv, err := st.tool(ctx, &p.UV)
	if err != nil {
		return err
	}
	python, err := st.tool(ctx, &p.Interpreter)
	if err != nil {
		return err
	}
	wheels := make([]*wire.Artifact, len(p.Wheels))
	for i := range p.Wheels {
		wheels[i] = &p.Wheels[i]
		st.manifest.Size += p.Wheels[i].Size
	}
	venv, err := st.payloadPath(step.Into)
	if err != nil {
		return err
	}
	return st.environment(ctx, uv, python, venv, step.Into, wheels)
}

// runUV runs uv. When ctx ends, it kills uv and its child processes.
func (st *stage) runUV(ctx context.Context, program string, args ...string) error {
	return uv.Run(ctx, uv.Command{
		Program: program, Args: args, Dir: st.dir,
		Env: uv.Env(os.Environ(), "UV_CACHE_DIR="+st.Home.Path(uvCacheDir), "UV_COMPILE_BYTECODE_TIMEOUT="+compileTimeout),
	})
}

// fileTotals is a number of files and their total size.
type fileTotals struct {
	Files int
	Bytes int64
}

// listTree returns the files of a directory with their checksums, as paths below prefix. It
// counts bytecode files separately.
func listTree(ctx context.Context, dir, prefix string) (files []installed.File, bytecode fileTotals, err error) {
	var unhashed []int // indices of regular files
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if installed.IsBytecode(filepath.ToSlash(rel)) {
			info, err := d.Info()
			if err == nil {
				bytecode.Files++
				bytecode.Bytes += info.Size()
			}
			return err
		}
		f := installed.File{Path: strings.TrimPrefix(prefix+"/"+filepath.ToSlash(rel), "/")}
		info, err := d.Info()
		switch {
		case err != nil:
			return err
		case info.Mode().Type() == fs.ModeSymlink:
			f.Link, err = os.Readlink(path)
		case info.Mode().IsRegular():
			f.Mode = installed.ModeData
			if info.Mode()&0o100 != 0 {
				f.Mode = installed.ModeProgram
			}
			unhashed = append(unhashed, len(files))
		default:
			return nil // a socket or another special file
		}
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, fileTotals{}, err
	}
	ph := progress.FromContext(ctx)
	ph.SetTotal(int64(len(unhashed)))
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError().WithMaxGoroutines(runtime.GOMAXPROCS(0))
	for _, i := range unhashed {
		p.Go(func(ctx context.Context) (err error) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(files[i].Path, prefix), "/")
			files[i].SHA256, files[i].Size, err = fetch.HashFile(filepath.Join(dir, filepath.FromSlash(rel)))
			ph.Add(1)
			return err
		})
	}
	return files, bytecode, p.Wait()
}

// makeEntryExecutable makes the program of the worker executable. The program may be a link
// to another file of the payload, or to the program of a tool.
func (st *stage) makeEntryExecutable() error {
	m := st.manifest
	root, err := filepath.EvalSymlinks(st.payload)
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(m.Entry)))
	if err != nil {
		return fmt.Errorf("invalid entry %q: want a file of the artifact", m.Entry)
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.isInTools(path) && info.Mode()&0o111 != 0 {
		return nil
	}
	rel, err := filepath.Rel(root, path)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("invalid entry %q: want a path inside the artifact", m.Entry)
	}
	i := slices.IndexFunc(m.Files, func(f installed.File) bool { return f.Path == filepath.ToSlash(rel) && f.Link == "" })
	if i < 0 {
		return fmt.Errorf("invalid entry %q: want a file of the artifact", m.Entry)
	}
	m.Files[i].Mode = installed.ModeProgram
	if info.Mode().Perm() == 0o755 {
		return nil
	}
	if err := breakHardLink(path); err != nil {
		return err
	}
	return os.Chmod(path, 0o755) //nolint:gosec // a program
}

// keepPartialDownloads keeps the downloads of a failed install for the next attempt, if a
// download failed for a reason other than a full disk. Otherwise it removes them.
func (st *stage) keepPartialDownloads(err error) {
	if !st.incomplete || errors.Is(err, syscall.ENOSPC) {
		st.removeDownloads()
	}
	_ = os.Remove(st.Home.Path(wire.DownloadDir)) // fails unless it is empty
}

// removeDownloads removes the downloaded artifacts of this install.
func (st *stage) removeDownloads() {
	for _, path := range st.downloads {
		_ = os.Remove(path)
		_ = os.Remove(path + partSuffix)
	}
	_ = os.Remove(st.Home.Path(wire.DownloadDir)) // fails unless it is empty
}

// downloadRetention limits how long downloads of a failed install are kept for the next
// attempt.
const downloadRetention = 24 * time.Hour

// cleanDownloads removes downloads that are older than downloadRetention.
func (in *Installer) cleanDownloads() error {
	dir := in.Home.Path(wire.DownloadDir)
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if info, infoErr := e.Info(); infoErr == nil && time.Since(info.ModTime()) > downloadRetention {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	_ = os.Remove(dir) // fails unless it is empty
	return err
}
