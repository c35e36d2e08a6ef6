package pkgmgr

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// artefacts keeps what is pushed to hives, by SHA-256: each is fetched, hashed
// and packed once, however many hives want it.
type artefacts struct {
	dir    string
	client *http.Client // nil is the default one
	bundle *Bundle      // has artefacts too; nil for none

	mu    sync.Mutex
	sums  map[string]sumEntry        // by path
	ready map[[2]string]func() error // by file name in dir, and what it is made from
}

type sumEntry struct {
	sum  string
	size int64
	err  error
}

// sum gives the SHA-256 and size of a file on this machine. want, if not empty,
// is what the recipe says the sum is.
func (a *artefacts) sum(path, want string) (sum string, size int64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	e, ok := a.sums[path]
	if !ok {
		e.sum, e.size, e.err = hashFile(path)
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

// open opens an artefact: file, if it is one on this machine already, or what its
// address gives. gzipped tells whether what is read is the artefact compressed,
// which it is if compress is true.
func (a *artefacts) open(ctx context.Context, want wire.Artefact, file string, compress bool) (f *os.File, gzipped bool, err error) {
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
	if err := a.once(want.SHA256+".gz", path, func() error {
		if _, err := os.Stat(packed); err == nil {
			return nil
		}
		return pack(path, packed, want.SHA256)
	}); err != nil {
		return nil, false, err
	}
	f, err = os.Open(packed)
	return f, true, err
}

// fetch makes an artefact be in the cache.
func (a *artefacts) fetch(ctx context.Context, want wire.Artefact) (path string, err error) {
	path = filepath.Join(a.dir, want.SHA256)
	return path, a.once(want.SHA256, want.URL, func() error {
		// A cache that a disk has damaged would fail at every hive, for ever.
		if sum, _, err := hashFile(path); err == nil && sum == want.SHA256 {
			return nil
		}
		if a.bundle != nil {
			if found, err := a.bundle.extract(want.SHA256, path); found || err != nil {
				return err
			}
			return fmt.Errorf("the bundle does not hold %s", want.Name)
		}
		if want.URL == "" {
			return fmt.Errorf("nobody knows where %s comes from", want.Name)
		}
		return fetchFile(ctx, a.client, want.URL, want.SHA256, path, 0o600)
	})
}

// learn fetches something into the cache, whatever it is, or whose checksum is
// sum if that is not empty.
func (a *artefacts) learn(ctx context.Context, client *http.Client, from, sum string) (got string, size int64, err error) {
	temp := filepath.Join(a.dir, "new-"+rand.Text())
	h := sha256.New()
	if err := writeWhole(temp, 0o600, func(w io.Writer) error {
		return download(ctx, client, from, io.MultiWriter(w, h))
	}); err != nil {
		return "", 0, err
	}
	defer os.Remove(temp)
	got = hex.EncodeToString(h.Sum(nil))
	if sum != "" && got != sum {
		return "", 0, fmt.Errorf("fetching %s: its SHA-256 is %s, want %s", shown(from), got, sum)
	}
	info, err := os.Stat(temp)
	if err != nil {
		return "", 0, err
	}
	return got, info.Size(), os.Rename(temp, filepath.Join(a.dir, got))
}

// once has a file of the cache made from something, or found to be there; others
// who want it wait.
func (a *artefacts) once(name, from string, make_ func() error) error {
	key := [2]string{name, from}
	a.mu.Lock()
	if a.ready == nil {
		a.ready = map[[2]string]func() error{}
	}
	do, ok := a.ready[key]
	if !ok {
		do = sync.OnceValue(make_)
		a.ready[key] = do
	}
	a.mu.Unlock()
	return do()
}

// pack compresses a file that must have the checksum want: a file of the user's
// may have changed since it was hashed, and the cache must not keep that.
func pack(from, to, want string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeWhole(to, 0o600, func(w io.Writer) error {
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

// packedBinary is an rbee binary, compressed in memory.
type packedBinary struct {
	gz  []byte
	sum [32]byte
}

// packedBinaries compresses each binary once.
type packedBinaries struct {
	mu   sync.Mutex
	done map[string]func() (*packedBinary, error) // by SHA-256
}

func (p *packedBinaries) get(b *Binary) (*packedBinary, error) {
	p.mu.Lock()
	if p.done == nil {
		p.done = map[string]func() (*packedBinary, error){}
	}
	do, ok := p.done[b.SHA256]
	if !ok {
		do = sync.OnceValues(func() (*packedBinary, error) { return packBinary(b) })
		p.done[b.SHA256] = do
	}
	p.mu.Unlock()
	return do()
}

func packBinary(b *Binary) (*packedBinary, error) {
	in, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out := &packedBinary{}
	if _, err := hex.Decode(out.sum[:], []byte(b.SHA256)); err != nil {
		return nil, fmt.Errorf("the checksum of the binary: %w", err)
	}
	buf := byteWriter{}
	gz, err := gzip.NewWriterLevel(&buf, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := io.Copy(gz, in); err != nil {
		return nil, err
	}
	if err := gz.Close(); err != nil {
		return nil, err
	}
	out.gz = buf
	return out, nil
}

type byteWriter []byte

func (b *byteWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
