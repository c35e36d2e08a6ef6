package install

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// The hive stores each wheel of its environments once, unpacked in the cache of uv below
// RBEE_HOME. uv creates the files of an environment as hard links to the unpacked files, so
// that a second environment needs neither a download nor disk space.
//
//	cache/uv/                        cache of uv
//	cache/wheels/<sha256>/<name>     the wheel; empty after it is unpacked in cache/uv
//	cache/wheels/<sha256>/unpacked.json, files.json
//
// uv gets each wheel directory with --find-links. It identifies a wheel by its directory and
// name, and does not read a wheel that it has already unpacked. A version of uv that reads
// the empty wheel anyway fails. In this case, the wheels of the environment are downloaded
// and unpacked again; the wheels of other environments are kept.
//
// The record unpacked.json is written after a wheel is verified, unpacked, linked into an
// environment and flushed to disk. cleanWheels removes everything without a record.
const (
	uvCacheDir   = wire.CacheDir + "/uv"
	archivesGlob = "archive-v*" // in the cache of uv: contains a directory for each unpacked wheel
)

// minFreeDisk is the free disk space in bytes below which a failure of uv is attributed to
// the full disk and not to its cache.
const minFreeDisk = 16 << 20

// compileTimeout is the time limit for compiling one file to bytecode, in seconds. The
// default of uv, 60, is too short for a large file on a busy machine.
const compileTimeout = "3600"

// uvCache is the cache of unpacked wheels of an rbee directory.
type uvCache struct{ store *installed.Store }

func (in *Installer) cache() uvCache { return uvCache{in.Store} }

// unpackedWheel is the record of a wheel that is unpacked in the cache of uv.
type unpackedWheel struct {
	Name    string `json:"name"`    // of the wheel
	Archive string `json:"archive"` // its directory below the cache of uv

	// files are the unpacked files to which environments have hard links, with paths
	// relative to site-packages. If a file of a new environment differs from them, it was
	// modified in place in another environment. readFiles reads the files from
	// installed.FilesName.
	files []installed.File
}

// readFiles reads the list of files of the wheel stored in dir.
func (r *unpackedWheel) readFiles(dir string) error {
	return atomicfile.ReadJSON(filepath.Join(dir, installed.FilesName), &r.files)
}

// wheelFile returns the path at which uv finds a wheel.
func (c uvCache) wheelFile(w *wire.Artifact) string {
	return filepath.Join(c.store.Home.Path(installed.WheelsDir), strings.ToLower(w.SHA256), w.Name)
}

// lookup returns the record of a wheel in the cache; nil if the wheel is not in the cache.
func (c uvCache) lookup(w *wire.Artifact) *unpackedWheel {
	path := c.wheelFile(w)
	var r unpackedWheel
	if statefile.Read(filepath.Join(filepath.Dir(path), installed.UnpackedName), &r) != nil || r.Name != w.Name || !filepath.IsLocal(r.Archive) {
		return nil
	}
	if _, err := os.Stat(path); err != nil {
		return nil
	}
	if info, err := os.Stat(filepath.Join(c.store.Home.Path(uvCacheDir), r.Archive)); err != nil || !info.IsDir() {
		return nil
	}
	return &r
}

// unpackedBytes returns the total size of the wheels of steps that are in the cache.
func (c uvCache) unpackedBytes(steps []wire.InstallStep) (n int64) {
	for i := range steps {
		if steps[i].Python == nil {
			continue
		}
		for j := range steps[i].Python.Wheels {
			if w := &steps[i].Python.Wheels[j]; c.lookup(w) != nil {
				n += w.Size
			}
		}
	}
	return n
}

// wheelName matches the file name of a wheel and captures its distribution and version.
var wheelName = regexp.MustCompile(`^([A-Za-z0-9._]+)-([^-/]+)(?:-[0-9][^-/]*)?-[^-/]+-[^-/]+-[^-/]+\.whl$`)

// separators matches the characters that become "-" in a normalized package name.
var separators = regexp.MustCompile(`[-_.]+`)

// packageOf returns the normalized name of the package in a file or directory name
// such as "flash_attn-2.8.1.dist-info".
func packageOf(name string) string {
	name, _, _ = strings.Cut(name, "-")
	return strings.ToLower(separators.ReplaceAllString(name, "-"))
}

// requirement returns the line of requirements.txt for a wheel. For an invalid wheel name,
// it returns the path of the file, and uv reports the error.
func (c uvCache) requirement(w *wire.Artifact) string {
	if m := wheelName.FindStringSubmatch(w.Name); m != nil {
		return m[1] + "==" + m[2]
	}
	return c.wheelFile(w)
}

// environment creates a virtual environment with the wheels and adds its files to the
// manifest. venv is the path of the environment, and into is the same path, relative to the
// payload and slash-separated.
func (st *stage) environment(ctx context.Context, uv, python, venv, into string, wheels []*wire.Artifact) error {
	for {
		cached := map[string]*unpackedWheel{} // by SHA-256
		var missing []*wire.Artifact
		for _, w := range wheels {
			if r := st.lookupWheel(w); r != nil && (r.files != nil || r.readFiles(filepath.Dir(st.cache().wheelFile(w))) == nil) {
				cached[w.SHA256] = r
			} else {
				missing = append(missing, w)
			}
		}
		if err := st.placeWheels(ctx, missing); err != nil {
			return err
		}
		st.testPoint("received")
		before := st.cache().archives()
		err := st.makeEnvironment(ctx, uv, python, venv, wheels, len(missing))
		var files []installed.File
		var damaged []string
		if err == nil {
			if files, err = st.listEnvironment(ctx, venv, into); err != nil {
				return err
			}
			unpacked := st.recordUnpacked(venv, into, files, missing, before)
			damaged = damagedWheels(cached, unpacked, into, files, sitePackages(venv))
			if len(damaged) == 0 {
				st.addFiles(files...)
				return nil
			}
		}
		if ctx.Err() != nil || len(cached) == 0 || err != nil && home.DiskFree(st.dir) < minFreeDisk {
			return err
		}
		// This uv cannot use the cache, or cached files were modified. The next attempt
		// downloads the wheels that are removed here. The last possible attempt uses no
		// cached wheel.
		if err != nil {
			err = st.removeWheels(slices.Collect(maps.Keys(cached)))
		} else {
			err = st.removeWheels(damaged)
		}
		if err := errors.Join(err, removeTree(venv, nil), os.MkdirAll(filepath.Dir(venv), 0o755)); err != nil { //nolint:gosec // world-readable programs
			return err
		}
		if into == "" {
			if err := os.MkdirAll(venv, 0o755); err != nil { //nolint:gosec // world-readable programs
				return err
			}
		}
		st.mu.Lock()
		st.total = wire.TotalSize(st.manifest.Steps)
		st.mu.Unlock()
	}
}

// lookupWheel returns the record of a wheel in the cache or of this install; nil if the
// wheel is in neither.
func (st *stage) lookupWheel(w *wire.Artifact) *unpackedWheel {
	if r := st.wheels[w.SHA256]; r != nil {
		return r
	}
	return st.cache().lookup(w)
}

// placeWheels downloads wheels and stores them in the directories that uv searches.
func (st *stage) placeWheels(ctx context.Context, wheels []*wire.Artifact) error {
	if err := os.MkdirAll(st.Home.Path(installed.WheelsDir), 0o700); err != nil {
		return err
	}
	paths, err := st.fetchArtifacts(ctx, wheels...)
	if err != nil {
		return err
	}
	for i, w := range wheels {
		dir := filepath.Dir(st.cache().wheelFile(w))
		if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
			return err
		}
		if err := home.LinkOrCopy(paths[i], st.cache().wheelFile(w)); err != nil {
			return err
		}
	}
	return nil
}

// makeEnvironment creates the environment with uv and reports the progress.
func (st *stage) makeEnvironment(ctx context.Context, uv, python, venv string, wheels []*wire.Artifact, missing int) error {
	ph := st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseEnvironment, Unit: wire.UnitPackages, CountTotal: int64(len(wheels))})
	if err := st.runUV(ctx, uv, "venv", "--offline", "--no-python-downloads", "--quiet", "--relocatable", "--python", python, venv); err != nil {
		return err
	}
	args := []string{
		"pip", "install", "--offline", "--no-index", "--no-deps", "--no-progress", "--quiet",
		"--compile-bytecode", "--link-mode", "hardlink", // uv copies files if it cannot link them
		"--python", filepath.Join(venv, "bin", "python"),
	}
	var lines []string
	for _, w := range wheels {
		lines = append(lines, st.cache().requirement(w))
		args = append(args, "--find-links", fileURL(filepath.Dir(st.cache().wheelFile(w))))
	}
	list := filepath.Join(st.dir, "requirements.txt")
	if err := os.WriteFile(list, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		st.watchUV(ctx, ph, venv, len(wheels), missing, len(st.cache().archives()))
	}()
	err := st.runUV(ctx, uv, append(args, "--requirements", list)...)
	cancel()
	<-done
	return errors.Join(err, os.Remove(list))
}

// fileURL returns a path as a URL for a comma-separated list of uv.
func fileURL(path string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	return strings.ReplaceAll(u.String(), ",", "%2C")
}

// watchUV updates ph with the progress of uv until ctx ends. It reads the progress from the
// directories that uv fills: uv first unpacks the missing wheels into its cache, then links
// all packages, then compiles bytecode. before is the number of archives before uv started.
func (st *stage) watchUV(ctx context.Context, ph *progress.Phase, venv string, packages, missing, before int) {
	files := 0 // number of files to compile
	wait := progress.MinInterval
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		wait = progress.MinInterval
		site := sitePackages(venv)
		linked, _ := filepath.Glob(filepath.Join(site, "*.dist-info"))
		unpacked := len(st.cache().archives()) - before
		switch {
		case len(linked) == 0 && unpacked < missing:
			ph.Update(wire.Progress{Phase: wire.PhaseUnpack, Unit: wire.UnitPackages, Count: int64(unpacked), CountTotal: int64(missing)})
		case len(linked) < packages:
			ph.Update(wire.Progress{Phase: wire.PhaseEnvironment, Unit: wire.UnitPackages, Count: int64(len(linked)), CountTotal: int64(packages)})
		default:
			start := time.Now()
			sources, compiled := countBytecode(ctx, site)
			// Spend at most a tenth of the time on counting.
			wait = max(wait, 10*time.Since(start))
			files = max(files, sources)
			ph.Update(wire.Progress{Phase: wire.PhaseCompile, Unit: wire.UnitFiles, Count: int64(min(compiled, files)), CountTotal: int64(files)})
		}
	}
}

// countBytecode counts the Python source files and the bytecode files below dir.
func countBytecode(ctx context.Context, dir string) (sources, compiled int) {
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || ctx.Err() != nil:
			return ctx.Err()
		case strings.HasSuffix(d.Name(), ".py"):
			sources++
		case strings.HasSuffix(d.Name(), ".pyc"):
			compiled++
		}
		return nil
	})
	return sources, compiled
}

// sitePackages returns the site-packages directory of an environment; empty if it does not
// exist.
func sitePackages(venv string) string {
	found, _ := filepath.Glob(filepath.Join(venv, "lib", "python*", "site-packages")) // the only possible error is a bad pattern
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// archives returns the directories of unpacked wheels, as paths below the cache of uv.
func (c uvCache) archives() []string {
	found, _ := filepath.Glob(filepath.Join(c.store.Home.Path(uvCacheDir), archivesGlob, "*")) // the only possible error is a bad pattern
	for i, path := range found {
		found[i] = strings.TrimPrefix(path, c.store.Home.Path(uvCacheDir)+string(filepath.Separator))
	}
	return found
}

// listEnvironment returns the files of an environment with their checksums.
func (st *stage) listEnvironment(ctx context.Context, venv, into string) ([]installed.File, error) {
	ph := st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseCheck, Unit: wire.UnitFiles})
	files, bytecode, err := listTree(progress.NewContext(ctx, ph), venv, into)
	if err != nil {
		return nil, err
	}
	st.bytecode.Bytes, st.bytecode.Files = st.bytecode.Bytes+bytecode.Bytes, st.bytecode.Files+bytecode.Files
	return files, nil
}

// recordUnpacked finds the directories into which uv unpacked the missing wheels, and links
// the bytecode of the environment into them. It returns the records of the wheels by SHA-256
// and adds them to st.wheels, which commitWheels stores.
func (st *stage) recordUnpacked(venv, into string, files []installed.File, missing []*wire.Artifact, before []string) map[string]*unpackedWheel {
	site := sitePackages(venv)
	wheels := map[string]*wire.Artifact{} // by package: an environment has one version of each
	for _, w := range missing {
		wheels[packageOf(w.Name)] = w
	}
	listed := filesByPath(files, into, venv, site)
	unpacked := map[string]*unpackedWheel{}
	for _, archive := range st.cache().archives() {
		if slices.Contains(before, archive) {
			continue
		}
		dir := filepath.Join(st.Home.Path(uvCacheDir), archive)
		info, _ := filepath.Glob(filepath.Join(dir, "*.dist-info"))
		if len(info) != 1 {
			continue
		}
		w := wheels[packageOf(filepath.Base(info[0]))]
		if w == nil {
			continue
		}
		r := &unpackedWheel{Name: w.Name, Archive: archive, files: linkedFiles(dir, site, listed)}
		unpacked[w.SHA256] = r
		if st.wheels == nil {
			st.wheels = map[string]*unpackedWheel{}
		}
		st.wheels[w.SHA256] = r
	}
	return unpacked
}

// filesByPath returns the files of an environment that are in site-packages, by their path
// relative to site-packages.
func filesByPath(files []installed.File, into, venv, site string) map[string]installed.File {
	rel, err := filepath.Rel(venv, site)
	if err != nil {
		return nil
	}
	prefix := strings.TrimPrefix(into+"/"+filepath.ToSlash(rel)+"/", "/")
	listed := make(map[string]installed.File, len(files))
	for _, f := range files {
		if name, ok := strings.CutPrefix(f.Path, prefix); ok {
			f.Path = name
			listed[name] = f
		}
	}
	return listed
}

// linkedFiles returns the files of an unpacked wheel that are hard links in site-packages.
// It links their bytecode into the unpacked wheel, so that the next environment uses it.
func linkedFiles(archive, site string, listed map[string]installed.File) []installed.File {
	var files []installed.File
	sources := map[string]map[string]bool{} // by directory: Python files without ".py"
	_ = filepath.WalkDir(archive, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel, err := filepath.Rel(archive, path)
		if err != nil {
			return err
		}
		f, ok := listed[filepath.ToSlash(rel)]
		if !ok || !sameFile(path, filepath.Join(site, rel)) {
			return nil
		}
		files = append(files, f)
		if stem, ok := strings.CutSuffix(d.Name(), ".py"); ok {
			dir := filepath.Dir(rel)
			if sources[dir] == nil {
				sources[dir] = map[string]bool{}
			}
			sources[dir][stem] = true
		}
		return nil
	})
	for dir, stems := range sources {
		linkBytecode(filepath.Join(site, dir, "__pycache__"), filepath.Join(archive, dir, "__pycache__"), stems)
	}
	return files
}

// linkBytecode creates hard links to the bytecode of the given Python modules. srcDir is a
// directory of an environment, and dstDir a directory of an unpacked wheel. This is safe,
// because Python replaces bytecode files and never modifies them in place.
func linkBytecode(srcDir, dstDir string, stems map[string]bool) {
	entries, _ := os.ReadDir(srcDir) // a missing directory means no bytecode
	for _, e := range entries {
		name := e.Name() // such as "six.cpython-312.pyc"
		base, ok := strings.CutSuffix(name, ".pyc")
		if i := strings.LastIndexByte(base, '.'); !ok || i < 0 || !stems[base[:i]] {
			continue
		}
		_ = os.Mkdir(dstDir, 0o755) //nolint:gosec // as uv does
		_ = os.Link(filepath.Join(srcDir, name), filepath.Join(dstDir, name))
	}
}

func sameFile(a, b string) bool {
	x, errX := os.Lstat(a)
	y, errY := os.Lstat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// damagedWheels returns the SHA-256 of the cached wheels whose files in an environment
// differ from the unpacked files. A file that several wheels contain may match any of them.
func damagedWheels(cached, unpacked map[string]*unpackedWheel, into string, files []installed.File, site string) []string {
	if len(cached) == 0 {
		return nil
	}
	venv := filepath.Dir(filepath.Dir(filepath.Dir(site)))
	listed := filesByPath(files, into, venv, site)
	intact := map[string]bool{} // paths of files that match a wheel
	for _, wheels := range []map[string]*unpackedWheel{cached, unpacked} {
		for _, r := range wheels {
			for _, f := range r.files {
				if listed[f.Path] == f {
					intact[f.Path] = true
				}
			}
		}
	}
	var damaged []string
	for sum, r := range cached {
		if slices.ContainsFunc(r.files, func(f installed.File) bool { return !intact[f.Path] }) {
			damaged = append(damaged, sum)
		}
	}
	return damaged
}

// commitWheels stores the records of the wheels that this install unpacked, and replaces the
// packed wheels with empty files. It ignores errors: a wheel without a record is unpacked
// again by the next install.
func (st *stage) commitWheels() {
	for sum, r := range st.wheels {
		dir := filepath.Join(st.Home.Path(installed.WheelsDir), strings.ToLower(sum))
		empty := filepath.Join(dir, home.TempPrefix+home.RandomSuffix())
		if os.WriteFile(empty, nil, 0o600) != nil || os.Rename(empty, filepath.Join(dir, r.Name)) != nil {
			continue
		}
		if atomicfile.WriteJSON(filepath.Join(dir, installed.FilesName), append([]installed.File{}, r.files...)) == nil {
			_ = statefile.Write(filepath.Join(dir, installed.UnpackedName), r)
		}
	}
}

// removeWheels removes the wheels with the given SHA-256 from the cache.
func (st *stage) removeWheels(sums []string) error {
	var err error
	for _, sum := range sums {
		delete(st.wheels, sum)
		err = errors.Join(err, os.RemoveAll(filepath.Join(st.Home.Path(installed.WheelsDir), strings.ToLower(sum))))
	}
	return errors.Join(err, st.cache().cleanArchives(st.wheels, nil))
}
