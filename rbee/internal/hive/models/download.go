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

// DownloadOptions configure one download. The zero value is valid.
type DownloadOptions struct {
	// Token and Endpoint override the store's values unless they are empty. The store's
	// token is sent only to the store's endpoint.
	Token    operations.Secret
	Endpoint string

	// Progress receives the progress of the download. Calls come from different
	// goroutines but do not overlap.
	Progress func(Progress)
}

// Progress is the progress of a download.
type Progress struct {
	Bytes, Total int64  // of all files, including files that were already present
	File         string // the current file, or a note
}

// Download downloads the files of a model that are missing. If it is canceled, it keeps the
// received data for the next download. It waits for a running download of the same
// repository, in this process or another. Every error that a user can act on is an
// [*operations.Error].
func (s *Store) Download(ctx context.Context, ref model.Ref, o DownloadOptions) (*operations.ModelDownloadReport, error) {
	endpoint, token := s.endpointAndToken(o)
	d := &download{s: s, ref: ref, onProgress: o.Progress, hub: s.hub(endpoint, token)}
	if u, err := url.Parse(d.hub.Client.Hub); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, &operations.Error{Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Message: fmt.Sprintf("invalid model hub %q: want an http or https URL", model.RedactRef(d.hub.Client.Hub))}
	}
	if d.ref.URL != "" {
		d.ref.Repo = ref.LocalRepo()
	}
	d.repo = s.repo(d.ref.Repo)
	report, err := d.runLocked(ctx)
	return report, d.wrapDiskFull(err)
}

// hub returns a client for a model hub.
func (s *Store) hub(endpoint string, token operations.Secret) *model.Hub {
	c := &fetch.Client{HTTP: s.HTTP, Hub: endpoint, HubToken: token, UserAgent: s.UserAgent, Stall: cmp.Or(s.StallTimeout, defaultStallTimeout)}
	if c.HTTP == nil {
		c.HTTP = fetch.NewHTTPClient()
	}
	return &model.Hub{Client: c, Pause: s.retryDelay}
}

// defaultStallTimeout is the default of [Store].StallTimeout.
const defaultStallTimeout = 30 * time.Second

// bootID returns an identifier of this boot of the machine; empty if unknown.
func bootID() string {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return ""
	}
	return self.BootID
}

// wrapNotExist returns an error with CodeNotFound if err is fs.ErrNotExist, else err.
func wrapNotExist(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectFile.WithName(path), Message: fmt.Sprintf("cannot find file %s on the hive", path), Err: err}
	}
	return err
}

// endpointAndToken returns the hub of a download and the token for it. The store's token is
// used only for the store's own hub. Otherwise a client could specify its own hub and read
// the token there.
func (s *Store) endpointAndToken(o DownloadOptions) (endpoint string, token operations.Secret) {
	storeEndpoint := strings.TrimRight(cmp.Or(s.Endpoint, model.DefaultEndpoint), "/")
	endpoint = cmp.Or(strings.TrimRight(o.Endpoint, "/"), storeEndpoint)
	if o.Token == "" && endpoint == storeEndpoint {
		return endpoint, s.Token
	}
	return endpoint, o.Token
}

// runLocked locks the repository and runs the download.
func (d *download) runLocked(ctx context.Context) (*operations.ModelDownloadReport, error) {
	start := time.Now()
	unlock, err := d.repo.lock(ctx, func() { d.reportProgress(0, "waiting for another download of "+d.ref.Repo) })
	if err != nil {
		return nil, err
	}
	defer unlock()
	defer d.hub.Client.HTTP.CloseIdleConnections()
	if err := d.resolve(ctx); err != nil {
		return nil, err
	}
	if err := d.transfer(ctx); err != nil {
		return nil, err
	}
	m, err := d.s.Find(ctx, d.resultRef())
	if err != nil {
		return nil, err
	}
	return &operations.ModelDownloadReport{
		Model: *m, DownloadedBytes: d.downloaded, ResumedBytes: d.resumed, PresentBytes: d.present, DurationSeconds: time.Since(start).Seconds(),
	}, nil
}

// download is the state of one download.
type download struct {
	s          *Store
	ref        model.Ref
	repo       repo
	hub        *model.Hub
	onProgress func(Progress)

	commit  string
	files   []model.File
	missing []model.File // one file for each missing blob

	mu         sync.Mutex
	bytes      int64
	total      int64
	downloaded int64
	resumed    int64
	present    int64
}

// resultRef returns the reference of the downloaded model.
func (d *download) resultRef() model.Ref {
	if d.ref.URL != "" {
		return model.Ref{Repo: d.ref.Repo}
	}
	ref := d.ref
	if ref.Part == "" && len(d.files) > 0 && model.IsGGUF(d.files[0].Path) && len(model.GroupGGUF(model.Paths(d.files))) == 1 {
		ref.Part = model.UnshardedName(d.files[0].Path)
	}
	return ref
}

// resolve determines the files of the model and which of them are missing.
func (d *download) resolve(ctx context.Context) error {
	var err error
	if d.ref.URL != "" {
		d.commit, d.files, err = d.resolveURL(ctx)
	} else {
		d.commit, d.files, err = d.hub.Repository(ctx, d.ref)
		if err == nil {
			d.files, err = model.Choose(d.ref, d.files)
		}
	}
	if err != nil {
		return err
	}
	return d.checkSpace(d.files)
}

// checkSpace determines which files are missing and whether the disk has space for them.
func (d *download) checkSpace(files []model.File) error {
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
		received := d.repo.partialBytes(f)
		d.resumed += received
		need += f.Size - received
	}
	d.bytes = d.present + d.resumed
	if free, known := diskFree(d.s.Dir); known && need > free {
		return failure(operations.ReasonDiskFull, d.ref.String(), nil, "cannot download model %q: it needs %s more, but only %s is free at %s", d.ref, bytesize.Format(need), bytesize.Format(free), d.s.Dir)
	}
	return nil
}

// resolveURL determines the size of a file at a URL, which becomes a repository of one file.
func (d *download) resolveURL(ctx context.Context) (commit string, files []model.File, err error) {
	f := model.File{Path: d.ref.FileName(), Etag: d.ref.SHA256}
	if path, ok := fetch.LocalPath(d.ref.URL); ok {
		info, err := os.Stat(path)
		if err != nil {
			return "", nil, wrapNotExist(err, path)
		}
		if !info.Mode().IsRegular() {
			return "", nil, failure(operations.ReasonNotFound, d.ref.String(), nil, "cannot use %s: it is not a regular file", path)
		}
		if f.Size = info.Size(); f.Etag == "" {
			if f.Etag, err = fetch.Sum(ctx, path); err != nil {
				return "", nil, err
			}
		}
		return f.Etag[:40], []model.File{f}, nil
	}
	if info, err := os.Stat(d.repo.blob(f.Etag)); err == nil {
		f.Size = info.Size() // no request is needed
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
		return "", nil, notFound(operations.ReasonModelUnknown, model.RedactRef(d.ref.URL), "cannot find %s: %v", model.RedactRef(d.ref.URL), err)
	case ctx.Err() != nil:
		return "", nil, context.Cause(ctx)
	}
	return "", nil, failure(fetch.DownloadReason(err), model.RedactRef(d.ref.URL), err, "cannot request %s: %v", model.RedactRef(d.ref.URL), err)
}

// sizeOf requests the first byte of the file; the response contains the size of the file.
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
		return &fetch.StatusError{Status: resp.StatusCode, Message: "the response does not contain the file size"}
	})
	return size, err
}

// transfer downloads the missing files, links them into the snapshot and sets the revision.
func (d *download) transfer(ctx context.Context) error {
	if err := d.repo.makeDirs(d.commit); err != nil {
		return err
	}
	plan := plan{Commit: d.commit, Revision: d.ref.RevisionOrMain(), Files: d.files}
	if err := d.repo.savePlan(plan); err != nil {
		return err
	}
	d.reportProgress(0, "")
	if err := d.linkComplete(); err != nil {
		return err
	}
	if err := d.fetch(ctx); err != nil {
		return err
	}
	if err := d.linkComplete(); err != nil {
		return err
	}
	if d.ref.URL != "" || !model.IsCommit(d.ref.RevisionOrMain()) {
		if err := atomicfile.WriteData(d.repo.ref(d.ref.RevisionOrMain()), []byte(d.commit), 0o644); err != nil {
			return err
		}
	}
	return d.repo.dropPlan(plan)
}

// wrapDiskFull adds the missing space to the error of a full disk. It returns other errors
// unchanged.
func (d *download) wrapDiskFull(err error) error {
	if !fetch.IsDiskFull(err) {
		return err
	}
	free := "an unknown amount"
	if n, known := diskFree(d.s.Dir); known {
		free = bytesize.Format(n)
	}
	d.mu.Lock()
	missing := d.total - d.bytes
	d.mu.Unlock()
	if missing == 0 {
		return failure(operations.ReasonDiskFull, d.ref.String(), err, "cannot download model %q: the disk is full (%s free at %s): %v", d.ref, free, d.s.Dir, err)
	}
	return failure(operations.ReasonDiskFull, d.ref.String(), err, "cannot download model %q: it needs %s more, but the disk is full (%s free at %s); the received data is kept: %v", d.ref, bytesize.Format(missing), free, d.s.Dir, err)
}

// linkComplete links the complete files into the snapshot.
func (d *download) linkComplete() error {
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

// fetch downloads the missing files.
func (d *download) fetch(ctx context.Context) error {
	files := make([]fetch.File, len(d.missing))
	for i, f := range d.missing {
		files[i] = fetch.File{
			Name: f.Path, URL: d.ref.URL, Path: d.repo.blob(f.Etag), Mode: 0o644, Size: f.Size, Sum: f.Etag, NewHash: f.NewHash,
			Prefix: d.repo.hubPartPath(f.Etag), PrefixLock: d.repo.hubLockPath(f.Etag),
			Progress: func(n int64) { d.add(n, f.Path) },
		}
		if d.ref.URL == "" {
			files[i].URL = d.hub.FileURL(d.ref.Repo, d.commit, f.Path)
		}
	}
	err := d.hub.Client.DownloadFiles(ctx, files, fetch.Options{
		Connections: d.s.Connections, ChunkSize: d.s.chunk, Pause: d.s.retryDelay, BootID: bootID(),
	})
	var wrong *fetch.MismatchError
	var failed *fetch.TransferError
	switch {
	case errors.As(err, &wrong):
		return failure(operations.ReasonChecksum, d.ref.String(), err, "cannot download model %q after 2 attempts: %v; the received data was discarded", d.ref, err)
	case errors.As(err, &failed):
		return failure(d.transferReason(err), failed.Name, err, "%v", err)
	case errors.Is(err, fs.ErrNotExist) && d.ref.URL != "":
		path, _ := fetch.LocalPath(d.ref.URL)
		return wrapNotExist(err, path)
	}
	return err
}

// transferReason returns the reason of a failed transfer. The hub responds with 401 or 403
// if the repository is gated.
func (d *download) transferReason(err error) operations.Reason {
	var status *fetch.StatusError
	if errors.As(err, &status) && (status.Status == http.StatusUnauthorized || status.Status == http.StatusForbidden) && d.ref.URL == "" {
		return operations.ReasonModelGated
	}
	return fetch.DownloadReason(err)
}

// add counts received bytes.
func (d *download) add(n int64, file string) {
	d.mu.Lock()
	d.downloaded += max(n, 0)
	d.mu.Unlock()
	d.reportProgress(n, file)
}

// reportProgress adds n bytes and reports the progress.
func (d *download) reportProgress(n int64, file string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.bytes += n
	if d.onProgress != nil {
		d.onProgress(Progress{Bytes: d.bytes, Total: d.total, File: file})
	}
}
