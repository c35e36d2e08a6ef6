package models

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

// Delete removes a model, including an incomplete one. It keeps content that other models
// share. It waits for a running download of the same repository, and keeps files that
// another tool is downloading into the repository.
func (s *Store) Delete(ctx context.Context, id string) (*operations.ModelDeleteReport, error) {
	ref, err := model.ParseRef(id)
	if err != nil {
		return nil, err
	}
	if ref.URL != "" {
		ref.Repo = ref.LocalRepo()
	}
	m, err := s.Get(ctx, id) // before the lock, which would create directories for an unknown model
	if err != nil {
		return nil, err
	}
	r := s.repo(ref.Repo)
	unlock, err := r.lock(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if m, err = s.Get(ctx, id); err != nil {
		return nil, err
	}
	before, err := r.snapshots()
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(before, func(s snapshot) bool { return s.commit == m.Commit })
	if i < 0 {
		return nil, notFound(operations.ReasonModelNotFound, id, "model %q is not on this hive", id)
	}
	deleted := before[i].filesToDelete(*m)
	report := &operations.ModelDeleteReport{Model: *m}
	if err := r.dropPlans(m.Commit, deleted); err != nil {
		return nil, err
	}
	for _, f := range deleted {
		if err := r.unlink(m.Commit, f); err != nil {
			return nil, err
		}
	}
	after, err := r.snapshots()
	if err != nil {
		return nil, err
	}
	if report.FreedBytes, report.KeptBytes, err = r.removeUnusedBlobs(deleted, after); err != nil {
		return nil, err
	}
	return report, r.removeEmptySnapshot(m.Commit, after)
}

// filesToDelete returns the files of the snapshot to delete with a model: the model's own
// files, or all files if the snapshot has no other model.
func (s snapshot) filesToDelete(m operations.Model) []snapshotFile {
	if len(s.models()) == 1 {
		return s.files
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Path)
	}
	return s.selectFiles(names)
}

// dropPlans removes the plans of downloads that include any of the deleted files.
func (r repo) dropPlans(commit string, deleted []snapshotFile) error {
	for _, p := range r.readPlans() {
		if p.Commit != commit || !slices.ContainsFunc(p.Files, func(f model.File) bool {
			return slices.ContainsFunc(deleted, func(d snapshotFile) bool { return d.Path == f.Path })
		}) {
			continue
		}
		if err := r.dropPlan(p); err != nil {
			return err
		}
	}
	return nil
}

// unlink removes a file from a snapshot, and the directories that become empty.
func (r repo) unlink(commit string, f snapshotFile) error {
	root := r.snapshot(commit)
	path := filepath.Join(root, filepath.FromSlash(f.Path))
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := filepath.Dir(path); dir != root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}

// removeUnusedBlobs removes the blobs of deleted files that no other file uses. It returns
// the bytes that it freed, and the bytes that other files still use.
func (r repo) removeUnusedBlobs(deleted []snapshotFile, remaining []snapshot) (freed, kept int64, err error) {
	used := map[string]bool{}
	for _, s := range remaining {
		for _, f := range s.files {
			used[f.Etag] = true
		}
	}
	seen := map[string]bool{}
	for _, f := range deleted {
		switch {
		case f.plain:
			freed += f.Size
			continue
		case f.Etag == "" || seen[f.Etag]:
			continue
		case used[f.Etag]:
			if !f.missing {
				kept += f.Size
			}
			continue
		}
		seen[f.Etag] = true
		files := []string{r.blob(f.Etag), fetch.JournalPath(r.blob(f.Etag)), fetch.PartPath(r.blob(f.Etag))}
		if !r.isHubLocked(f.Etag) {
			files = append(files, r.hubPartPath(f.Etag))
		}
		for _, path := range files {
			n := diskUsage(path)
			switch e := os.Remove(path); {
			case e == nil:
				freed += n
			case !errors.Is(e, fs.ErrNotExist):
				err = errors.Join(err, e)
			}
		}
	}
	return freed, kept, err
}

// hubPartIdle is the time without changes after which the partial file of another tool's
// download counts as abandoned. Locks alone are not sufficient, because some filesystems do
// not support them.
const hubPartIdle = 10 * time.Minute

// hasHubDownload reports whether another tool is downloading a file of the repository. No
// snapshot and no revision refers to such a file until it is complete.
func (r repo) hasHubDownload() bool {
	entries, err := os.ReadDir(filepath.Join(r.dir, "blobs"))
	if err != nil {
		return false // the repository has no blobs
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		etag, ok := strings.CutSuffix(e.Name(), hubPartSuffix)
		if !ok {
			return false
		}
		info, err := e.Info()
		return err == nil && time.Since(info.ModTime()) < hubPartIdle || r.isHubLocked(etag)
	})
}

// removeEmptySnapshot removes a snapshot without files and the revisions that refer to it,
// and the complete repository if no other snapshot has files. It removes nothing while
// another tool is downloading into the repository.
func (r repo) removeEmptySnapshot(commit string, remaining []snapshot) error {
	if slices.ContainsFunc(remaining, func(s snapshot) bool { return s.commit == commit && len(s.files) > 0 }) {
		return nil
	}
	if r.hasHubDownload() {
		return nil
	}
	refs, err := r.refs()
	if err != nil {
		return err
	}
	for name, c := range refs {
		if c == commit {
			err = errors.Join(err, os.Remove(r.ref(name)))
			for dir := filepath.Dir(r.ref(name)); dir != filepath.Join(r.dir, "refs") && os.Remove(dir) == nil; {
				dir = filepath.Dir(dir)
			}
		}
	}
	if e := os.Remove(r.snapshot(commit)); e != nil && !errors.Is(e, fs.ErrNotExist) {
		err = errors.Join(err, e)
	}
	if slices.ContainsFunc(remaining, func(s snapshot) bool { return s.commit != commit && len(s.files) > 0 }) || err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(r.dir), os.RemoveAll(r.locks))
}
