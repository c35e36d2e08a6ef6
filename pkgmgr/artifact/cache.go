// Package artifact provides the files that an install sends to a machine: builds of rbee
// for each platform, files of workers from the local cache, and the contents of a bundle.
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

// Cache keeps what is pushed to hives, by SHA-256: each is fetched, hashed
// and packed once, however many hives want it.
type Cache struct {
	dir    string
	client *fetch.Client
	bundle *Bundle // has artifacts too; nil for none

	mu    sync.Mutex
	sums  map[string]sumEntry   // by path
	ready map[[2]string]*making // by file name in dir, and what it is made from
	swept sync.Once             // what earlier runs left there
}

// NewCache returns a cache in a directory, which need not exist yet. The client
// downloads what the cache does not have; a bundle, if not nil, has artifacts too.
func NewCache(dir string, client *fetch.Client, bundle *Bundle) *Cache {
	return &Cache{dir: dir, client: client, bundle: bundle}
}

// making is a file of the cache that is made, or found to be there.
type making struct {
	mu    sync.Mutex
	done  bool
	fails int
	err   error // of the last time
}

// makeTries is how often in one run something is tried that hives want.
const makeTries = 3

type sumEntry struct {
	sum  string
	size int64
	err  error
}

// Sum gives the SHA-256 and size of a file on this machine. want, if not empty,
// is what the recipe says the sum is.
func (a *Cache) Sum(path, want string) (sum string, size int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.sums[path]
	if !ok {
		e.sum, e.size, e.err = fetch.HashFile(path)
		if a.sums == nil {
			a.sums = map[string]sumEntry{}
		}
		a.sums[path] = e
	}
	if e.err == nil && want != "" && e.sum != want {
		return "", 0, fmt.Errorf("%s has SHA-256 %s, the recipe says %s", path, e.sum, want)
	}
	return e.sum, e.size, e.err
}

// Open opens an artifact: file, if it is one on this machine already, or what its
// address gives. gzipped tells whether what is read is the artifact compressed,
// which it is if compress is true.
func (a *Cache) Open(ctx context.Context, want wire.Artifact, file string, compress bool) (f *os.File, gzipped bool, err error) {
	path := file
	if path == "" {
		if path, err = a.fetch(ctx, want); err != nil {
			return nil, false, err
		}
	}
	if !compress {
		f, err = os.Open(path)
		return f, false, err
	}
	packed := filepath.Join(a.dir, want.SHA256+".gz")
	if err := a.once(ctx, want.SHA256+".gz", path, func() error {
		// As below: a file that a disk has damaged would fail at every hive, for ever.
		if unpacksTo(packed, want.SHA256) {
			return nil
		}
		return pack(path, packed, want.SHA256)
	}); err != nil {
		return nil, false, err
	}
	f, err = os.Open(packed)
	return f, true, err
}

// fetch makes an artifact be in the cache.
func (a *Cache) fetch(ctx context.Context, want wire.Artifact) (path string, err error) {
	a.sweep()
	path = filepath.Join(a.dir, want.SHA256)
	return path, a.once(ctx, want.SHA256, want.URL, func() error {
		// A cache that a disk has damaged would fail at every hive, for ever.
		if sum, _, err := fetch.HashFile(path); err == nil && sum == want.SHA256 {
			return nil
		}
		if a.bundle != nil {
			if found, err := a.bundle.extract(want.SHA256, path); found || err != nil {
				return err
			}
			return &NoOriginError{Name: want.Name, Bundle: true}
		}
		if want.URL == "" {
			return &NoOriginError{Name: want.Name}
		}
		return a.client.Download(ctx, fetch.File{URL: want.URL, Sum: want.SHA256, Limit: want.Size, Path: path})
	})
}

// NoOriginError reports an artifact that this machine does not have and cannot download,
// such as the file of a recipe that another machine has.
type NoOriginError struct {
	Name   string // of the file
	Bundle bool   // whether the cache uses a bundle, which does not contain it
}

// Error implements error.
func (e *NoOriginError) Error() string {
	if e.Bundle {
		return fmt.Sprintf("the bundle does not hold %s", e.Name)
	}
	return fmt.Sprintf("nobody knows where %s comes from", e.Name)
}

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (e *NoOriginError) ErrorCode() string { return string(operations.ReasonNotFound) }

// Learn fetches something into the cache, whatever it is; size is how much that is,
// 0 if nobody knows.
func (a *Cache) Learn(ctx context.Context, from string, size int64) (sum string, got int64, err error) {
	a.sweep()
	temp := filepath.Join(a.dir, "new-"+rand.Text())
	if err := atomicfile.WriteFile(temp, 0o600, func(to *os.File) (err error) {
		sum, got, err = a.client.DownloadTo(ctx, fetch.File{URL: from, Limit: size}, to)
		return err
	}); err != nil {
		return "", 0, err
	}
	defer os.Remove(temp)
	return sum, got, os.Rename(temp, filepath.Join(a.dir, sum))
}

// sweep frees what runs of long ago left in the cache, before it is first added to.
func (a *Cache) sweep() {
	a.swept.Do(func() { fetch.RemoveStale(a.dir, time.Now().Add(-fetch.PartTTL)) })
}

// once has a file of the cache made from something, or found to be there; others
// who want it wait. One that could not be made is tried again by the next who wants
// it, but not for ever. It is no singleflight.Group, because each caller has a context of
// its own: the end of one must not fail the others.
func (a *Cache) once(ctx context.Context, name, from string, make_ func() error) error {
	key := [2]string{name, from}
	a.mu.Lock()
	if a.ready == nil {
		a.ready = map[[2]string]*making{}
	}
	m := a.ready[key]
	if m == nil {
		m = &making{}
		a.ready[key] = m
	}
	a.mu.Unlock()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.done || m.fails >= makeTries {
		return m.err
	}
	m.err = make_()
	if m.done = m.err == nil; !m.done && ctx.Err() == nil {
		m.fails++
	}
	return m.err
}

// unpacksTo reports whether a compressed file is there and holds what has the
// checksum sum.
func unpacksTo(path, sum string) bool {
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

// pack compresses a file that must have the checksum want: a file of the user's
// may have changed since it was hashed, and the cache must not keep that.
func pack(from, to, want string) error {
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
