package pkgmgr

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// fetchStall is how long a server may send nothing before it is given up.
const fetchStall = 60 * time.Second

// shown is an address as it may be printed: without a query or a password, which
// may be secret.
func shown(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "an address that is none"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// withoutAddress is an error of net/http without the address that it repeats, or the
// reason why the request was ended.
func withoutAddress(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var in *url.Error
	if errors.As(err, &in) {
		return in.Err
	}
	return err
}

// alive puts a timer off whenever something is written.
type alive struct{ t *time.Timer }

func (a alive) Write(p []byte) (int, error) {
	a.t.Reset(fetchStall)
	return len(p), nil
}

// download writes what an address answers to w.
func download(ctx context.Context, client *http.Client, from string, w io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(fetchStall, func() { cancel(fmt.Errorf("nothing came for %s", fetchStall)) })
	defer stall.Stop()
	if client == nil {
		client = http.DefaultClient
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", shown(from), withoutAddress(ctx, err))
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fetching %s: %w", shown(from), withoutAddress(ctx, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("fetching %s: the server answers %s", shown(from), resp.Status)
	}
	if _, err := io.Copy(io.MultiWriter(w, alive{stall}), resp.Body); err != nil {
		return fmt.Errorf("fetching %s: %w", shown(from), withoutAddress(ctx, err))
	}
	return nil
}

// fetchFile downloads from an address to path, which is only there, whole, once the content
// has the checksum sum.
func fetchFile(ctx context.Context, client *http.Client, from, sum, path string, mode fs.FileMode) error {
	return writeWhole(path, mode, func(w io.Writer) error {
		h := sha256.New()
		if err := download(ctx, client, from, io.MultiWriter(w, h)); err != nil {
			return err
		}
		if got := hex.EncodeToString(h.Sum(nil)); got != sum {
			return fmt.Errorf("fetching %s: its SHA-256 is %s, want %s", shown(from), got, sum)
		}
		return nil
	})
}

// writeWhole makes path with what write writes: the file is the old one or the
// new one, never a part. Its directory is made where it is missing.
func writeWhole(path string, mode fs.FileMode, write func(io.Writer) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tmp.Close()
			_ = os.Remove(tmp.Name())
		}
	}()
	if err := write(tmp); err != nil {
		return err
	}
	if err := tmp.Chmod(mode); err != nil {
		return err
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	if err := tmp.Close(); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), path)
}
