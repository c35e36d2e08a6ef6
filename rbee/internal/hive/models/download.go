package models

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/sourcegraph/conc/pool"
	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// DownloadOptions are those of one download. The zero value works.
type DownloadOptions struct {
	// Token and Endpoint take the place of the store's; empty leaves those. The
	// store's token goes to no other endpoint than the store's.
	Token    operations.Secret
	Endpoint string

	// Progress is told how far it is. Its calls do not overlap; they come from
	// different goroutines.
	Progress func(Progress)
}

// Progress is how far a download is.
type Progress struct {
	Bytes, Total int64  // of all files; what was there before counts
	File         string // what was just worked on
}

// Download fetches a model, as far as it is not there. Cancelled, it leaves what
// has arrived for the next one. A download of the same repository that runs
// already, in this process or another, is waited for; what it brings is present
// then. Every error that a person can do something about is an [*operations.Error].
func (s *Store) Download(ctx context.Context, ref Ref, o DownloadOptions) (*operations.ModelDownloadReport, error) {
	endpoint, token := s.access(o)
	d := &download{s: s, ref: ref, tell: o.Progress, hub: &hub{
		endpoint: endpoint, token: token, agent: s.UserAgent, http: s.client(), pause: s.pause,
	}}
	if u, err := url.Parse(d.hub.endpoint); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf("%q is no address of a model hub", withoutQuery(d.hub.endpoint))}
	}
	if d.ref.URL != "" {
		d.ref.Repo = ref.localRepo()
	}
	d.repo = s.repo(d.ref.Repo)
	report, err := d.do(ctx)
	return report, d.full(err)
}

// access is the hub that a download asks, and the token for it. The store's own
// token is for the store's own hub: whoever may name another one could read it
// there.
func (s *Store) access(o DownloadOptions) (endpoint string, token operations.Secret) {
	own := strings.TrimRight(cmp.Or(s.Endpoint, DefaultEndpoint), "/")
	endpoint = cmp.Or(strings.TrimRight(o.Endpoint, "/"), own)
	if o.Token == "" && endpoint == own {
		return endpoint, s.Token
	}
	return endpoint, o.Token
}

// do does the download, with the repository locked.
func (d *download) do(ctx context.Context) (*operations.ModelDownloadReport, error) {
	start := time.Now()
	unlock, err := d.repo.lock(ctx, func() { d.progress(0, "waiting for another download of "+d.ref.Repo) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer d.hub.http.CloseIdleConnections()
	if err := d.look(ctx); err != nil {
		return nil, err
	}
	if err := d.run(ctx); err != nil {
		return nil, err
	}
	m, err := d.s.Find(ctx, d.found())
	if err != nil {
		return nil, err
	}
	return &operations.ModelDownloadReport{
		Model: *m, Downloaded: d.downloaded, Resumed: d.resumed, Present: d.present, DurationSeconds: time.Since(start).Seconds(),
	}, nil
}

// download is one download.
type download struct {
	s    *Store
	ref  Ref
	repo repo
	hub  *hub
	tell func(Progress)

	commit  string
	files   []hubFile
	missing []hubFile // those whose blob is not there, each blob once

	mu         sync.Mutex
	bytes      int64
	total      int64
	downloaded int64
	resumed    int64
	present    int64
}

// found is the reference under which the download's result is found.
func (d *download) found() Ref {
	if d.ref.URL != "" {
		return Ref{Repo: d.ref.Repo}
	}
	ref := d.ref
	if ref.Part == "" && len(d.files) > 0 && isGGUF(d.files[0].Path) && len(groupGGUF(paths(d.files))) == 1 {
		ref.Part = wholeName(d.files[0].Path)
	}
	return ref
}

func paths(files []hubFile) []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return names
}

// look finds out what there is to fetch.
func (d *download) look(ctx context.Context) error {
	var err error
	if d.ref.URL != "" {
		d.commit, d.files, err = d.address(ctx)
	} else {
		d.commit, d.files, err = d.hub.repository(ctx, d.ref)
		if err == nil {
			d.files, err = choose(d.ref, d.files)
		}
	}
	if err != nil {
		return err
	}
	return d.room(d.files)
}

// room finds out what is missing of files, and whether the disk has room for it.
func (d *download) room(files []hubFile) error {
	seen := map[string]bool{}
	var need int64
	for _, f := range files {
		if seen[f.Etag] {
			continue
		}
		seen[f.Etag] = true
		d.total += f.Size
		if info, err := os.Stat(d.repo.blob(f.Etag)); err == nil && info.Size() == f.Size {
			d.present += f.Size
			continue
		}
		d.missing = append(d.missing, f)
		have := d.repo.arrived(f)
		d.resumed += have
		need += f.Size - have
	}
	d.bytes = d.present + d.resumed
	if free, known := diskFree(d.s.Dir); known && need > free {
		return failure(operations.ReasonDiskFull, d.ref.String(), nil, "model %q needs %s more, and %s are free at %s", d.ref, sizeText(need), sizeText(free), d.s.Dir)
	}
	return nil
}

// address finds out about a file at an address, which becomes a repository of one file.
func (d *download) address(ctx context.Context) (commit string, files []hubFile, err error) {
	f := hubFile{Path: d.ref.fileName(), Etag: d.ref.SHA256}
	if path, ok := localPath(d.ref.URL); ok {
		info, err := os.Stat(path)
		if err != nil {
			return "", nil, notFoundOr(err, path)
		}
		if !info.Mode().IsRegular() {
			return "", nil, failure(operations.ReasonNotFound, d.ref.String(), nil, "%s is no file", path)
		}
		if f.Size = info.Size(); f.Etag == "" {
			if f.Etag, err = Sum(ctx, path); err != nil {
				return "", nil, err
			}
		}
		return f.Etag[:40], []hubFile{f}, nil
	}
	if info, err := os.Stat(d.repo.blob(f.Etag)); err == nil {
		f.Size = info.Size() // nothing needs to be asked
		return f.Etag[:40], []hubFile{f}, nil
	}
	for try := 1; ; try++ {
		f.Size, err = d.sizeOf(ctx)
		var status *statusError
		if err == nil {
			return f.Etag[:40], []hubFile{f}, nil
		}
		if errors.As(err, &status) && (status.status == http.StatusNotFound || status.status == http.StatusGone) {
			return "", nil, notFound(operations.ReasonModelUnknown, withoutQuery(d.ref.URL), "there is nothing at %s: %v", withoutQuery(d.ref.URL), status)
		}
		if ctx.Err() != nil || try == maxTries || errors.As(err, &status) && !status.mayPass() {
			return "", nil, failure(requestReason(err), withoutQuery(d.ref.URL), err, "asking for %s: %v", withoutQuery(d.ref.URL), err)
		}
		if err := rest(ctx, d.hub.pause, try, err); err != nil {
			return "", nil, err
		}
	}
}

// sizeOf asks for the first byte of the file, which tells its size.
func (d *download) sizeOf(ctx context.Context) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	resp, _, err := d.hub.get(ctx, d.ref.URL, http.Header{"Range": {"bytes=0-0"}})
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusPartialContent:
		var size int64
		_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
		if _, err := fmt.Sscan(total, &size); err == nil && size > 0 {
			return size, nil
		}
	case http.StatusOK:
		if resp.ContentLength >= 0 {
			return resp.ContentLength, nil
		}
	default:
		return 0, readStatus(resp)
	}
	return 0, &statusError{status: resp.StatusCode, words: "the server does not tell how large the file is"}
}

func localPath(address string) (string, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.FromSlash(u.Path), true
}

// Sum is the SHA-256 of a file, in hex. It takes as long as reading it, and ends
// with ctx.
func Sum(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path) //nolint:gosec // the file that was asked for
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, &canceled{ctx, f}); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// run fetches what is missing, makes the snapshot, and lets the revision name it.
func (d *download) run(ctx context.Context) error {
	if err := d.repo.makeDirs(d.commit); err != nil {
		return err
	}
	plan := plan{Commit: d.commit, Revision: d.ref.revision(), Files: d.files}
	if err := d.repo.savePlan(plan); err != nil {
		return err
	}
	d.progress(0, "")
	if err := d.link(); err != nil {
		return err
	}
	for round := 1; len(d.missing) > 0; round++ {
		wrong, err := d.fetch(ctx)
		if err != nil {
			return err
		}
		if len(wrong) > 0 && round == 2 {
			return failure(operations.ReasonChecksum, d.ref.String(), wrong[0], "model %q: %v, twice: what was sent is not what the hub lists, and was thrown away", d.ref, wrong[0])
		}
		d.missing = nil
		for _, w := range wrong {
			d.missing = append(d.missing, w.hubFile)
			d.add(-w.Size, "")
		}
	}
	if err := d.link(); err != nil {
		return err
	}
	if d.ref.URL != "" || !commitPattern.MatchString(d.ref.revision()) {
		if err := atomicfile.WriteData(d.repo.ref(d.ref.revision()), []byte(d.commit), 0o644); err != nil {
			return err
		}
	}
	return d.repo.dropPlan(plan)
}

// full words the error of a disk that has no room left: what is missing, and how
// much of it. Others it leaves alone.
func (d *download) full(err error) error {
	if !isFull(err) {
		return err
	}
	free := "nothing"
	if n, known := diskFree(d.s.Dir); known {
		free = sizeText(n)
	}
	d.mu.Lock()
	missing := d.total - d.bytes
	d.mu.Unlock()
	if missing == 0 {
		return failure(operations.ReasonDiskFull, d.ref.String(), err, "model %q: the disk is full, %s free at %s: %v", d.ref, free, d.s.Dir, err)
	}
	return failure(operations.ReasonDiskFull, d.ref.String(), err, "model %q needs %s more, and the disk is full: %s free at %s; what has arrived is kept: %v", d.ref, sizeText(missing), free, d.s.Dir, err)
}

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// link brings files that are whole into the snapshot.
func (d *download) link() error {
	for _, f := range d.files {
		if info, err := os.Stat(d.repo.blob(f.Etag)); err != nil || info.Size() != f.Size {
			continue
		}
		if err := d.repo.link(d.commit, f); err != nil {
			return err
		}
	}
	return nil
}

// wrongFile is a file that came with the wrong content.
type wrongFile struct {
	hubFile
	error
}

// fetch fetches the missing files, several chunks at once. Files with the wrong
// content are no error of it.
func (d *download) fetch(ctx context.Context) (wrong []wrongFile, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := pool.New().WithMaxGoroutines(cmp.Or(d.s.Parallel, 8))
	var checks sync.WaitGroup
	var mu sync.Mutex
	fail := func(e error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			err = e
		}
		cancel(e)
	}
	for _, f := range d.missing {
		if ctx.Err() != nil {
			break
		}
		p := &part{
			hub: d.hub, file: f, from: d.ref.URL, blob: d.repo.blob(f.Etag), stall: cmp.Or(d.s.Stall, defaultStall),
			theirLock: d.repo.theirLock(f.Etag),
			moved:     func(n int64) { d.add(n, f.Path) },
		}
		if d.ref.URL == "" {
			p.from = d.hub.fileURL(d.ref.Repo, d.commit, f.Path)
		}
		chunk := cmp.Or(d.s.chunk, defaultChunk)
		local, isLocal := localPath(d.ref.URL)
		if isLocal && d.ref.URL != "" {
			p.discard()
			chunk = max(f.Size, 1)
		}
		if e := p.open(chunk); e != nil {
			fail(fmt.Errorf("making room for %s: %w", f.Path, e))
			break
		}
		todo := p.have.missing()
		var fetching sync.WaitGroup
		fetching.Add(len(todo))
		checks.Go(func() {
			e := p.verify(ctx)
			fetching.Wait()
			p.close()
			var sum *wrongSumError
			switch {
			case errors.As(e, &sum):
				mu.Lock()
				wrong = append(wrong, wrongFile{f, e})
				mu.Unlock()
			case e != nil:
				fail(e)
			}
		})
		for _, i := range todo {
			work.Go(func() {
				defer fetching.Done()
				var e error
				if isLocal && d.ref.URL != "" {
					e = p.copyFile(ctx, local)
				} else {
					e = p.fetch(ctx, i)
				}
				if e != nil {
					fail(e)
					p.fail(e)
				}
			})
		}
	}
	work.Wait()
	checks.Wait()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return wrong, err
}

// add counts bytes that have arrived.
func (d *download) add(n int64, file string) {
	d.mu.Lock()
	d.downloaded += max(n, 0)
	d.mu.Unlock()
	d.progress(n, file)
}

func (d *download) progress(n int64, file string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += n
	if d.tell != nil {
		d.tell(Progress{Bytes: d.bytes, Total: d.total, File: file})
	}
}
