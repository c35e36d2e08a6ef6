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
	"strings"
	"syscall"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

const (
	// maxStreamAttempts is the maximum number of requests for one download that is
	// interrupted repeatedly.
	maxStreamAttempts = 10

	// maxDownload is the maximum size of a file of unknown size, in bytes.
	maxDownload = 64 << 30

	// streamBuffer is the size of the reads of a stream, in bytes.
	streamBuffer = 256 << 10
)

// File is a file to download.
type File struct {
	// URL is the URL of the content.
	URL string

	// Path is the path at which the file appears once it is complete and verified.
	Path string

	// Mode is the mode of the file; 0 means 0o600.
	Mode fs.FileMode

	// Sum is the checksum in hex. NewHash returns its hash function; nil means SHA-256.
	// Sum may be empty only for [Client.DownloadTo].
	Sum     string
	NewHash func() hash.Hash

	// Size is the exact size in bytes; 0 if unknown. If Size is 0, Limit is the maximum
	// size in bytes; 0 means 64 GiB.
	Size, Limit int64

	// SkipSync skips syncing the file to disk.
	SkipSync bool

	// Progress, if not nil, is called with the number of additional bytes of the file
	// that are available. The first call includes the data of an earlier download. The
	// number is negative if data is discarded. [Client.DownloadFiles] calls Progress
	// from several goroutines.
	Progress func(n int64)

	// Name is the name of the file in the errors of [Client.DownloadFiles]; empty means
	// its URL.
	Name string

	// Prefix, if not empty, is the incomplete download of another program, which
	// [Client.DownloadFiles] continues. PrefixLock is the file that the other program
	// locks while it writes to Prefix.
	Prefix, PrefixLock string
}

func (f *File) mode() fs.FileMode { return cmp.Or(f.Mode, 0o600) }

func (f *File) name() string { return cmp.Or(f.Name, RedactURL(f.URL)) }

func (f *File) newHash() hash.Hash {
	if f.NewHash != nil {
		return f.NewHash()
	}
	return sha256.New()
}

func (f *File) progress(n int64) {
	if f.Progress != nil && n != 0 {
		f.Progress(n)
	}
}

// stream is a file that is being downloaded sequentially.
type stream struct {
	*File
	f     *os.File
	sum   string // expected checksum; empty if unknown
	limit int64  // maximum size in bytes

	hash    hash.Hash // of the received bytes
	size    int64     // number of received bytes
	etag    string    // strong ETag of the content; may be empty
	resumed bool      // the data consists of several responses
	changed bool      // the last response had another ETag than the one before
}

func newStream(file *File, to *os.File) *stream {
	limit := cmp.Or(max(file.Size, 0), max(file.Limit, 0), maxDownload)
	return &stream{File: file, f: to, sum: strings.ToLower(file.Sum), limit: limit, hash: file.newHash()}
}

// readExisting reads the data that the file already has.
func (p *stream) readExisting() error {
	n, err := io.Copy(p.hash, p.f)
	if err != nil || n > p.limit {
		return errors.Join(err, p.reset())
	}
	p.size, p.resumed = n, n > 0
	p.progress(n)
	return nil
}

// digest returns the checksum of the received data, in hex.
func (p *stream) digest() string { return hex.EncodeToString(p.hash.Sum(nil)) }

// reset discards the received data.
func (p *stream) reset() error {
	p.progress(-p.size)
	p.hash, p.size, p.etag, p.resumed, p.changed = p.newHash(), 0, "", false, false
	_, err := p.f.Seek(0, io.SeekStart)
	return errors.Join(err, p.f.Truncate(0))
}

// Write implements [io.Writer].
func (p *stream) Write(data []byte) (int, error) {
	if p.size+int64(len(data)) > p.limit {
		return 0, &MismatchError{Limit: p.limit}
	}
	n, err := p.f.Write(data)
	p.hash.Write(data[:n])
	p.size += int64(n)
	p.progress(int64(n))
	return n, err
}

// readAll reads the rest of the file from r and verifies the complete file.
func (p *stream) readAll(r io.Reader) error {
	if _, err := io.CopyBuffer(struct{ io.Writer }{p}, struct{ io.Reader }{r}, make([]byte, streamBuffer)); err != nil {
		return err
	}
	if p.Size > 0 && p.size != p.Size {
		return &SizeError{Got: p.size, Want: p.Size}
	}
	if got := p.digest(); p.sum != "" && got != p.sum {
		return &MismatchError{Got: got, Want: p.sum}
	}
	return nil
}

// continues reports whether a partial response continues at the end of the received data.
func (p *stream) continues(h http.Header) bool {
	etag := strongETag(h)
	return p.size > 0 && strings.HasPrefix(h.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size)) && (etag == "" || p.etag == "" || etag == p.etag)
}

// DownloadTo downloads a file into to, resumes from the data that to already has, and returns
// the checksum and the size of the file. It ignores file.Path. It resumes an interrupted
// download as long as each request returns more data. If the file consists of several
// responses and its checksum is wrong, it downloads the complete file again.
func (c *Client) DownloadTo(ctx context.Context, file File, to *os.File) (sum string, n int64, err error) {
	p := newStream(&file, to)
	if err := p.readExisting(); err != nil {
		return "", 0, err
	}
	if p.sum != "" && p.digest() == p.sum {
		return p.sum, p.size, nil
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		retry, err := c.fetchRest(ctx, p)
		if ctx.Err() != nil || !retry || IsDiskFull(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ZeroBackOff{}), backoff.WithMaxTries(maxStreamAttempts), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return "", 0, &downloadError{err}
	}
	return p.digest(), p.size, nil
}

// fetchRest requests the rest of the file once, and reports whether to retry after an error.
func (c *Client) fetchRest(ctx context.Context, p *stream) (retry bool, err error) {
	before := p.size
	err = c.requestRest(ctx, p)
	retry = p.size > before || p.changed
	var mismatch *MismatchError
	var short *SizeError
	switch {
	case errors.As(err, &mismatch):
		retry = p.resumed
		err = errors.Join(err, p.reset())
	case errors.As(err, &short):
		retry = false
		err = errors.Join(err, p.reset())
	}
	return retry, err
}

// requestRest sends one request for the rest of the file.
func (c *Client) requestRest(ctx context.Context, p *stream) error {
	if p.sum == "" && p.etag == "" {
		// A changed file could not be detected.
		if err := p.reset(); err != nil {
			return err
		}
	}
	header := http.Header{}
	if p.size > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", p.size))
	}
	if p.size > 0 && p.etag != "" {
		header.Set("If-Range", p.etag)
	}
	return c.Get(ctx, cmp.Or(c.ErrorVerb, "fetch"), p.URL, header, func(resp *http.Response, r io.Reader) error {
		switch {
		case resp.StatusCode == http.StatusPartialContent && p.continues(resp.Header):
			p.resumed, p.changed = true, false
		case resp.StatusCode == http.StatusOK:
			oldTag, newTag := p.etag, strongETag(resp.Header)
			if err := p.reset(); err != nil {
				return err
			}
			p.etag, p.changed = newTag, oldTag != "" && oldTag != newTag
		case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && p.size > 0:
			p.resumed = true
			return &MismatchError{}
		default:
			return c.ResponseError(resp)
		}
		return p.readAll(r)
	})
}

// strongETag returns the ETag of a response, or an empty string if it is weak. If-Range
// requires a strong one: https://www.rfc-editor.org/rfc/rfc9110#name-if-range
func strongETag(h http.Header) string {
	if tag := h.Get("ETag"); tag != "" && !strings.HasPrefix(tag, "W/") {
		return tag
	}
	return ""
}

// Download downloads a file. The file appears at its path once it is complete and verified.
// If the download fails, the received data remains in a file with the suffix [PartSuffix],
// and the next call resumes from it. If another process is using that file, Download
// downloads the complete file separately.
func (c *Client) Download(ctx context.Context, file File) error {
	return file.store(func(to *os.File) error {
		_, _, err := c.DownloadTo(ctx, file, to)
		return err
	})
}

// Save works like [Client.Download] with content from a reader. It keeps no data if reading
// fails, and ignores file.URL.
func Save(r io.Reader, file File) error {
	return file.store(func(to *os.File) error {
		p := newStream(&file, to)
		if err := p.reset(); err != nil {
			return err
		}
		if err := p.readAll(r); err != nil {
			return errors.Join(err, p.reset())
		}
		return nil
	})
}

// store opens the file's part, calls fill to complete it, and renames it to the file's path.
func (f *File) store(fill func(*os.File) error) error {
	part, unlock, err := openPart(f.Path + PartSuffix)
	if errors.Is(err, ErrBusy) {
		return atomicfile.WriteFile(f.Path, f.mode(), fill)
	}
	if err != nil {
		return err
	}
	defer unlock() // after the part is closed and renamed
	err = fill(part)
	info, statErr := part.Stat()
	if err == nil {
		err = part.Chmod(f.mode())
	}
	if err == nil && !f.SkipSync {
		err = part.Sync()
	}
	err = errors.Join(err, part.Close())
	if err == nil {
		return os.Rename(part.Name(), f.Path)
	}
	if statErr != nil || info.Size() == 0 || errors.Is(err, syscall.ENOSPC) {
		_ = os.Remove(part.Name())
	}
	return err
}
