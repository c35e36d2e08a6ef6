package hive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Names beside versions in the directory of a worker type.
const (
	stagingPrefix = ".staging-" // a version that is being made
	asidePrefix   = ".aside-"   // a version that is being replaced
	payloadDir    = "payload"   // where a version's files lie
)

func isNoSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, errTooBig)
}

// installWorker makes a worker type be there in one version: staged beside its
// place, moved there whole, and only then made the one that the entry point
// names.
func (a *applier) installWorker(ctx context.Context, index int, w *wire.WorkerInstall) (note string, err error) {
	if !versionPattern.MatchString(w.Version) {
		return "", fmt.Errorf("%q is no valid version", w.Version)
	}
	h := a.hive
	if w.Source.Kind == wire.SourceBuiltin {
		own := h.installed(false)
		if own == nil {
			return "", errors.New("rbee itself is not installed here")
		}
		w.Source.SHA256, w.Source.Size = own.SHA256, 0
	}
	if !w.Force && h.has(w) {
		return "was there already", nil
	}
	if free := diskFree(h.Home); free > 0 && w.Source.Size > 0 && uint64(w.Source.Size) > free {
		return "", noSpace(syscall.ENOSPC, h.Home, w.Source.Size)
	}
	types := h.path(wire.WorkersDir + "/" + w.Type)
	if err := os.MkdirAll(types, 0o755); err != nil {
		return "", err
	}
	staging, err := os.MkdirTemp(types, stagingPrefix)
	if err != nil {
		return "", noSpace(err, h.Home, w.Source.Size)
	}
	defer func() {
		_ = os.RemoveAll(staging)
		_ = os.Remove(types) // where nothing else is in it
	}()
	if err := a.stage(ctx, index, w, staging); err != nil {
		return "", noSpace(err, h.Home, w.Source.Size)
	}
	if err := place(staging, filepath.Join(types, w.Version)); err != nil {
		return "", err
	}
	var m manifest
	if err := readJSON(filepath.Join(types, w.Version, manifestFile), &m); err != nil {
		return "", err
	}
	if err := h.point(w.Type, w.Version, m.Entry); err != nil {
		return "", err
	}
	h.removeOtherVersions(types, w.Version)
	return "", nil
}

// has tells whether a worker is installed as asked, whole as far as a glance tells.
func (h *Hive) has(w *wire.WorkerInstall) bool {
	have := h.worker(w.Type, false)
	return exists(h.path(wire.WorkersDir+"/"+wire.EntryPrefix+w.Type)) && !have.Foreign && have.Corrupt == "" &&
		have.Version == w.Version && have.SHA256 == w.Source.SHA256 && have.Requested == w.Requested
}

// stage makes a whole version in the directory staging.
func (a *applier) stage(ctx context.Context, index int, w *wire.WorkerInstall, staging string) error {
	payload := filepath.Join(staging, payloadDir)
	if err := os.Mkdir(payload, 0o755); err != nil {
		return err
	}
	entry, err := a.fill(ctx, index, w, staging, payload)
	if err != nil {
		return err
	}
	info, err := os.Stat(filepath.Join(payload, filepath.FromSlash(entry)))
	if err != nil || !info.Mode().IsRegular() {
		return fmt.Errorf("the archive has no file %q to start", entry)
	}
	if info.Mode()&0o111 == 0 {
		if err := os.Chmod(filepath.Join(payload, filepath.FromSlash(entry)), 0o755); err != nil {
			return err
		}
	}
	m := manifest{
		Type: w.Type, Version: w.Version, Requested: w.Requested, Source: w.Source, SHA256: w.Source.SHA256,
		InstalledAt: now(), Entry: payloadDir + "/" + entry,
	}
	if m.Files, m.Bytes, err = listFiles(staging); err != nil {
		return err
	}
	if err := os.Chmod(staging, 0o755); err != nil {
		return err
	}
	return writeJSON(filepath.Join(staging, manifestFile), 0o644, m)
}

// fill puts the files of a worker into payload and returns the entry point.
func (a *applier) fill(ctx context.Context, index int, w *wire.WorkerInstall, staging, payload string) (entry string, err error) {
	src := w.Source
	if src.Kind == wire.SourceBuiltin {
		entry = wire.EntryPrefix + w.Type
		if !typePattern.MatchString(src.Builtin) {
			return "", fmt.Errorf("%q is no server inside rbee", src.Builtin)
		}
		if src.Builtin != w.Type {
			entry = wire.EntryPrefix + src.Builtin
		}
		return entry, linkOrCopy(a.hive.path(wire.Binary), filepath.Join(payload, entry))
	}
	artefact := filepath.Join(staging, "artefact")
	if err := a.fetch(ctx, index, src, artefact); err != nil {
		return "", err
	}
	if src.Format == wire.FormatPlain {
		entry = wire.EntryPrefix + w.Type
		return entry, os.Rename(artefact, filepath.Join(payload, entry))
	}
	if entry, err = inside(src.Entry); err != nil {
		return "", fmt.Errorf("the entry point %q: %w", src.Entry, err)
	}
	limit := int64(math.MaxInt64 - 1)
	if free := diskFree(staging); free > 0 && free < math.MaxInt64 {
		limit = int64(free)
	}
	if err := unpack(artefact, payload, src.Format, limit); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", context.Cause(ctx)
	}
	return entry, os.Remove(artefact)
}

func linkOrCopy(from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// fetch writes an artefact to path and checks its sum before anybody uses it.
func (a *applier) fetch(ctx context.Context, index int, src wire.Source, path string) (err error) {
	var body io.ReadCloser
	switch src.Kind {
	case wire.SourcePush:
		if err := a.out.Write(wire.Message{Need: &wire.Need{Index: index}}); err != nil {
			return err
		}
		if body, err = wire.NewBlobReader(a.in); err != nil {
			return a.gone(ctx, err)
		}
	case wire.SourceURL:
		if body, err = a.download(ctx, index, src); err != nil {
			return err
		}
	default:
		return fmt.Errorf("this rbee does not know the source %q", src.Kind)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return errors.Join(err, body.Close())
	}
	sum := newHash()
	_, err = io.Copy(io.MultiWriter(f, sum), body)
	err = errors.Join(err, f.Close())
	// Even after a failed write the rest is read, so that the next artefact on
	// the stream is found at its beginning.
	if closing := body.Close(); err == nil {
		err = closing
	}
	if err != nil {
		return fmt.Errorf("receiving the artefact: %w", a.gone(ctx, err))
	}
	if got := sum.hex(); got != src.SHA256 {
		return fmt.Errorf("the artefact has SHA-256 %s, the recipe says %s: it is not used", got, src.SHA256)
	}
	return nil
}

// gone gives the reason why the run was stopped in the place of what that led to.
func (a *applier) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// Limits of downloads.
const (
	connectTimeout = 30 * time.Second
	stallTimeout   = 60 * time.Second
	progressEvery  = 200 * time.Millisecond
)

// download opens a URL as a body that fails when nothing comes for too long,
// and that says how far it is.
func (a *applier) download(ctx context.Context, index int, src wire.Source) (io.ReadCloser, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	client := &http.Client{Transport: &http.Transport{
		Proxy:       http.ProxyFromEnvironment,
		DialContext: (&net.Dialer{Timeout: connectTimeout}).DialContext, TLSHandshakeTimeout: connectTimeout,
		ResponseHeaderTimeout: stallTimeout, DisableCompression: true, ForceAttemptHTTP2: true,
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, nil)
	if err != nil {
		cancel(nil)
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("downloading: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		cancel(nil)
		return nil, errors.Join(fmt.Errorf("downloading %s: the server answers %s", src.URL, resp.Status), resp.Body.Close())
	}
	b := &downloadBody{body: resp.Body, cancel: cancel, ctx: ctx, progress: func(n int64) {
		_ = a.out.Write(wire.Message{Progress: &wire.Progress{Index: index, Bytes: n, Total: max(resp.ContentLength, 0)}})
	}}
	b.stall = time.AfterFunc(stallTimeout, func() {
		cancel(fmt.Errorf("downloading %s: nothing came for %s", src.URL, stallTimeout))
	})
	return b, nil
}

type downloadBody struct {
	body     io.ReadCloser
	ctx      context.Context //nolint:containedctx // it is the download's own, and ends with it
	cancel   context.CancelCauseFunc
	stall    *time.Timer
	n        int64
	last     time.Time
	progress func(n int64)
}

func (d *downloadBody) Read(p []byte) (int, error) {
	n, err := d.body.Read(p)
	d.stall.Reset(stallTimeout)
	d.n += int64(n)
	if t := time.Now(); n > 0 && t.Sub(d.last) >= progressEvery {
		d.last = t
		d.progress(d.n)
	}
	if err != nil && !errors.Is(err, io.EOF) && d.ctx.Err() != nil {
		err = context.Cause(d.ctx)
	}
	return n, err
}

func (d *downloadBody) Close() error {
	d.stall.Stop()
	d.cancel(nil)
	return d.body.Close()
}

// place moves a staged version to its place. One that is there already is
// exchanged in one step where the system can do that; else it is set aside for
// a moment, and [Hive.clean] puts it back if that moment is a run's last.
func place(staging, target string) error {
	if !exists(target) {
		return os.Rename(staging, target)
	}
	if swap(staging, target) == nil {
		return nil // what was there is in staging now, and goes with it
	}
	aside := filepath.Join(filepath.Dir(target), asidePrefix+filepath.Base(target))
	if err := os.Rename(target, aside); err != nil {
		return err
	}
	if err := os.Rename(staging, target); err != nil {
		return errors.Join(err, os.Rename(aside, target))
	}
	return os.RemoveAll(aside)
}

// point makes the entry point of a type name one version, in one step.
func (h *Hive) point(t, version, entry string) error {
	tmp := h.path(wire.WorkersDir + "/." + wire.EntryPrefix + t)
	_ = os.Remove(tmp)
	if err := os.Symlink(filepath.Join(t, version, filepath.FromSlash(entry)), tmp); err != nil {
		return err
	}
	return os.Rename(tmp, h.path(wire.WorkersDir+"/"+wire.EntryPrefix+t))
}

func (h *Hive) removeOtherVersions(dir, keep string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != keep && e.IsDir() && !strings.HasPrefix(e.Name(), ".") {
			_ = os.RemoveAll(filepath.Join(dir, e.Name()))
		}
	}
}

// removeWorker removes a worker type: the entry point first, so that nothing
// half-removed counts as installed.
func (h *Hive) removeWorker(t string) error {
	entry := h.path(wire.WorkersDir + "/" + wire.EntryPrefix + t)
	if err := os.Remove(entry); err != nil && exists(entry) {
		return err
	}
	return os.RemoveAll(h.path(wire.WorkersDir + "/" + t))
}
