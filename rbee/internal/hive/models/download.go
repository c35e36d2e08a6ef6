package models

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
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

// Download fetches a model, as far as it is not there. Canceled, it leaves what
// has arrived for the next one. A download of the same repository that runs
// already, in this process or another, is waited for; what it brings is present
// then. Every error that a person can do something about is an [*operations.Error].
func (s *Store) Download(ctx context.Context, ref model.Ref, o DownloadOptions) (*operations.ModelDownloadReport, error) {
	endpoint, token := s.access(o)
	d := &download{s: s, ref: ref, tell: o.Progress, hub: s.hub(endpoint, token)}
	if u, err := url.Parse(d.hub.Client.Hub); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf("%q is no address of a model hub", model.RedactRef(d.hub.Client.Hub))}
	}
	if d.ref.URL != "" {
		d.ref.Repo = ref.LocalRepo()
	}
	d.repo = s.repo(d.ref.Repo)
	report, err := d.do(ctx)
	return report, d.full(err)
}

// hub is a model hub, and how the store asks it.
func (s *Store) hub(endpoint string, token operations.Secret) *model.Hub {
	c := &fetch.Client{HTTP: s.HTTP, Hub: endpoint, HubToken: token, UserAgent: s.UserAgent, Stall: cmp.Or(s.Stall, defaultStall)}
	if c.HTTP == nil {
		c.HTTP = fetch.NewHTTPClient()
	}
	return &model.Hub{Client: c, Pause: s.pause}
}

// defaultStall is how long a connection may give nothing before it is made anew.
const defaultStall = 30 * time.Second

// bootID names this boot of the machine; empty where it has no name.
func bootID() string {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return ""
	}
	return self.BootID
}

func notFoundOr(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectFile.Named(path), Message: "there is no file " + path + " on the hive", Err: err}
	}
	return err
}

// access is the hub that a download asks, and the token for it. The store's own
// token is for the store's own hub: whoever may name another one could read it
// there.
func (s *Store) access(o DownloadOptions) (endpoint string, token operations.Secret) {
	own := strings.TrimRight(cmp.Or(s.Endpoint, model.DefaultEndpoint), "/")
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
	defer d.hub.Client.HTTP.CloseIdleConnections()
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
	ref  model.Ref
	repo repo
	hub  *model.Hub
	tell func(Progress)

	commit  string
	files   []model.File
	missing []model.File // those whose blob is not there, each blob once

	mu         sync.Mutex
	bytes      int64
	total      int64
	downloaded int64
	resumed    int64
	present    int64
}

// found is the reference under which the download's result is found.
func (d *download) found() model.Ref {
	if d.ref.URL != "" {
		return model.Ref{Repo: d.ref.Repo}
	}
	ref := d.ref
	if ref.Part == "" && len(d.files) > 0 && model.IsGGUF(d.files[0].Path) && len(model.GroupGGUF(model.Paths(d.files))) == 1 {
		ref.Part = model.UnshardedName(d.files[0].Path)
	}
	return ref
}

// look finds out what there is to fetch.
func (d *download) look(ctx context.Context) error {
	var err error
	if d.ref.URL != "" {
		d.commit, d.files, err = d.address(ctx)
	} else {
		d.commit, d.files, err = d.hub.Repository(ctx, d.ref)
		if err == nil {
			d.files, err = model.Choose(d.ref, d.files)
		}
	}
	if err != nil {
		return err
	}
	return d.room(d.files)
}

// room finds out what is missing of files, and whether the disk has room for it.
func (d *download) room(files []model.File) error {
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
		return failure(operations.ReasonDiskFull, d.ref.String(), nil, "model %q needs %s more, and %s are free at %s", d.ref, bytesize.Format(need), bytesize.Format(free), d.s.Dir)
	}
	return nil
}

// address finds out about a file at an address, which becomes a repository of one file.
func (d *download) address(ctx context.Context) (commit string, files []model.File, err error) {
	f := model.File{Path: d.ref.FileName(), Etag: d.ref.SHA256}
	if path, ok := fetch.LocalPath(d.ref.URL); ok {
		info, err := os.Stat(path)
		if err != nil {
			return "", nil, notFoundOr(err, path)
		}
		if !info.Mode().IsRegular() {
			return "", nil, failure(operations.ReasonNotFound, d.ref.String(), nil, "%s is no file", path)
		}
		if f.Size = info.Size(); f.Etag == "" {
			if f.Etag, err = fetch.Sum(ctx, path); err != nil {
				return "", nil, err
			}
		}
		return f.Etag[:40], []model.File{f}, nil
	}
	if info, err := os.Stat(d.repo.blob(f.Etag)); err == nil {
		f.Size = info.Size() // nothing needs to be asked
		return f.Etag[:40], []model.File{f}, nil
	}
	err = fetch.Retry(ctx, d.hub.Pause, func() (err error) {
		f.Size, err = d.sizeOf(ctx)
		return err
	})
	switch {
	case err == nil:
		return f.Etag[:40], []model.File{f}, nil
	case errors.Is(err, fetch.ErrNotFound):
		return "", nil, notFound(operations.ReasonModelUnknown, model.RedactRef(d.ref.URL), "there is nothing at %s: %v", model.RedactRef(d.ref.URL), err)
	case ctx.Err() != nil:
		return "", nil, context.Cause(ctx)
	}
	return "", nil, failure(fetch.DownloadReason(err), model.RedactRef(d.ref.URL), err, "asking for %s: %v", model.RedactRef(d.ref.URL), err)
}

// sizeOf asks for the first byte of the file, which tells its size.
func (d *download) sizeOf(ctx context.Context) (size int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err = d.hub.Get(ctx, d.ref.URL, http.Header{"Range": {"bytes=0-0"}}, func(resp *http.Response, _ io.Reader) error {
		switch resp.StatusCode {
		case http.StatusPartialContent:
			_, total, _ := strings.Cut(resp.Header.Get("Content-Range"), "/")
			if _, err := fmt.Sscan(total, &size); err == nil && size > 0 {
				return nil
			}
		case http.StatusOK:
			if size = resp.ContentLength; size >= 0 {
				return nil
			}
		default:
			return fetch.NewStatusError(resp)
		}
		return &fetch.StatusError{Status: resp.StatusCode, Message: "it does not tell how large the file is"}
	})
	return size, err
}

// run fetches what is missing, makes the snapshot, and lets the revision name it.
func (d *download) run(ctx context.Context) error {
	if err := d.repo.makeDirs(d.commit); err != nil {
		return err
	}
	plan := plan{Commit: d.commit, Revision: d.ref.RevisionOrMain(), Files: d.files}
	if err := d.repo.savePlan(plan); err != nil {
		return err
	}
	d.progress(0, "")
	if err := d.link(); err != nil {
		return err
	}
	if err := d.fetch(ctx); err != nil {
		return err
	}
	if err := d.link(); err != nil {
		return err
	}
	if d.ref.URL != "" || !model.IsCommit(d.ref.RevisionOrMain()) {
		if err := atomicfile.WriteData(d.repo.ref(d.ref.RevisionOrMain()), []byte(d.commit), 0o644); err != nil {
			return err
		}
	}
	return d.repo.dropPlan(plan)
}

// full words the error of a disk that has no room left: what is missing, and how
// much of it. Others it leaves alone.
func (d *download) full(err error) error {
	if !fetch.IsDiskFull(err) {
		return err
	}
	free := "nothing"
	if n, known := diskFree(d.s.Dir); known {
		free = bytesize.Format(n)
	}
	d.mu.Lock()
	missing := d.total - d.bytes
	d.mu.Unlock()
	if missing == 0 {
		return failure(operations.ReasonDiskFull, d.ref.String(), err, "model %q: the disk is full, %s free at %s: %v", d.ref, free, d.s.Dir, err)
	}
	return failure(operations.ReasonDiskFull, d.ref.String(), err, "model %q needs %s more, and the disk is full: %s free at %s; what has arrived is kept: %v", d.ref, bytesize.Format(missing), free, d.s.Dir, err)
}

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

// fetch fetches the missing files.
func (d *download) fetch(ctx context.Context) error {
	files := make([]fetch.File, len(d.missing))
	for i, f := range d.missing {
		files[i] = fetch.File{
			Name: f.Path, URL: d.ref.URL, Path: d.repo.blob(f.Etag), Mode: 0o644, Size: f.Size, Sum: f.Etag, NewHash: f.NewHash,
			Prefix: d.repo.theirs(f.Etag), PrefixLock: d.repo.theirLock(f.Etag),
			Progress: func(n int64) { d.add(n, f.Path) },
		}
		if d.ref.URL == "" {
			files[i].URL = d.hub.FileURL(d.ref.Repo, d.commit, f.Path)
		}
	}
	err := d.hub.Client.DownloadFiles(ctx, files, fetch.Options{
		Connections: d.s.Parallel, ChunkSize: d.s.chunk, Pause: d.s.pause, BootID: bootID(),
	})
	var wrong *fetch.MismatchError
	var failed *fetch.TransferError
	switch {
	case errors.As(err, &wrong):
		return failure(operations.ReasonChecksum, d.ref.String(), err, "model %q: %v, twice: what was sent is not what the hub lists, and was thrown away", d.ref, err)
	case errors.As(err, &failed):
		return failure(d.refusalReason(err), failed.Name, err, "%v", err)
	case errors.Is(err, fs.ErrNotExist) && d.ref.URL != "":
		path, _ := fetch.LocalPath(d.ref.URL)
		return notFoundOr(err, path)
	}
	return err
}

// refusalReason returns why a file was not sent. The hub answers with 401 or 403 where
// its repository is gated.
func (d *download) refusalReason(err error) operations.Reason {
	var status *fetch.StatusError
	if errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden) && d.ref.URL == "" {
		return operations.ReasonModelGated
	}
	return fetch.DownloadReason(err)
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
