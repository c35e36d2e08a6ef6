package pkgmgr

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// artefacts keeps what is pushed to hives, by SHA-256: each is fetched, hashed
// and packed once, however many hives want it.
type artefacts struct {
	dir string

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

// open opens what is sent for a pushed source. gzipped tells whether that is
// the artefact compressed: a plain file is, an archive is packed already.
func (a *artefacts) open(ctx context.Context, w WorkerWant) (f *os.File, gzipped bool, err error) {
	path := w.File
	if path == "" {
		path = filepath.Join(a.dir, w.Source.SHA256)
		if err := a.once(w.Source.SHA256, w.URL, func() error {
			return fetchFile(ctx, nil, w.URL, w.Source.SHA256, path, 0o600)
		}); err != nil {
			return nil, false, err
		}
	}
	if w.Source.Format != wire.FormatPlain {
		f, err = os.Open(path)
		return f, false, err
	}
	packed := filepath.Join(a.dir, w.Source.SHA256+".gz")
	if err := a.once(w.Source.SHA256+".gz", path, func() error { return pack(path, packed, w.Source.SHA256) }); err != nil {
		return nil, false, err
	}
	f, err = os.Open(packed)
	return f, true, err
}

// once makes a file of the cache from something unless it is there; others who
// want it wait.
func (a *artefacts) once(name, from string, make_ func() error) error {
	key := [2]string{name, from}
	a.mu.Lock()
	if a.ready == nil {
		a.ready = map[[2]string]func() error{}
	}
	do, ok := a.ready[key]
	if !ok {
		do = sync.OnceValue(func() error {
			if _, err := os.Stat(filepath.Join(a.dir, name)); err == nil {
				return nil
			}
			return make_()
		})
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
