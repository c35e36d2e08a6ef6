package artifact

import (
	"encoding/hex"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// PackedBinary is an rbee binary, compressed in memory.
type PackedBinary struct {
	Gz  []byte   // the binary, compressed with gzip
	Sum [32]byte // SHA-256 of the binary
}

// PackedBinaries compresses each binary once.
type PackedBinaries struct {
	mu   sync.Mutex
	done map[string]func() (*PackedBinary, error) // by SHA-256
}

// Get returns a binary compressed. Only the first call for a checksum reads the
// binary.
func (p *PackedBinaries) Get(b *Binary) (*PackedBinary, error) {
	p.mu.Lock()
	if p.done == nil {
		p.done = map[string]func() (*PackedBinary, error){}
	}
	do, ok := p.done[b.SHA256]
	if !ok {
		do = sync.OnceValues(func() (*PackedBinary, error) { return packBinary(b) })
		p.done[b.SHA256] = do
	}
	p.mu.Unlock()
	return do()
}

func packBinary(b *Binary) (*PackedBinary, error) {
	in, err := b.Open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out := &PackedBinary{}
	if _, err := hex.Decode(out.Sum[:], []byte(b.SHA256)); err != nil {
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
	out.Gz = buf
	return out, nil
}

type byteWriter []byte

func (b *byteWriter) Write(p []byte) (int, error) {
	*b = append(*b, p...)
	return len(p), nil
}
