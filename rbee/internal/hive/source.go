package hive

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const (
	connectTimeout = 30 * time.Second
	stallTimeout   = 60 * time.Second // without a byte
	progressEvery  = 200 * time.Millisecond
)

func checkSource(src wire.Source) error {
	if sum, err := hex.DecodeString(src.SHA256); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("the source has SHA-256 %q, want 64 hex digits", src.SHA256)
	}
	if src.Kind == wire.SourceURL {
		u, err := url.Parse(src.URL)
		if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
			return errors.New("the source's URL is not one of http or https")
		}
	}
	switch src.Format {
	case wire.FormatPlain:
		if src.Entry != "" && !plainName(src.Entry) {
			return fmt.Errorf("%q is no name for a program", src.Entry)
		}
		return nil
	case wire.FormatTarGz, wire.FormatTarZst, wire.FormatZip:
		if !filepath.IsLocal(src.Entry) {
			return fmt.Errorf("the program %q is no path inside the archive", src.Entry)
		}
		return nil
	default:
		return fmt.Errorf("unknown format %q", src.Format)
	}
}

func plainName(name string) bool {
	return filepath.IsLocal(name) && filepath.Base(name) == name && name != "."
}

// stageArtefact gets the artefact, checks it, and only then unpacks it.
func (s *session) stageArtefact(ctx context.Context, index int, staged string, m *Manifest) error {
	src := m.Source
	if err := s.checkSpace(src); err != nil {
		return err
	}
	artefact := filepath.Join(staged, "artefact")
	var err error
	if src.Kind == wire.SourceURL {
		m.Size, err = s.download(ctx, index, src, artefact)
	} else {
		m.Size, err = s.take(index, src, artefact)
	}
	if err != nil {
		return err
	}
	s.reach("received")
	payload := filepath.Join(staged, payloadDir)
	if src.Format == wire.FormatPlain {
		if m.Entry = src.Entry; m.Entry == "" {
			m.Entry = wire.EntryPrefix + m.Type
		}
		m.Files = []File{{Path: m.Entry, Size: m.Size, SHA256: m.SHA256, Mode: modeProgram}}
		return os.Rename(artefact, filepath.Join(payload, m.Entry))
	}
	m.Entry = filepath.ToSlash(filepath.Clean(src.Entry))
	if m.Files, err = unpack(ctx, artefact, src.Format, payload, int64(min(diskFree(staged), 1<<62))); err != nil { //nolint:gosec // bounded
		return fmt.Errorf("unpacking: %w", err)
	}
	return os.Remove(artefact)
}

func (h *Hive) checkSpace(src wire.Source) error {
	needed := uint64(max(src.Size, 0)) //nolint:gosec // not negative
	if src.Format != wire.FormatPlain {
		needed *= 2 // the archive and, at the very least, as much again
	}
	if free := diskFree(h.Home); free > 0 && free < needed {
		return fmt.Errorf("not enough disk: %s free at %s, at least %s needed", sizeText(free), h.Home, sizeText(needed))
	}
	return nil
}

// take asks the other side for the artefact of a step and stores it.
func (s *session) take(index int, src wire.Source, path string) (int64, error) {
	s.send(wire.Message{Need: &wire.Need{Index: index}})
	blob, err := wire.NewBlobReader(s.in)
	if err != nil {
		return 0, fmt.Errorf("receiving the artefact: %w", err)
	}
	size, err := s.store(blob, src, path, nil)
	// Whatever went wrong, the next blob begins only after this one's end.
	if closeErr := blob.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return 0, fmt.Errorf("receiving the artefact: %w", err)
	}
	return size, nil
}

// download fetches the artefact of a step and stores it.
func (s *session) download(ctx context.Context, index int, src wire.Source, path string) (size int64, err error) {
	u, err := url.Parse(src.URL)
	if err != nil {
		return 0, errors.New("the source's URL cannot be read")
	}
	shown := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() // a query may be secret
	defer func() {
		if err != nil {
			err = fmt.Errorf("downloading %s: %w", shown, err)
		}
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stalled := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("no byte came for %s", stallTimeout)) })
	defer stalled.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, http.NoBody)
	if err != nil {
		return 0, errors.New("the URL cannot be asked for")
	}
	req.Header.Set("User-Agent", "rbee/"+s.Version)
	resp, err := s.client().Do(req)
	if err != nil {
		return 0, stripURL(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the server answered %s", resp.Status)
	}
	var done int64
	var told time.Time
	total := max(src.Size, resp.ContentLength, 0)
	size, err = s.store(resp.Body, src, path, func(n int) {
		stalled.Reset(stallTimeout)
		done += int64(n)
		if time.Since(told) >= progressEvery {
			told = time.Now()
			s.send(wire.Message{Progress: &wire.Progress{Index: index, Bytes: done, Total: total}})
		}
	})
	if err != nil {
		return 0, stripURL(ctx, err)
	}
	s.send(wire.Message{Progress: &wire.Progress{Index: index, Bytes: size, Total: size}})
	return size, nil
}

// client is how artefacts are downloaded.
func (h *Hive) client() *http.Client {
	if h.HTTP != nil {
		return h.HTTP
	}
	return &http.Client{Transport: &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connectTimeout}).DialContext,
		TLSHandshakeTimeout:   connectTimeout,
		ResponseHeaderTimeout: stallTimeout,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true, // the sum is that of the bytes as they lie there
		DisableKeepAlives:     true,
	}}
}

// stripURL leaves out the URL that net/http adds, and says why ctx ended.
func stripURL(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// store writes r to path and checks it against the source. arrived, if not nil,
// is told of every piece.
func (h *Hive) store(r io.Reader, src wire.Source, path string, arrived func(n int)) (size int64, err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // in the staging directory
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	limit := src.Size
	if limit <= 0 {
		limit = int64(min(diskFree(path), 1<<62)) //nolint:gosec // bounded
	}
	hash := sha256.New()
	to := io.MultiWriter(f, hash, tell(arrived))
	size, err = io.CopyBuffer(to, struct{ io.Reader }{io.LimitReader(r, limit+1)}, make([]byte, 256<<10))
	sum := hex.EncodeToString(hash.Sum(nil))
	switch want := src.SHA256; {
	case err != nil:
		return 0, err
	case size > limit && src.Size > 0:
		return 0, fmt.Errorf("more than the %d bytes that were promised came", src.Size)
	case size > limit:
		return 0, fmt.Errorf("it does not fit on the disk: more than %s", sizeText(uint64(limit))) //nolint:gosec // not negative
	case src.Size > 0 && size != src.Size:
		return 0, fmt.Errorf("%d bytes came, want %d", size, src.Size)
	case !equalHex(sum, want):
		return 0, fmt.Errorf("the artefact has SHA-256 %s, want %s", sum, want)
	}
	return size, nil
}

func equalHex(a, b string) bool {
	x, errX := hex.DecodeString(a)
	y, errY := hex.DecodeString(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// tell is a writer that only counts; a nil func counts for nobody.
type tell func(n int)

func (t tell) Write(p []byte) (int, error) {
	if t != nil {
		t(len(p))
	}
	return len(p), nil
}
