package artifact

import (
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// CompressedBinary is a compressed rbee binary in memory.
type CompressedBinary struct {
	Gz  []byte   // the binary, compressed with gzip
	Sum [32]byte // SHA-256 of the binary
}

// CompressedBinaries caches compressed binaries. The zero value is an empty cache.
type CompressedBinaries struct {
	mu      sync.Mutex
	entries map[string]func() (*CompressedBinary, error) // by SHA-256
}

// Get returns the compressed form of a binary. Only the first call for each checksum reads
// the binary.
func (c *CompressedBinaries) Get(b *Binary) (*CompressedBinary, error) {
	c.mu.Lock()
	if c.entries == nil {
		c.entries = map[string]func() (*CompressedBinary, error){}
	}
	get, ok := c.entries[b.SHA256]
	if !ok {
		get = sync.OnceValues(func() (*CompressedBinary, error) { return compressBinary(b) })
		c.entries[b.SHA256] = get
	}
	c.mu.Unlock()
	return get()
}

func compressBinary(b *Binary) (*CompressedBinary, error) {
	in, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out := &CompressedBinary{}
	if _, err := hex.Decode(out.Sum[:], []byte(b.SHA256)); err != nil {
		return nil, fmt.Errorf("invalid checksum %q of the binary: %w", b.SHA256, err)
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
	out.Gz = buf
	return out, nil
}

type byteWriter []byte

func (b *byteWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
