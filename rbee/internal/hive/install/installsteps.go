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

// stage is one version of a worker while it is made, beside its place.
type stage struct {
	*stepRunner
	index      int    // of the request's step
	dir        string // becomes workers/<type>/<version>
	payload    string
	manifest   *installed.Manifest
	total      int64    // bytes that are sent or downloaded, as far as it is known
	downloads  []string // artifacts in the download directory
	incomplete bool     // an artifact did not arrive
	bytecode   fileTotals
	wheels     map[string]*unpackedWheel // that this install has unpacked, by SHA-256

	mu         sync.Mutex
	received   int64
	reportedAt time.Time
}

// addReceived counts bytes, and tells of them now and then.
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

// build makes everything that a version consists of.
func (st *stage) build(ctx context.Context) error {
	m := st.manifest
	if err := errors.Join(os.Chmod(st.dir, 0o755), os.Mkdir(st.payload, 0o755)); err != nil { //nolint:gosec // programs are for everybody
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

// withPosition says where in the recipe that is which went wrong. What concerns all steps
// has the place of the first.
func withPosition(step *wire.InstallStep, err error) error {
	if step.At == "" {
		return err
	}
	return fmt.Errorf("%s: %w", step.At, err)
}

func (st *stage) checkSpace() error {
	needed := uint64(max(st.total, 0))
	if len(st.manifest.Steps) > 1 || st.manifest.Steps[0].Kind != wire.StepFile {
		needed *= 2 // what is packed and, at the very least, as much again
	}
	if free := home.DiskFree(st.Home.Root); free > 0 && free < needed {
		return &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonDiskFull,
			Message: fmt.Sprintf("not enough disk: %s free at %s, at least %s needed", bytesize.Format(free), st.Home.Root, bytesize.Format(needed)),
		}
	}
	return nil
}

// installStep does one step. Afterwards no link leads out of the payload, so the next one
// can trust what is there.
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

// file puts an artifact into the payload as it is. A worker's only file is its
// program.
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

// payloadPath is a path in the payload for something new, with the directories above
// it. Neither they nor what may be there already are links, so nothing that is
// written there goes elsewhere.
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
			return "", fmt.Errorf("%q in the payload is no directory", part)
		}
	}
	path = filepath.Join(st.payload, name)
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() == fs.ModeSymlink {
		return "", fmt.Errorf("%q in the payload is a link", name)
	}
	return path, nil
}

// addFiles notes files of the payload; the last one of a path counts.
func (st *stage) addFiles(files ...installed.File) {
	m := st.manifest
	listed := map[string]bool{}
	for _, f := range files {
		listed[f.Path] = true
	}
	m.Files = append(slices.DeleteFunc(m.Files, func(f installed.File) bool { return listed[f.Path] }), files...)
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
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) { //nolint:gosec // programs are for everybody
			return err
		}
	}
	files, err := st.unpack(ctx, paths[0], step.Format, step.Strip, dir)
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", step.Artifact.Name, err)
	}
	for i := range files {
		files[i].Path = strings.TrimPrefix(step.Into+"/"+files[i].Path, "/")
	}
	st.manifest.Size += step.Artifact.Size
	st.addFiles(files...)
	return nil
}

// python makes a virtual environment from wheels. Nothing is resolved, built or
// asked for elsewhere.
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

// run runs uv. It ends when ctx does, with all that it started.
func (st *stage) runUV(ctx context.Context, program string, args ...string) error {
	return uv.Run(ctx, uv.Command{
		Program: program, Args: args, Dir: st.dir,
		Env: uv.Env(os.Environ(), "UV_CACHE_DIR="+st.Home.Path(uvCacheDir), "UV_COMPILE_BYTECODE_TIMEOUT="+compileTimeout),
	})
}

// fileTotals is a number of files and of their bytes.
type fileTotals struct {
	Files int
	Bytes int64
}

// listTree lists the files of a directory with their checksums, as paths below
// prefix. Bytecode is counted, and not listed.
func listTree(ctx context.Context, dir, prefix string) (files []installed.File, bytecode fileTotals, err error) {
	var hash []int // indices of files that have content
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
			hash = append(hash, len(files))
		default:
			return nil // a lock or a socket, which nobody counts on
		}
		files = append(files, f)
		return err
	})
	if err != nil {
		return nil, fileTotals{}, err
	}
	ph := progress.FromContext(ctx)
	ph.SetTotal(int64(len(hash)))
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError().WithMaxGoroutines(runtime.GOMAXPROCS(0))
	for _, i := range hash {
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

// makeEntryExecutable makes the program executable. It may be a link to another file of
// the payload, or to a tool.
func (st *stage) makeEntryExecutable() error {
	m := st.manifest
	root, err := filepath.EvalSymlinks(st.payload)
	if err != nil {
		return err
	}
	path, err := filepath.EvalSymlinks(filepath.Join(root, filepath.FromSlash(m.Entry)))
	if err != nil {
		return fmt.Errorf("the artifact holds no program %q", m.Entry)
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
		return fmt.Errorf("the program %q is outside of the artifact", m.Entry)
	}
	i := slices.IndexFunc(m.Files, func(f installed.File) bool { return f.Path == filepath.ToSlash(rel) && f.Link == "" })
	if i < 0 {
		return fmt.Errorf("%q is no file of the artifact", m.Entry)
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

// keepPartialDownloads lets what has arrived lie for the next try, if that is for want of
// the rest, and the disk is not full.
func (st *stage) keepPartialDownloads(err error) {
	if !st.incomplete || errors.Is(err, syscall.ENOSPC) {
		st.removeDownloads()
	}
	_ = os.Remove(st.Home.Path(wire.DownloadDir)) // only if it is empty
}

// removeDownloads removes the artifacts of this install.
func (st *stage) removeDownloads() {
	for _, path := range st.downloads {
		_ = os.Remove(path)
		_ = os.Remove(path + partSuffix)
	}
	_ = os.Remove(st.Home.Path(wire.DownloadDir)) // only if it is empty
}

// downloadRetention is how long what has arrived waits for the next try.
const downloadRetention = 24 * time.Hour

// cleanDownloads removes what nobody came back for.
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
	_ = os.Remove(dir) // only if it is empty
	return err
}
