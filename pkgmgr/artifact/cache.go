// Package artifact provides the files that an install sends to a machine: rbee binaries,
// artifacts of workers from the local cache, and the contents of a bundle.
package artifact

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Cache stores artifacts for hives by SHA-256. Each artifact is downloaded, hashed and
// compressed only once, even if several hives need it.
type Cache struct {
	dir    string
	client *fetch.Client
	bundle *Bundle // used instead of downloads; may be nil

	mu      sync.Mutex
	sums    map[string]sumEntry      // by path
	entries map[[2]string]*cacheFile // by file name in dir and source
	cleanup sync.Once                // removal of stale files of earlier runs
}

// NewCache returns a cache in the directory dir, which may not exist yet. The cache gets
// missing artifacts from the bundle or, if bundle is nil, with the client.
func NewCache(dir string, client *fetch.Client, bundle *Bundle) *Cache {
	return &Cache{dir: dir, client: client, bundle: bundle}
}

// cacheFile is the state of a file in the cache.
type cacheFile struct {
	mu       sync.Mutex
	ready    bool
	failures int
	err      error // of the last attempt
}

// maxCreateAttempts is the maximum number of attempts to create a cache file in one run.
const maxCreateAttempts = 3

type sumEntry struct {
	sum  string
	size int64
	err  error
}

// Sum returns the SHA-256 and size of a local file. want is the checksum in the recipe; if
// want is not empty and the file has another checksum, Sum returns an error.
func (c *Cache) Sum(path, want string) (sum string, size int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.sums[path]
	if !ok {
		e.sum, e.size, e.err = fetch.HashFile(path)
		if c.sums == nil {
			c.sums = map[string]sumEntry{}
		}
		c.sums[path] = e
	}
	if e.err == nil && want != "" && e.sum != want {
		return "", 0, fmt.Errorf("%s has SHA-256 %s, but the recipe has %s", path, e.sum, want)
	}
	return e.sum, e.size, e.err
}

// Open opens an artifact. file is the path of the artifact on this machine; if it is empty,
// Open gets the artifact from the cache, the bundle or its URL. If compress is true, f
// contains the artifact compressed with gzip, and gzipped is true.
func (c *Cache) Open(ctx context.Context, want wire.Artifact, file string, compress bool) (f *os.File, gzipped bool, err error) {
	path := file
	if path == "" {
		if path, err = c.fetch(ctx, want); err != nil {
			return nil, false, err
		}
	}
	if !compress {
		f, err = os.Open(path)
		return f, false, err
	}
	compressed := filepath.Join(c.dir, want.SHA256+".gz")
	if err := c.create(ctx, want.SHA256+".gz", path, func() error {
		// A damaged file must be replaced, because every hive would reject it.
		if decompressesTo(compressed, want.SHA256) {
			return nil
		}
		return compressFile(path, compressed, want.SHA256)
	}); err != nil {
		return nil, false, err
	}
	f, err = os.Open(compressed)
	return f, true, err
}

// fetch adds an artifact to the cache unless the cache already has it, and returns its path.
func (c *Cache) fetch(ctx context.Context, want wire.Artifact) (path string, err error) {
	c.removeStale()
	path = filepath.Join(c.dir, want.SHA256)
	return path, c.create(ctx, want.SHA256, want.URL, func() error {
		// A damaged file must be replaced, because every hive would reject it.
		if sum, _, err := fetch.HashFile(path); err == nil && sum == want.SHA256 {
			return nil
		}
		if c.bundle != nil {
			if found, err := c.bundle.extract(want.SHA256, path); found || err != nil {
				return err
			}
			return &NoOriginError{Name: want.Name, Bundle: true}
		}
		if want.URL == "" {
			return &NoOriginError{Name: want.Name}
		}
		return c.client.Download(ctx, fetch.File{URL: want.URL, Sum: want.SHA256, Limit: want.Size, Path: path})
	})
}

// NoOriginError reports an artifact that this machine does not have and cannot download,
// such as a file that a recipe on another machine refers to.
type NoOriginError struct {
	Name   string // of the file
	Bundle bool   // whether the cache uses a bundle, which does not contain the file
}

// Error implements error.
func (e *NoOriginError) Error() string {
	if e.Bundle {
		return fmt.Sprintf("the bundle does not contain %s", e.Name)
	}
	return fmt.Sprintf("cannot download %s: no URL", e.Name)
}

// ErrorCode returns the reason as a string, for [operations.ReasonOf].
func (e *NoOriginError) ErrorCode() string { return string(operations.ReasonNotFound) }

// Download downloads a file with an unknown checksum into the cache and returns its checksum
// and size. expectedSize is the expected size in bytes; 0 if unknown.
func (c *Cache) Download(ctx context.Context, url string, expectedSize int64) (sum string, size int64, err error) {
	c.removeStale()
	temp := filepath.Join(c.dir, "new-"+rand.Text())
	if err := atomicfile.WriteFile(temp, 0o600, func(to *os.File) (err error) {
		sum, size, err = c.client.DownloadTo(ctx, fetch.File{URL: url, Limit: expectedSize}, to)
		return err
	}); err != nil {
		return "", 0, err
	}
	defer os.Remove(temp)
	return sum, size, os.Rename(temp, filepath.Join(c.dir, sum))
}

// removeStale removes stale files of earlier runs. Only the first call has an effect.
func (c *Cache) removeStale() {
	c.cleanup.Do(func() { fetch.RemoveStale(c.dir, time.Now().Add(-fetch.PartTTL)) })
}

// create calls createFile to create the file with the given name from source, unless an
// earlier call has succeeded. Concurrent calls for the same file wait for each other. If
// createFile fails, the next call tries again, up to maxCreateAttempts. A
// singleflight.Group does not work here: callers have different contexts, and canceling one
// must not fail the others.
func (c *Cache) create(ctx context.Context, name, source string, createFile func() error) error {
	key := [2]string{name, source}
	c.mu.Lock()
	if c.entries == nil {
		c.entries = map[[2]string]*cacheFile{}
	}
	f := c.entries[key]
	if f == nil {
		f = &cacheFile{}
		c.entries[key] = f
	}
	c.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready || f.failures >= maxCreateAttempts {
		return f.err
	}
	f.err = createFile()
	if f.ready = f.err == nil; !f.ready && ctx.Err() == nil {
		f.failures++
	}
	return f.err
}

// decompressesTo reports whether path is a gzip file whose content has the checksum sum.
func decompressesTo(path, sum string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	gz, err := gzip.NewReader(f)
	if err != nil {
		return false
	}
	h := sha256.New()
	_, err = io.Copy(h, gz)
	return err == nil && hex.EncodeToString(h.Sum(nil)) == sum
}

// compressFile compresses the file from into the file to. It returns an error if the content
// does not have the checksum want: the user may have changed a local file after it was
// hashed.
func compressFile(from, to, want string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return atomicfile.Write(to, 0o600, func(w io.Writer) error {
		gz, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
		if err != nil {
			return err
		}
		h := sha256.New()
		_, err = io.Copy(io.MultiWriter(gz, h), in)
		if err = errors.Join(err, gz.Close()); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != want {
			return fmt.Errorf("%s changed while it was read", from)
		}
		return nil
	})
}
