package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
)

// Sum returns the SHA-256 of a file in hex. It stops when ctx is done.
func Sum(ctx context.Context, path string) (string, error) {
	sum, _, err := hashPath(path, func(f io.Reader) io.Reader { return &ctxReader{ctx, f} })
	return sum, err
}

// HashFile returns the SHA-256 of a file in hex, and the size of the file in bytes.
func HashFile(path string) (sum string, size int64, err error) {
	return hashPath(path, func(f io.Reader) io.Reader { return f })
}

// hashPath implements [HashFile] with a wrapper for the file's reader.
func hashPath(path string, reader func(io.Reader) io.Reader) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, reader(f)); err != nil {
		return "", 0, err
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// ctxReader is a reader that fails when its context is done.
type ctxReader struct {
	ctx context.Context // of a single copy operation
	r   io.Reader
}

func (c *ctxReader) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
