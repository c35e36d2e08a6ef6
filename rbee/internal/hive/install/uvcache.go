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

// The hive keeps every wheel of its environments once, unpacked, in uv's cache below
// RBEE_HOME. uv links the files of an environment from there, so that a second
// environment costs neither a download nor disk.
//
//	cache/uv/                        uv's own cache
//	cache/wheels/<sha256>/<name>     the wheel; empty once it is unpacked in cache/uv
//	cache/wheels/<sha256>/unpacked.json, files.json
//
// uv gets each of these directories with --find-links. It then identifies a wheel by
// that path and its name alone, and does not read a wheel that it has unpacked. A uv
// that reads the empty wheel nevertheless fails; then the wheels of the environment are
// fetched and unpacked again, and those of other environments stay.
//
// The record is written after a wheel was verified, unpacked, linked into an
// environment and flushed to disk. Whatever has no record is removed by cleanWheels.
const (
	uvCacheDir   = wire.CacheDir + "/uv"
	archivesGlob = "archive-v*" // in uv's cache: it has one directory for each unpacked wheel
)

// minFreeDisk is the free space in bytes below which a failure of uv is not taken for one
// of its cache.
const minFreeDisk = 16 << 20

// compileTimeout is the time limit for the bytecode of one file, in seconds. uv's
// default of 60 is too short for a large file on a busy machine.
const compileTimeout = "3600"

// uvCache is that cache below a home.
type uvCache struct{ store *installed.Store }

func (in *Installer) cache() uvCache { return uvCache{in.Store} }

// unpackedWheel records a wheel that is unpacked in uv's cache.
type unpackedWheel struct {
	Name    string `json:"name"`    // of the wheel
	Archive string `json:"archive"` // its directory below uv's cache

	// files are the files that environments have as hard links, with paths as in
	// site-packages. Comparing an environment's files with them finds a file that was
	// modified in place in another environment. They are stored in filesName, and read
	// by readFiles.
	files []installed.File
}

// readFiles reads the files of a wheel that is stored in dir.
func (r *unpackedWheel) readFiles(dir string) error {
	return atomicfile.ReadJSON(filepath.Join(dir, installed.FilesName), &r.files)
}

// wheelFile is where a wheel is stored for uv.
func (c uvCache) wheelFile(w *wire.Artifact) string {
	return filepath.Join(c.store.Home.Path(installed.WheelsDir), strings.ToLower(w.SHA256), w.Name)
}

// lookup returns the record of a wheel in the cache; nil if the wheel has to be
// fetched and unpacked.
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

// unpackedBytes returns the size of the wheels of steps that need not be fetched.
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

// wheelName matches the file name of a wheel: distribution and version.
var wheelName = regexp.MustCompile(`^([A-Za-z0-9._]+)-([^-/]+)(?:-[0-9][^-/]*)?-[^-/]+-[^-/]+-[^-/]+\.whl$`)

// separators are what a normalized name of a package writes as "-".
var separators = regexp.MustCompile(`[-_.]+`)

// packageOf returns the normalized name of the package in a file or directory name
// such as "flash_attn-2.8.1.dist-info".
func packageOf(name string) string {
	name, _, _ = strings.Cut(name, "-")
	return strings.ToLower(separators.ReplaceAllString(name, "-"))
}

// requirement is the line by which uv finds a wheel. A file whose name is not that of a
// wheel is given by its path, and uv reports what is wrong with it.
func (c uvCache) requirement(w *wire.Artifact) string {
	if m := wheelName.FindStringSubmatch(w.Name); m != nil {
		return m[1] + "==" + m[2]
	}
	return c.wheelFile(w)
}

// environment creates a virtual environment of wheels at venv, a path of the payload
// with the slash-separated name into, and lists its files.
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
			fresh := st.recordUnpacked(venv, into, files, missing, before)
			damaged = damagedWheels(cached, fresh, into, files, sitePackages(venv))
			if len(damaged) == 0 {
				st.addFiles(files...)
				return nil
			}
		}
		if ctx.Err() != nil || len(cached) == 0 || err != nil && home.DiskFree(st.dir) < minFreeDisk {
			return err
		}
		// The cache does not work with this uv, or files in it were modified. Each try
		// fetches what it removes, so that the last one uses nothing from the cache.
		if err != nil {
			err = st.removeWheels(slices.Collect(maps.Keys(cached)))
		} else {
			err = st.removeWheels(damaged)
		}
		if err := errors.Join(err, removeTree(venv, nil), os.MkdirAll(filepath.Dir(venv), 0o755)); err != nil { //nolint:gosec // programs are for everybody
			return err
		}
		if into == "" {
			if err := os.MkdirAll(venv, 0o755); err != nil { //nolint:gosec // programs are for everybody
				return err
			}
		}
		st.mu.Lock()
		st.total = wire.Bytes(st.manifest.Steps)
		st.mu.Unlock()
	}
}

// lookupWheel is unpacked, and knows the wheels of this install too.
func (st *stage) lookupWheel(w *wire.Artifact) *unpackedWheel {
	if r := st.wheels[w.SHA256]; r != nil {
		return r
	}
	return st.cache().lookup(w)
}

// placeWheels fetches wheels and stores them where uv looks for them.
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

// makeEnvironment runs uv, and reports its progress.
func (st *stage) makeEnvironment(ctx context.Context, uv, python, venv string, wheels []*wire.Artifact, missing int) error {
	ph := st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseEnvironment, Unit: wire.UnitPackages, CountTotal: int64(len(wheels))})
	if err := st.runUV(ctx, uv, "venv", "--offline", "--no-python-downloads", "--quiet", "--relocatable", "--python", python, venv); err != nil {
		return err
	}
	args := []string{
		"pip", "install", "--offline", "--no-index", "--no-deps", "--no-progress", "--quiet",
		"--compile-bytecode", "--link-mode", "hardlink", // uv copies where it cannot link
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
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		st.watchUV(ctx, ph, venv, len(wheels), missing, len(st.cache().archives()))
	}()
	err := st.runUV(ctx, uv, append(args, "--requirements", list)...)
	cancel()
	<-watched
	return errors.Join(err, os.Remove(list))
}

// fileURL returns a path as uv takes it in a list that commas separate.
func fileURL(path string) string {
	u := url.URL{Scheme: "file", Path: filepath.ToSlash(path)}
	return strings.ReplaceAll(u.String(), ",", "%2C")
}

// watchUV turns ph to what uv is doing, which it finds out from the directories that uv
// fills: uv first unpacks all wheels that are missing in its cache, then links all
// packages, then compiles bytecode. before is the number of archives before that.
func (st *stage) watchUV(ctx context.Context, ph *progress.Phase, venv string, packages, missing, before int) {
	files := 0 // to compile
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
			began := time.Now()
			sources, compiled := countBytecode(ctx, site)
			// Counting takes at most a tenth of the time.
			wait = max(wait, 10*time.Since(began))
			files = max(files, sources)
			ph.Update(wire.Progress{Phase: wire.PhaseCompile, Unit: wire.UnitFiles, Count: int64(min(compiled, files)), CountTotal: int64(files)})
		}
	}
}

// countBytecode counts the Python files below dir, and those of them that are compiled.
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

// sitePackages is where the packages of an environment are installed; empty if it is
// not there yet.
func sitePackages(venv string) string {
	found, _ := filepath.Glob(filepath.Join(venv, "lib", "python*", "site-packages")) // fails for a bad pattern only
	if len(found) == 0 {
		return ""
	}
	return found[0]
}

// archives lists the directories of unpacked wheels, as paths below uv's cache.
func (c uvCache) archives() []string {
	found, _ := filepath.Glob(filepath.Join(c.store.Home.Path(uvCacheDir), archivesGlob, "*")) // fails for a bad pattern only
	for i, path := range found {
		found[i] = strings.TrimPrefix(path, c.store.Home.Path(uvCacheDir)+string(filepath.Separator))
	}
	return found
}

// listEnvironment lists the files of an environment with their checksums.
func (st *stage) listEnvironment(ctx context.Context, venv, into string) ([]installed.File, error) {
	ph := st.startPhase(wire.Progress{Index: st.index, Phase: wire.PhaseCheck, Unit: wire.UnitFiles})
	files, bytecode, err := listTree(progress.NewContext(ctx, ph), venv, into)
	if err != nil {
		return nil, err
	}
	st.bytecode.Bytes, st.bytecode.Files = st.bytecode.Bytes+bytecode.Bytes, st.bytecode.Files+bytecode.Files
	return files, nil
}

// recordUnpacked finds the directories into which uv has unpacked the missing wheels, and
// adds the bytecode of the environment to all that the environment is linked from. The
// records, by SHA-256, become valid with commitWheels.
func (st *stage) recordUnpacked(venv, into string, files []installed.File, missing []*wire.Artifact, before []string) map[string]*unpackedWheel {
	site := sitePackages(venv)
	wheels := map[string]*wire.Artifact{} // by package: an environment has one version of each
	for _, w := range missing {
		wheels[packageOf(w.Name)] = w
	}
	listed := filesByPath(files, into, venv, site)
	fresh := map[string]*unpackedWheel{}
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
		fresh[w.SHA256] = r
		if st.wheels == nil {
			st.wheels = map[string]*unpackedWheel{}
		}
		st.wheels[w.SHA256] = r
	}
	return fresh
}

// filesByPath maps the paths below site-packages to the files of an environment.
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

// linkedFiles returns the files of an unpacked wheel that site-packages has as hard
// links. It links their bytecode into the unpacked wheel, from where the next
// environment gets it.
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

// linkBytecode gives the bytecode of Python files in an environment a second name in
// the unpacked wheel. Python replaces such a file by another one and never writes to it.
func linkBytecode(from, to string, stems map[string]bool) {
	entries, _ := os.ReadDir(from) // without the directory there is no bytecode
	for _, e := range entries {
		name := e.Name() // such as "six.cpython-312.pyc"
		base, ok := strings.CutSuffix(name, ".pyc")
		if i := strings.LastIndexByte(base, '.'); !ok || i < 0 || !stems[base[:i]] {
			continue
		}
		_ = os.Mkdir(to, 0o755) //nolint:gosec // as uv does
		_ = os.Link(filepath.Join(from, name), filepath.Join(to, name))
	}
}

func sameFile(a, b string) bool {
	x, errX := os.Lstat(a)
	y, errY := os.Lstat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// damagedWheels returns the wheels of the cache whose files in an environment are not
// those that were unpacked. A file that several wheels have is that of any of them.
func damagedWheels(cached, fresh map[string]*unpackedWheel, into string, files []installed.File, site string) []string {
	if len(cached) == 0 {
		return nil
	}
	venv := filepath.Dir(filepath.Dir(filepath.Dir(site)))
	listed := filesByPath(files, into, venv, site)
	right := map[string]bool{} // paths that are as some wheel has them
	for _, wheels := range []map[string]*unpackedWheel{cached, fresh} {
		for _, r := range wheels {
			for _, f := range r.files {
				if listed[f.Path] == f {
					right[f.Path] = true
				}
			}
		}
	}
	var damaged []string
	for sum, r := range cached {
		if slices.ContainsFunc(r.files, func(f installed.File) bool { return !right[f.Path] }) {
			damaged = append(damaged, sum)
		}
	}
	return damaged
}

// commitWheels makes the wheels that this install has unpacked available to the next one,
// and removes their packed form. A wheel for which that fails is unpacked again next
// time.
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

// removeWheels removes wheels, given by SHA-256, from the cache.
func (st *stage) removeWheels(sums []string) error {
	var err error
	for _, sum := range sums {
		delete(st.wheels, sum)
		err = errors.Join(err, os.RemoveAll(filepath.Join(st.Home.Path(installed.WheelsDir), strings.ToLower(sum))))
	}
	return errors.Join(err, st.cache().cleanArchives(st.wheels, nil))
}
