package pkgmgr

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Bundle is a file that holds all that a config needs, so that it can be installed
// where there is no internet: the lock, the user's own recipes, every artefact of
// the workers, and rbee itself. It is a tar file whose first entry,
// rbee-bundle.json, tells what is in it; artefacts lie in artefacts/<SHA-256>,
// and rbee in binaries/rbee-<os>-<arch>.
type Bundle struct {
	f       *os.File
	index   bundleIndex
	entries map[string]tarEntry
}

type tarEntry struct{ offset, size int64 }

// bundleIndex is the first entry.
type bundleIndex struct {
	Form      int               `json:"bundle"` // of the file
	Version   string            `json:"rbee_version"`
	CreatedAt time.Time         `json:"created_at"`
	Lock      json.RawMessage   `json:"lock"`
	Recipes   map[string]string `json:"recipes,omitempty"` // the user's own, by file name
	Binaries  map[string]string `json:"binaries"`          // the SHA-256 of each rbee, by its name there
	Entries   int               `json:"entries"`           // how many come after this one
}

// Names in a bundle.
const (
	bundleForm      = 1
	bundleIndexName = "rbee-bundle.json"
	bundleArtefacts = "artefacts/"
	bundleBinaries  = "binaries/"

	maxBundleIndex = 64 << 20
)

// OpenBundle opens a bundle. It reads what is in it, not the contents: those are
// checked by their checksums when they are used.
func OpenBundle(path string) (_ *Bundle, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the bundle: %w", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = fmt.Errorf("the bundle %s: %w", path, err)
		}
	}()
	b := &Bundle{f: f, entries: map[string]tarEntry{}}
	t := tar.NewReader(f)
	for first := true; ; first = false {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("it is damaged, or none: %w", err)
		}
		if first {
			if h.Name != bundleIndexName {
				return nil, errors.New("it is none: it does not begin with " + bundleIndexName)
			}
			if err := json.NewDecoder(io.LimitReader(t, maxBundleIndex)).Decode(&b.index); err != nil {
				return nil, fmt.Errorf("its index cannot be read: %w", err)
			}
			if b.index.Form != bundleForm {
				return nil, fmt.Errorf("it has form %d, this rbee knows %d", b.index.Form, bundleForm)
			}
			continue
		}
		offset, err := f.Seek(0, io.SeekCurrent) // the reader reads no further than the header
		if err != nil {
			return nil, err
		}
		b.entries[h.Name] = tarEntry{offset, h.Size}
	}
	switch {
	case b.index.Form == 0:
		return nil, errors.New("it is empty")
	case len(b.entries) != b.index.Entries:
		return nil, fmt.Errorf("it is cut short: %d of %d files are in it", len(b.entries), b.index.Entries)
	}
	return b, nil
}

// Close closes the file.
func (b *Bundle) Close() error { return b.f.Close() }

// Lock is what the bundle's wishes came to. Saved, it takes the place of what other
// says of the same wishes, and the rest of other stays. Holds of hives are other's.
func (b *Bundle) Lock(other *Lock) (*Lock, error) {
	file, err := parseLock(b.index.Lock)
	if err != nil {
		return nil, fmt.Errorf("the bundle's lock: %w", err)
	}
	other.mu.Lock()
	defer other.mu.Unlock()
	file.Holds = slices.Clone(other.file.Holds)
	// What was known of these wishes is what they change from, and no other run's work.
	base := lockFileContent{Version: lockForm, Holds: slices.Clone(other.base.Holds)}
	for _, w := range other.base.Workers {
		if slices.ContainsFunc(file.Workers, w.same) {
			base.Workers = append(base.Workers, w)
		}
	}
	return &Lock{path: other.path, file: file, base: base}, nil
}

// Catalog is c with the bundle's recipes; a nil c is the built-in catalog.
func (b *Bundle) Catalog(c *Catalog) (*Catalog, error) {
	if c == nil {
		c = BuiltinCatalog()
	}
	if len(b.index.Recipes) == 0 {
		return c, nil
	}
	out := &Catalog{recipes: map[string]*Recipe{}}
	for typ, r := range c.recipes {
		out.recipes[typ] = r
	}
	for name, text := range b.index.Recipes {
		r, err := ParseRecipe("bundle:"+name, []byte(text))
		if err != nil {
			return nil, err
		}
		out.recipes[r.Type] = r
	}
	return out, nil
}

// ExtractBinaries puts the rbee of each platform into dir, checked, as
// [Binaries.Dir] wants them.
func (b *Bundle) ExtractBinaries(dir string) error {
	for name, e := range b.entries {
		file, ok := strings.CutPrefix(name, bundleBinaries)
		if !ok || !filepath.IsLocal(file) || filepath.Base(file) != file {
			continue
		}
		if err := b.copyOut(e, b.index.Binaries[file], filepath.Join(dir, file), 0o700); err != nil {
			return fmt.Errorf("unpacking %s: %w", name, err)
		}
	}
	return nil
}

// extract puts an artefact to a path, checked. It is false if there is none.
func (b *Bundle) extract(sum, path string) (bool, error) {
	e, ok := b.entries[bundleArtefacts+sum]
	if !ok {
		return false, nil
	}
	return true, b.copyOut(e, sum, path, 0o600)
}

// copyOut copies an entry to a path, if it has the right content.
func (b *Bundle) copyOut(e tarEntry, sum, path string, mode fs.FileMode) error {
	return writeWhole(path, mode, func(w io.Writer) error {
		h := sha256.New()
		if _, err := io.Copy(io.MultiWriter(w, h), io.NewSectionReader(b.f, e.offset, e.size)); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != sum {
			return fmt.Errorf("the bundle is damaged: a file has SHA-256 %s, want %s", got, sum)
		}
		return nil
	})
}

// BundleOptions say what is put into a bundle.
type BundleOptions struct {
	// Platforms are what a hive that could not be read may be; every variant of
	// its workers for them is put in. Empty is linux/amd64 with glibc.
	Platforms []Platform

	// Recipes are the user's own, by file name.
	Recipes map[string]string
}

// WriteBundle writes a bundle with all that the hives need, which [Fleet.Read] has
// read where it could. What is not in the cache is fetched. The file is the whole
// bundle or not there.
func (f *Fleet) WriteBundle(ctx context.Context, path string, o BundleOptions) (*operations.BundleReport, error) {
	start := time.Now()
	if len(o.Platforms) == 0 {
		o.Platforms = []Platform{{OS: "linux", Arch: "amd64", Libc: "glibc"}}
	}
	f.want, _ = f.lookUp(ctx, PlanOptions{Fetch: true})
	c := &bundleContents{fleet: f, artefacts: map[string]bundled{}, report: &operations.BundleReport{Path: path, Platforms: []string{}}}
	c.collect(ctx, o)
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	r := c.report
	hash := sha256.New()
	err := writeWhole(path, 0o644, func(w io.Writer) error {
		counted := &countingWriter{w: io.MultiWriter(w, hash)}
		defer func() { r.Bytes = counted.n }()
		return c.write(ctx, tar.NewWriter(counted), o)
	})
	if err != nil {
		return nil, fmt.Errorf("writing the bundle: %w", err)
	}
	r.SHA256, r.Artefacts, r.DurationSeconds = hex.EncodeToString(hash.Sum(nil)), len(c.artefacts), seconds(time.Since(start))
	return r, nil
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// bundled is an artefact that goes into a bundle.
type bundled struct {
	artefact wire.Artefact
	file     string // on this machine; empty to fetch it
}

// bundleContents is a bundle while it is made.
type bundleContents struct {
	fleet     *Fleet
	artefacts map[string]bundled // by SHA-256
	binaries  []Platform
	report    *operations.BundleReport
}

// collect finds out what goes in.
func (c *bundleContents) collect(ctx context.Context, o BundleOptions) {
	f := c.fleet
	l := f.newLookup(PlanOptions{Fetch: true})
	for _, m := range f.members {
		if m.extra {
			continue
		}
		platforms := o.Platforms
		if m.state != nil {
			platforms = []Platform{m.state.Platform}
		}
		for _, p := range platforms {
			if !slices.ContainsFunc(c.binaries, func(have Platform) bool { return PlatformKey(have) == PlatformKey(p) }) {
				c.binaries = append(c.binaries, p)
			}
			for _, w := range m.hive.Workers {
				if m.state != nil {
					want := f.want.Workers[WorkerKey{m.hive.Alias, w.Type}]
					c.add(m.hive.Alias, w.Type, p, want)
					continue
				}
				for _, want := range l.variants(ctx, w, p) {
					c.add(m.hive.Alias, w.Type, p, want)
				}
			}
		}
	}
	sort.Slice(c.report.Workers, func(i, j int) bool {
		a, b := &c.report.Workers[i], &c.report.Workers[j]
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.Platform, b.Platform)) < 0
	})
	c.report.Workers = slices.Compact(c.report.Workers)
}

func (c *bundleContents) add(hive, typ string, p Platform, want WorkerWant) {
	if want.Err != nil {
		c.report.Blocked = append(c.report.Blocked, operations.Blocked{Hive: hive, Worker: typ, Reason: want.Err.Error()})
		return
	}
	for i := range want.Steps {
		for _, a := range want.Steps[i].Artefacts() {
			c.artefacts[a.SHA256] = bundled{*a, want.Files[a.SHA256]}
		}
	}
	c.report.Workers = append(c.report.Workers, operations.BundleContents{
		Worker: typ, Version: want.Version, Variant: want.Variant, Platform: platformName(p.OS, p.Arch, p.Libc), Bytes: wire.Bytes(want.Steps),
	})
}

// variants is what a wish comes to with every source for a platform.
func (l *lookup) variants(ctx context.Context, w Worker, p Platform) []WorkerWant {
	recipe, ok := l.fleet.opts.Catalog.Recipe(w.Type)
	if !ok {
		return []WorkerWant{{Err: fmt.Errorf("unknown worker type '%s'", w.Type)}}
	}
	version, err := l.version(ctx, recipe, w.Version, p, l.fleet.opts.Version)
	if err != nil {
		return []WorkerWant{{Err: err}}
	}
	var all []WorkerWant
	for i := range recipe.Sources {
		s := &recipe.Sources[i]
		if !recipe.has(s, version, l.fleet.opts.Version) || !s.fitsPlatform(p) {
			continue
		}
		filled, err := s.fill(version, p, filepath.Dir(recipe.File))
		want := WorkerWant{Err: err}
		if err == nil {
			want = l.chosen(ctx, recipe, Choice{Version: version, Source: filled, index: i}, w.Version, p)
		}
		all = append(all, want)
	}
	if len(all) == 0 {
		all = append(all, WorkerWant{Err: &NoPlatformError{Type: w.Type, Version: version, Platform: p, Known: []string{"other platforms"}}})
	}
	return all
}

// write writes the tar file.
func (c *bundleContents) write(ctx context.Context, t *tar.Writer, o BundleOptions) error {
	f := c.fleet
	binaries, sums := map[string]*Binary{}, map[string]string{}
	for _, p := range c.binaries {
		if f.opts.Binaries == nil {
			break
		}
		b, err := f.opts.Binaries.Binary(ctx, p, true)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("rbee-%s-%s", p.OS, p.Arch)
		binaries[name], sums[name] = b, b.SHA256
		c.report.Platforms = append(c.report.Platforms, PlatformKey(p))
	}
	slices.Sort(c.report.Platforms)
	index, err := json.Marshal(bundleIndex{
		Form: bundleForm, Version: f.opts.Version, CreatedAt: time.Now().UTC().Truncate(time.Second),
		Lock: json.RawMessage(f.opts.Lock.whole()), Recipes: o.Recipes, Binaries: sums,
		Entries: len(binaries) + len(c.artefacts),
	})
	if err != nil {
		return err
	}
	if err := putEntry(t, bundleIndexName, int64(len(index)), bytes.NewReader(index)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(binaries)) {
		r, err := binaries[name].Open()
		if err != nil {
			return err
		}
		err = putEntry(t, bundleBinaries+name, binaries[name].Size, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	for i, sum := range slices.Sorted(maps.Keys(c.artefacts)) {
		a := c.artefacts[sum]
		f.emit(operations.Event{Type: operations.EventNote, Message: fmt.Sprintf("%d of %d: %s", i+1, len(c.artefacts), a.artefact.Name)})
		if err := c.putArtefact(ctx, t, sum, a); err != nil {
			return err
		}
	}
	return t.Close()
}

func (c *bundleContents) putArtefact(ctx context.Context, t *tar.Writer, sum string, a bundled) error {
	in, _, err := c.fleet.art.open(ctx, a.artefact, a.file, false)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	if err := putEntry(t, bundleArtefacts+sum, info.Size(), io.TeeReader(in, h)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s has SHA-256 %s, want %s", a.artefact.Name, got, sum)
	}
	return nil
}

func putEntry(t *tar.Writer, name string, size int64, content io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}
