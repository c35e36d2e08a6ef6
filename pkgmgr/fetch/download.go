package fetch

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

const (
	// fetchTries bounds how often a download is gone on with that is cut off again
	// and again.
	fetchTries = 10

	// maxDownload bounds a download whose size nobody has told, in bytes.
	maxDownload = 64 << 30
)

// partial is a file while it is downloaded.
type partial struct {
	f     *os.File
	sum   string // that it must have; empty if nobody knows
	limit int64  // bytes

	hash    hash.Hash
	size    int64  // bytes that are there, which hash has seen
	stamp   string // tells the server's file from another one under its address; may be empty
	joined  bool   // it is of more than one answer
	changed bool   // the last answer was of another file than the one before
}

// load takes in what the file holds already.
func (p *partial) load() error {
	n, err := io.Copy(p.hash, p.f)
	if err != nil || n > p.limit {
		return errors.Join(err, p.reset())
	}
	p.size, p.joined = n, n > 0
	return nil
}

// digest is the SHA-256 of what is there, in hex.
func (p *partial) digest() string { return hex.EncodeToString(p.hash.Sum(nil)) }

// reset begins anew.
func (p *partial) reset() error {
	p.hash, p.size, p.stamp, p.joined, p.changed = sha256.New(), 0, "", false, false
	_, err := p.f.Seek(0, io.SeekStart)
	return errors.Join(err, p.f.Truncate(0))
}

// Write implements [io.Writer].
func (p *partial) Write(data []byte) (int, error) {
	if p.size+int64(len(data)) > p.limit {
		return 0, fmt.Errorf("%w: more than %d bytes come", ErrMismatch, p.limit)
	}
	n, err := p.f.Write(data)
	p.hash.Write(data[:n])
	p.size += int64(n)
	return n, err
}

// continues reports whether an answer goes on where the file ends.
func (p *partial) continues(h http.Header) bool {
	stamp := stampOf(h)
	return p.size > 0 && strings.HasPrefix(h.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size)) && (stamp == "" || p.stamp == "" || stamp == p.stamp)
}

// ErrMismatch is a download whose content is another one than was promised.
var ErrMismatch error = mismatchError{}

type mismatchError struct{}

func (mismatchError) Error() string { return "it is not what was promised" }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (mismatchError) ErrorCode() string { return string(operations.ReasonChecksum) }

// DownloadTo downloads from an address into to, and goes on with what is there. want is the
// SHA-256 that it must have, and size how many bytes it has at most; empty, with an
// empty file, and 0 if that is not known. One that is cut off is gone on with as long
// as that brings more; one that was put together and turns out to be another one is
// begun anew.
func (f *Client) DownloadTo(ctx context.Context, from, want string, size int64, to *os.File) (sum string, n int64, err error) {
	p := &partial{f: to, sum: want, limit: cmp.Or(max(size, 0), maxDownload), hash: sha256.New()}
	if err := p.load(); err != nil {
		return "", 0, err
	}
	if want != "" && p.digest() == want {
		return want, p.size, nil
	}
	for try := 1; ; try++ {
		before := p.size
		err := f.piece(ctx, from, p)
		if err == nil {
			return p.digest(), p.size, nil
		}
		again := p.size > before || p.changed
		if errors.Is(err, ErrMismatch) {
			again = p.joined
			err = errors.Join(err, p.reset())
		}
		if ctx.Err() != nil || !again || try == fetchTries {
			return "", 0, err
		}
	}
}

// piece downloads what is missing, in one request.
func (f *Client) piece(ctx context.Context, from string, p *partial) error {
	if p.sum == "" && p.stamp == "" {
		// Nothing would tell that the rest is of another file.
		if err := p.reset(); err != nil {
			return err
		}
	}
	header := http.Header{}
	if p.size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
	}
	if p.size > 0 && p.stamp != "" {
		header.Set("If-Range", p.stamp)
	}
	return f.Get(ctx, "fetching", from, header, func(resp *http.Response, r io.Reader) error {
		switch {
		case resp.StatusCode == http.StatusPartialContent && p.continues(resp.Header):
			p.joined, p.changed = true, false
		case resp.StatusCode == http.StatusOK:
			was, now := p.stamp, stampOf(resp.Header)
			if err := p.reset(); err != nil {
				return err
			}
			p.stamp, p.changed = now, was != "" && was != now
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.size > 0:
			p.joined = true
			return fmt.Errorf("%w: what came before is no beginning of it", ErrMismatch)
		default:
			return f.StatusError(resp)
		}
		if _, err := io.Copy(p, r); err != nil {
			return err
		}
		if got := p.digest(); p.sum != "" && got != p.sum {
			return fmt.Errorf("%w: its SHA-256 is %s, want %s", ErrMismatch, got, p.sum)
		}
		return nil
	})
}

// stampOf is what a server tells a file from others by, if it can be relied on:
// https://www.rfc-editor.org/rfc/rfc9110#name-if-range
func stampOf(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

// Download downloads from an address to path, which is only there, whole, once the
// content has the checksum sum. size is as for [Client.DownloadTo]. What has come of one
// that fails waits beside it for the next try, in this run or another.
func (f *Client) Download(ctx context.Context, from, sum string, size int64, path string, mode fs.FileMode) error {
	part, err := openPart(path + ".part")
	if errors.Is(err, ErrBusy) {
		return writeAtomically(path, mode, func(to *os.File) error {
			_, _, err := f.DownloadTo(ctx, from, sum, size, to)
			return err
		})
	}
	if err != nil {
		return err
	}
	if _, _, err = f.DownloadTo(ctx, from, sum, size, part); err == nil {
		return place(part, path, mode)
	}
	if info, statErr := part.Stat(); statErr != nil || info.Size() == 0 || errors.Is(err, syscall.ENOSPC) {
		_ = os.Remove(part.Name())
	}
	_ = part.Close()
	return err
}

// PartTTL is how long what has come of a download waits for the next try.
const PartTTL = 7 * 24 * time.Hour

// RemoveStale removes from a directory of downloads what nobody has added to since a
// time, and nobody is at. What is whole stays. It is a courtesy, and its failure
// changes nothing.
func RemoveStale(dir string, since time.Time) {
	files, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, file := range files {
		name := file.Name()
		unfinished := strings.HasSuffix(name, ".part") || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "new-")
		if !unfinished || !file.Type().IsRegular() {
			continue
		}
		info, err := file.Info()
		if err != nil || info.ModTime().After(since) {
			continue
		}
		if f, err := openPart(filepath.Join(dir, name)); err == nil {
			_ = os.Remove(f.Name())
			_ = f.Close()
		}
	}
}

// ErrBusy is a part that another run is at.
var ErrBusy = errors.New("another run downloads it")

// openPart opens what has come of a download, for this run alone. Where the file
// system has no locks, nothing tells who is at it, and nothing is kept.
func openPart(path string) (*os.File, error) { return openPartBy(path, syscall.Flock) }

// openPartBy is openPart with the call that locks.
func openPartBy(path string, flock func(fd, how int) error) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	// The run that had it may have put it in its place by now.
	if err := flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil || !isAt(f, path) {
		if hasNoLocks(err) {
			_ = os.Remove(path)
		}
		_ = f.Close()
		return nil, ErrBusy
	}
	return f, nil
}
