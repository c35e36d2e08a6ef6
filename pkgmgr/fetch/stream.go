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
	// streamTries bounds how often a download is gone on with that is cut off again
	// and again.
	streamTries = 10

	// maxDownload bounds a download whose size nobody has told, in bytes.
	maxDownload = 64 << 30

	// streamBuffer is the size of the reads of a stream, in bytes.
	streamBuffer = 256 << 10
)

// File is a file to download.
type File struct {
	// URL is the address of the content.
	URL string

	// Path is where the file appears once it is complete and has its checksum.
	Path string

	// Mode is the file's; 0 is 0o600.
	Mode fs.FileMode

	// Sum is the checksum in hex: SHA-256, or that of NewHash if that is not nil. It may
	// only be empty for [Client.DownloadTo].
	Sum     string
	NewHash func() hash.Hash

	// Size is the exact number of bytes; 0 if it is not known. Limit is how many bytes
	// the file has at most if Size is 0; 0 is 64 GiB.
	Size, Limit int64

	// SkipSync says that the caller brings the file to disk.
	SkipSync bool

	// Progress, if not nil, is told how many bytes of the file are there more than
	// before. What an earlier download brought counts; what is thrown away is negative.
	// [Client.DownloadFiles] calls it from several goroutines.
	Progress func(n int64)

	// Name is what [Client.DownloadFiles] calls the file in errors; empty is its address.
	Name string

	// Prefix, if not empty, is a file of another program that may hold the beginning of
	// the content, which [Client.DownloadFiles] takes over. PrefixLock is what that
	// program locks while it writes it.
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

// stream is a file while it is downloaded from its beginning to its end.
type stream struct {
	*File
	f     *os.File
	sum   string // that it must have; empty if nobody knows
	limit int64  // bytes

	hash    hash.Hash
	size    int64  // bytes that are there, which hash has seen
	stamp   string // tells the server's file from another one under its address; may be empty
	joined  bool   // it is of more than one answer
	changed bool   // the last answer was of another file than the one before
}

func newStream(file *File, to *os.File) *stream {
	limit := cmp.Or(max(file.Size, 0), max(file.Limit, 0), maxDownload)
	return &stream{File: file, f: to, sum: strings.ToLower(file.Sum), limit: limit, hash: file.newHash()}
}

// load takes in what the file holds already.
func (p *stream) load() error {
	n, err := io.Copy(p.hash, p.f)
	if err != nil || n > p.limit {
		return errors.Join(err, p.reset())
	}
	p.size, p.joined = n, n > 0
	p.progress(n)
	return nil
}

// digest is the checksum of what is there, in hex.
func (p *stream) digest() string { return hex.EncodeToString(p.hash.Sum(nil)) }

// reset begins anew.
func (p *stream) reset() error {
	p.progress(-p.size)
	p.hash, p.size, p.stamp, p.joined, p.changed = p.newHash(), 0, "", false, false
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

// readAll takes in the rest of the file, and checks all of it.
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

// continues reports whether an answer goes on where the file ends.
func (p *stream) continues(h http.Header) bool {
	stamp := stampOf(h)
	return p.size > 0 && strings.HasPrefix(h.Get("Content-Range"), fmt.Sprintf("bytes %d-", p.size)) && (stamp == "" || p.stamp == "" || stamp == p.stamp)
}

// DownloadTo downloads a file into to, and goes on with what is there; the file's path
// does not count. It returns the checksum and the size. One that is cut off is gone on
// with as long as that brings more; one that was put together and turns out to be
// another one is begun anew.
func (f *Client) DownloadTo(ctx context.Context, file File, to *os.File) (sum string, n int64, err error) {
	p := newStream(&file, to)
	if err := p.load(); err != nil {
		return "", 0, err
	}
	if p.sum != "" && p.digest() == p.sum {
		return p.sum, p.size, nil
	}
	_, err = backoff.Retry(ctx, func() (struct{}, error) {
		again, err := f.extend(ctx, p)
		if ctx.Err() != nil || !again || IsDiskFull(err) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	}, backoff.WithBackOff(&backoff.ZeroBackOff{}), backoff.WithMaxTries(streamTries), backoff.WithMaxElapsedTime(0))
	if err != nil {
		return "", 0, &downloadError{err}
	}
	return p.digest(), p.size, nil
}

// extend downloads what is missing, in one request, and reports whether another one may
// bring more.
func (f *Client) extend(ctx context.Context, p *stream) (again bool, err error) {
	before := p.size
	err = f.piece(ctx, p)
	again = p.size > before || p.changed
	var mismatch *MismatchError
	var short *SizeError
	switch {
	case errors.As(err, &mismatch):
		again = p.joined
		err = errors.Join(err, p.reset())
	case errors.As(err, &short):
		again = false
		err = errors.Join(err, p.reset())
	}
	return again, err
}

// piece downloads what is missing, in one request.
func (f *Client) piece(ctx context.Context, p *stream) error {
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
	return f.Get(ctx, cmp.Or(f.Verb, "fetching"), p.URL, header, func(resp *http.Response, r io.Reader) error {
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
			return &MismatchError{}
		default:
			return f.ResponseError(resp)
		}
		return p.readAll(r)
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

// Download downloads a file. It appears at its path, complete, once the content has its
// checksum. What has come of one that fails waits beside it for the next try, in this run
// or another; without it, or where another run is at it, all of the file is downloaded.
func (f *Client) Download(ctx context.Context, file File) error {
	return file.receive(func(to *os.File) error {
		_, _, err := f.DownloadTo(ctx, file, to)
		return err
	})
}

// Save is [Client.Download] with content that comes from a reader, of which nothing is
// kept if it is cut off. The file's URL does not count.
func Save(r io.Reader, file File) error {
	return file.receive(func(to *os.File) error {
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

// receive lets fill bring what is missing of the file, and puts it in its place.
func (f *File) receive(fill func(*os.File) error) error {
	part, unlock, err := openPart(f.Path + PartSuffix)
	if errors.Is(err, ErrBusy) {
		return atomicfile.WriteFile(f.Path, f.mode(), fill)
	}
	if err != nil {
		return err
	}
	defer unlock() // once it has its name, or is closed
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
