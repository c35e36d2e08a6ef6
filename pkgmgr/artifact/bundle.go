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

// Bundle is a file for installs without internet access. It contains the lockfile, the user's
// recipes, all artifacts of the workers of a config, and rbee itself. It is a tar file whose
// first entry, rbee-bundle.json, is a [BundleIndex]. Artifacts are stored as
// artefacts/<SHA-256>, and rbee binaries as binaries/rbee-<os>-<arch>.
type Bundle struct {
	f       *os.File
	index   BundleIndex
	entries map[string]tarEntry
}

type tarEntry struct{ offset, size int64 }

// BundleIndex is the content of the first entry of a bundle.
type BundleIndex struct {
	wire.Versioned
	Format    int               `json:"bundle"` // the version of the file format
	Version   string            `json:"rbee_version"`
	CreatedAt time.Time         `json:"created_at"`
	Lock      json.RawMessage   `json:"lock"`
	Recipes   map[string]string `json:"recipes,omitempty"` // the text of the user's recipes, by file name
	Binaries  map[string]string `json:"binaries"`          // the SHA-256 of each rbee binary, by file name
	Entries   int               `json:"entries"`           // the number of entries after the index
}

// Versions, names and limits of the bundle format.
const (
	BundleFormat    = 1 // version of the file format
	BundleSchema    = 1 // schema of the index
	BundleIndexName = "rbee-bundle.json"
	BundleArtifacts = "artefacts/"
	BundleBinaries  = "binaries/"

	maxBundleIndex = 64 << 20 // bytes
)

// OpenBundle opens a bundle and reads its index and the headers of its entries. The contents
// of entries are verified when they are used.
func OpenBundle(path string) (_ *Bundle, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, operations.FileError(path, "cannot open the bundle", err)
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			err = operations.FileError(path, "cannot open the bundle "+path, err)
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
			return nil, fmt.Errorf("not a bundle, or damaged: %w", err)
		}
		if first {
			if h.Name != BundleIndexName {
				return nil, errors.New("not a bundle: the first entry is not " + BundleIndexName)
			}
			if err := json.NewDecoder(io.LimitReader(t, maxBundleIndex)).Decode(&b.index); err != nil {
				return nil, fmt.Errorf("invalid index: %w", err)
			}
			if err := b.index.CheckReadable("its index", BundleSchema); err != nil {
				return nil, err
			}
			if b.index.Format != BundleFormat {
				return nil, fmt.Errorf("unknown bundle format %d: this rbee supports format %d", b.index.Format, BundleFormat)
			}
			continue
		}
		offset, err := f.Seek(0, io.SeekCurrent) // the start of the content: t has read only the header
		if err != nil {
			return nil, err
		}
		b.entries[h.Name] = tarEntry{offset, h.Size}
	}
	switch {
	case b.index.Format == 0:
		return nil, errors.New("the file is empty")
	case len(b.entries) != b.index.Entries:
		return nil, fmt.Errorf("truncated: found %d of %d files", len(b.entries), b.index.Entries)
	}
	return b, nil
}

// Close closes the file of the bundle.
func (b *Bundle) Close() error { return b.f.Close() }

// Lock returns other with the entries of the bundle's lockfile. They replace the entries of other
// for the same version constraints. The result has the pins of other.
func (b *Bundle) Lock(other *lockfile.Lock) (*lockfile.Lock, error) {
	return lockfile.FromBundle(b.index.Lock, other)
}

// Catalog returns c with the recipes of the bundle. A nil c means the built-in catalog.
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

// ExtractBinaries writes the rbee binaries of all platforms to dir, which can be used as
// [Binaries.Dir], and verifies their checksums.
func (b *Bundle) ExtractBinaries(dir string) error {
	for name, e := range b.entries {
		file, ok := strings.CutPrefix(name, BundleBinaries)
		if !ok || !filepath.IsLocal(file) || filepath.Base(file) != file {
			continue
		}
		if err := b.extractEntry(e, b.index.Binaries[file], filepath.Join(dir, file), 0o700); err != nil {
			return fmt.Errorf("cannot extract %s: %w", name, err)
		}
	}
	return nil
}

// extract writes an artifact to path and verifies its checksum. It returns false if the
// bundle does not contain the artifact.
func (b *Bundle) extract(sum, path string) (found bool, err error) {
	e, ok := b.entries[BundleArtifacts+sum]
	if !ok {
		return false, nil
	}
	return true, b.extractEntry(e, sum, path, 0o600)
}

// extractEntry writes an entry to path. It returns an error if the content does not have the
// checksum sum.
func (b *Bundle) extractEntry(e tarEntry, sum, path string, mode fs.FileMode) error {
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
