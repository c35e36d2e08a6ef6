package artifact

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Bundle is a file that holds all that a config needs, so that it can be installed
// where there is no internet: the lock, the user's own recipes, every artifact of
// the workers, and rbee itself. It is a tar file whose first entry,
// rbee-bundle.json, tells what is in it; artifacts lie in artefacts/<SHA-256>,
// and rbee in binaries/rbee-<os>-<arch>.
type Bundle struct {
	f       *os.File
	index   BundleIndex
	entries map[string]tarEntry
}

type tarEntry struct{ offset, size int64 }

// BundleIndex is the first entry.
type BundleIndex struct {
	wire.Versioned
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
	BundleForm      = 1
	BundleSchema    = 1 // of the index
	BundleIndexName = "rbee-bundle.json"
	BundleArtifacts = "artefacts/"
	BundleBinaries  = "binaries/"

	maxBundleIndex = 64 << 20
)

// OpenBundle opens a bundle. It reads what is in it, not the contents: those are
// checked by their checksums when they are used.
func OpenBundle(path string) (_ *Bundle, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, operations.FileError(path, "opening the bundle", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = operations.FileError(path, "the bundle "+path, err)
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
			if h.Name != BundleIndexName {
				return nil, errors.New("it is none: it does not begin with " + BundleIndexName)
			}
			if err := json.NewDecoder(io.LimitReader(t, maxBundleIndex)).Decode(&b.index); err != nil {
				return nil, fmt.Errorf("its index cannot be read: %w", err)
			}
			if err := b.index.Readable("its index", BundleSchema); err != nil {
				return nil, err
			}
			if b.index.Form != BundleForm {
				return nil, fmt.Errorf("it has form %d, this rbee knows %d", b.index.Form, BundleForm)
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
func (b *Bundle) Lock(other *lockfile.Lock) (*lockfile.Lock, error) {
	return lockfile.FromBundle(b.index.Lock, other)
}

// Catalog is c with the bundle's recipes; a nil c is the built-in catalog.
func (b *Bundle) Catalog(c *catalog.Catalog) (*catalog.Catalog, error) {
	if c == nil {
		c = catalog.Builtin()
	}
	if len(b.index.Recipes) == 0 {
		return c, nil
	}
	var recipes []*catalog.Recipe
	for name, text := range b.index.Recipes {
		r, err := catalog.ParseRecipe("bundle:"+name, []byte(text))
		if err != nil {
			return nil, err
		}
		recipes = append(recipes, r)
	}
	return c.With(recipes...), nil
}

// ExtractBinaries puts the rbee of each platform into dir, checked, as
// [Binaries.Dir] wants them.
func (b *Bundle) ExtractBinaries(dir string) error {
	for name, e := range b.entries {
		file, ok := strings.CutPrefix(name, BundleBinaries)
		if !ok || !filepath.IsLocal(file) || filepath.Base(file) != file {
			continue
		}
		if err := b.copyOut(e, b.index.Binaries[file], filepath.Join(dir, file), 0o700); err != nil {
			return fmt.Errorf("unpacking %s: %w", name, err)
		}
	}
	return nil
}

// extract puts an artifact to a path, checked. It is false if there is none.
func (b *Bundle) extract(sum, path string) (bool, error) {
	e, ok := b.entries[BundleArtifacts+sum]
	if !ok {
		return false, nil
	}
	return true, b.copyOut(e, sum, path, 0o600)
}

// copyOut copies an entry to a path, if it has the right content.
func (b *Bundle) copyOut(e tarEntry, sum, path string, mode fs.FileMode) error {
	return atomicfile.Write(path, mode, func(w io.Writer) error {
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
