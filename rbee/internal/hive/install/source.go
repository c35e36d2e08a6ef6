package install

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/installed"
)

const (
	connectTimeout = 30 * time.Second
	stallTimeout   = 60 * time.Second // without a byte
)

// errStalled is a transfer in which nothing came for so long.
type errStalled struct{ limit time.Duration }

func (e errStalled) Error() string { return fmt.Sprintf("no byte came for %s", e.limit) }

func (in *Installer) stallLimit() time.Duration { return cmp.Or(in.stall, stallTimeout) }

func checkStep(step *wire.InstallStep, of int) error {
	if step.Into != "" && !filepath.IsLocal(filepath.FromSlash(step.Into)) {
		return fmt.Errorf("%q is no path inside the payload", step.Into)
	}
	switch step.Kind {
	case wire.StepBuiltin:
		if !installed.ValidName(step.Builtin) || of > 1 {
			return fmt.Errorf("%q is no worker inside rbee", step.Builtin)
		}
		return nil
	case wire.StepFile, wire.StepArchive:
		if step.Artefact == nil {
			return fmt.Errorf("the step %s names no artefact", step.Kind)
		}
	case wire.StepPython:
		if step.Python == nil {
			return errors.New("the python step names no packages")
		}
		for _, t := range []wire.Tool{step.Python.UV, step.Python.Interpreter} {
			if !installed.ValidName(t.Name) || !installed.ValidName(t.Version) || !filepath.IsLocal(filepath.FromSlash(t.Entry)) {
				return fmt.Errorf("the tool %s %s has no right name", t.Name, t.Version)
			}
			if err := checkFormat(t.Format, t.Strip); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("unknown kind of install step %q", step.Kind)
	}
	for _, a := range step.Artefacts() {
		if err := checkArtefact(a); err != nil {
			return err
		}
	}
	if step.Kind == wire.StepArchive {
		return checkFormat(step.Format, step.Strip)
	}
	return nil
}

func checkFormat(f wire.Format, strip int) error {
	switch f {
	case wire.FormatTarGz, wire.FormatTarZst, wire.FormatZip:
	default:
		return fmt.Errorf("unknown format %q", f)
	}
	if strip < 0 {
		return fmt.Errorf("%d directories cannot be left out", strip)
	}
	return nil
}

func checkArtefact(a *wire.Artefact) error {
	if sum, err := hex.DecodeString(a.SHA256); err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%s has SHA-256 %q, want 64 hex digits", a.Name, a.SHA256)
	}
	if !plainName(a.Name) {
		return fmt.Errorf("%q is no name for an artefact", a.Name)
	}
	if a.URL == "" {
		return nil
	}
	u, err := url.Parse(a.URL)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return fmt.Errorf("the URL of %s is not one of http or https", a.Name)
	}
	return nil
}

func plainName(name string) bool {
	return filepath.IsLocal(name) && filepath.Base(name) == name && name != "."
}

// downloadsAtOnce is how many artefacts of one step are downloaded at a time.
const downloadsAtOnce = 4

// get makes artefacts be in the download directory, each checked, and gives their
// paths. What is there already, of an install that did not end well, counts.
func (st *stage) get(ctx context.Context, artefacts ...*wire.Artefact) (paths []string, err error) {
	if err := os.MkdirAll(st.Home.Path(wire.DownloadDir), 0o700); err != nil {
		return nil, err
	}
	paths = make([]string, len(artefacts))
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError().WithMaxGoroutines(downloadsAtOnce)
	for i, a := range artefacts {
		paths[i] = filepath.Join(st.Home.Path(wire.DownloadDir), strings.ToLower(a.SHA256))
		st.used = append(st.used, paths[i])
		if a.URL != "" {
			p.Go(func(ctx context.Context) error { return st.download(ctx, a, paths[i]) })
		}
	}
	err = p.Wait()
	for i, a := range artefacts {
		if a.URL == "" && err == nil {
			err = st.take(a, paths[i]) // over the one connection, one after the other
		}
	}
	st.cut = err != nil
	return paths, err
}

// have reports whether an artefact is there, with the right content.
func (st *stage) have(a *wire.Artefact, path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	sum, size, err := home.HashFile(path)
	if err != nil || size != info.Size() || !equalHex(sum, a.SHA256) {
		_ = os.Remove(path)
		return false
	}
	st.arrived(size)
	return true
}

// take asks the other side for an artefact and stores it. The other side may have
// to fetch it first, which takes as long as it takes and shows no sign of life; once
// it sends it does not pause.
func (st *stage) take(a *wire.Artefact, path string) error {
	if st.have(a, path) {
		return nil
	}
	st.send(wire.Message{Need: &wire.Need{Index: st.index, SHA256: a.SHA256}})
	defer st.heartbeat.Pause()()
	in := &stallReader{r: st.in, limit: st.stallLimit(), stalled: st.giveUp}
	defer in.stop()
	blob, err := wire.NewBlobReader(in)
	if err != nil {
		return fmt.Errorf("receiving %s: %w", a.Name, err)
	}
	_ = os.Remove(path + partSuffix)
	err = st.store(blob, a, path, 0, sha256.New(), nil)
	// Whatever went wrong, the next blob begins only after this one's end.
	if closeErr := blob.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		_ = os.Remove(path + partSuffix) // it cannot be gone on with
		return fmt.Errorf("receiving %s: %w", a.Name, err)
	}
	return nil
}

// stallReader calls stalled when no byte has come for a limit, from the first one
// until stop. It is for one goroutine.
type stallReader struct {
	r       io.Reader
	limit   time.Duration
	stalled func(error)
	timer   *time.Timer // nil before the first byte
}

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	switch {
	case n == 0:
	case s.timer == nil:
		s.timer = time.AfterFunc(s.limit, func() { s.stalled(errStalled{s.limit}) })
	default:
		s.timer.Reset(s.limit)
	}
	return n, err
}

func (s *stallReader) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// partSuffix marks what has arrived of an artefact.
const partSuffix = ".part"

// downloadTries bounds how often a download is gone on with that is cut off again
// and again.
const downloadTries = 10

// errOther is an artefact whose content is another one than was promised.
var errOther = otherContentError{}

type otherContentError struct{}

func (otherContentError) Error() string { return "it is not what was promised" }

// ErrorCode returns the reason as text, for [operations.ReasonOf].
func (otherContentError) ErrorCode() string { return string(operations.ReasonChecksum) }

// download fetches an artefact and stores it, going on with what an earlier try
// has brought. One that is cut off is gone on with as long as that brings more; one
// that was gone on with and turns out to be another one is begun anew.
func (st *stage) download(ctx context.Context, a *wire.Artefact, path string) error {
	if st.have(a, path) {
		return nil
	}
	for try := 1; ; try++ {
		before := fileSize(path + partSuffix)
		err := st.fetch(ctx, a, path)
		more := fileSize(path+partSuffix) > before || before > 0 && errors.Is(err, errOther)
		if err == nil || ctx.Err() != nil || errors.Is(err, syscall.ENOSPC) || !more || try == downloadTries {
			return err
		}
	}
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// fetch is one try of a download.
func (st *stage) fetch(ctx context.Context, a *wire.Artefact, path string) (err error) {
	u, err := url.Parse(a.URL)
	if err != nil {
		return fmt.Errorf("the URL of %s cannot be read", a.Name)
	}
	shown := (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String() // a query may be secret
	var counted int64
	defer func() {
		if err != nil {
			st.arrived(-counted) // the next try counts anew
			err = fmt.Errorf("downloading %s: %w", shown, err)
		}
	}()
	arrived := func(n int64) { counted += n; st.arrived(n) }
	hash := sha256.New()
	have := hashPart(path+partSuffix, hash) // which takes a slow disk minutes
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := st.stallLimit()
	stalled := time.AfterFunc(limit, func() { cancel(errStalled{limit}) })
	defer stalled.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, a.URL, http.NoBody)
	if err != nil {
		return errors.New("the URL cannot be asked for")
	}
	req.Header.Set("User-Agent", "rbee/"+st.Store.Version)
	if have > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", have))
	}
	resp, err := st.client().Do(req)
	if err != nil {
		return stripURL(ctx, err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusPartialContent && have > 0 && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", have)):
		arrived(have)
	case resp.StatusCode == http.StatusOK:
		have = 0
		hash.Reset()
	case resp.StatusCode == http.StatusRequestedRangeNotSatisfiable && have > 0:
		_ = os.Remove(path + partSuffix)
		return fmt.Errorf("%w: what an earlier try brought is no beginning of it", errOther)
	default:
		return fmt.Errorf("the server answered %s", resp.Status)
	}
	err = st.store(resp.Body, a, path, have, hash, func(n int) {
		stalled.Reset(limit)
		arrived(int64(n))
	})
	return stripURL(ctx, err)
}

// hashPart hashes what is there of an artefact, and gives how much that is.
func hashPart(path string, h hash.Hash) int64 {
	f, err := os.Open(path)
	if err != nil {
		return 0
	}
	defer f.Close()
	n, err := io.Copy(h, f)
	if err != nil {
		h.Reset()
		return 0
	}
	return n
}

// client is how artefacts are downloaded.
func (in *Installer) client() *http.Client {
	if in.HTTP != nil {
		return in.HTTP
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

// store writes r to path, after the have bytes that are there and that h has seen,
// and checks all of it. Whatever is not right is removed. arrived, if not nil, is
// told of every piece.
func (in *Installer) store(r io.Reader, a *wire.Artefact, path string, have int64, sum hash.Hash, arrived func(n int)) (err error) {
	part := path + partSuffix
	flags := os.O_CREATE | os.O_WRONLY | os.O_APPEND
	if have == 0 {
		flags |= os.O_TRUNC
	}
	f, err := os.OpenFile(part, flags, 0o600)
	if err != nil {
		return err
	}
	limit := a.Size
	if limit <= 0 {
		limit = have + int64(min(home.DiskFree(path), 1<<61))
	}
	to := io.MultiWriter(f, sum, tell(arrived))
	size, err := io.CopyBuffer(to, struct{ io.Reader }{io.LimitReader(r, limit-have+1)}, make([]byte, 256<<10))
	size += have
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	got := hex.EncodeToString(sum.Sum(nil))
	switch {
	case size > limit && a.Size > 0:
		err = fmt.Errorf("%w: more than %d bytes came", errOther, a.Size)
	case size > limit:
		err = fmt.Errorf("it does not fit on the disk: more than %s", home.SizeText(uint64(limit))) //nolint:gosec // not negative
	case a.Size > 0 && size != a.Size:
		err = fmt.Errorf("%d bytes came, want %d", size, a.Size)
	case !equalHex(got, a.SHA256):
		err = fmt.Errorf("%w: SHA-256 %s, want %s", errOther, got, a.SHA256)
	default:
		return os.Rename(part, path)
	}
	_ = os.Remove(part)
	return err
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
