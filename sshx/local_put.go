package sshx

import (
	"compress/gzip"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Put works like [Client.Put]. It syncs the content to disk before it renames the file.
func (l *Local) Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error {
	if err := l.put(ctx, path, mode, gz, sum); err != nil {
		return l.opError(ctx, "put "+path, err)
	}
	return nil
}

func (l *Local) put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) (err error) {
	target, _, err := putPaths(path)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		dir, err := l.dir()
		if err != nil {
			return err
		}
		target = filepath.Join(dir, target)
	}
	if info, err := os.Stat(target); err == nil && info.IsDir() {
		return fmt.Errorf("%s: is a directory", target)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		return err
	}
	base := strings.ReplaceAll(filepath.Base(target), "*", "_")
	f, err := os.CreateTemp(filepath.Dir(target), "."+base[:min(len(base), 200)]+".*.tmp")
	if err != nil {
		return err
	}
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	plain, err := gzip.NewReader(&contextReader{ctx, gz})
	if err != nil {
		return err
	}
	digest := sha256.New()
	if _, err := io.Copy(io.MultiWriter(f, digest), plain); err != nil { //nolint:gosec // the caller provides the content
		return err
	}
	if got := [32]byte(digest.Sum(nil)); got != sum {
		return fmt.Errorf("%w: got %x, want %x", ErrChecksum, got, sum)
	}
	if err := f.Chmod(mode.Perm()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return os.Rename(f.Name(), target)
}

// contextReader returns an error when its context has ended.
type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
