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

// Delete removes a model, also one that is not whole. Content that other models
// share stays. A download of the same repository that runs is waited for; what
// another tool is fetching there is left alone.
func (s *Store) Delete(ctx context.Context, id string) (*operations.ModelDeleteReport, error) {
	ref, err := model.ParseRef(id)
	if err != nil {
		return nil, err
	}
	if ref.URL != "" {
		ref.Repo = ref.LocalRepo()
	}
	m, err := s.Get(ctx, id) // before the lock, which would make directories for a model that is not
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
	doomed := before[i].doomed(*m)
	report := &operations.ModelDeleteReport{Model: *m}
	if err := r.forgetPlans(m.Commit, doomed); err != nil {
		return nil, err
	}
	for _, f := range doomed {
		if err := r.unlink(m.Commit, f); err != nil {
			return nil, err
		}
	}
	after, err := r.snapshots()
	if err != nil {
		return nil, err
	}
	if report.Freed, report.Kept, err = r.sweep(doomed, after); err != nil {
		return nil, err
	}
	return report, r.tidy(m.Commit, after)
}

// doomed are the files of the snapshot that go with a model: its own, and if no
// other model is left there, the rest.
func (s snapshot) doomed(m operations.Model) []snapshotFile {
	if len(s.models()) == 1 {
		return s.files
	}
	var names []string
	for _, f := range m.Files {
		names = append(names, f.Path)
	}
	return s.of(names)
}

// forgetPlans drops the plans of downloads that would bring doomed files.
func (r repo) forgetPlans(commit string, doomed []snapshotFile) error {
	for _, p := range r.readPlans() {
		if p.Commit != commit || !slices.ContainsFunc(p.Files, func(f model.File) bool {
			return slices.ContainsFunc(doomed, func(d snapshotFile) bool { return d.Path == f.Path })
		}) {
			continue
		}
		if err := r.dropPlan(p); err != nil {
			return err
		}
	}
	return nil
}

// unlink removes a file from a snapshot, and directories that it leaves empty.
func (r repo) unlink(commit string, f snapshotFile) error {
	root := r.snapshot(commit)
	at := filepath.Join(root, filepath.FromSlash(f.Path))
	if err := os.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for dir := filepath.Dir(at); dir != root; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil {
			break // not empty
		}
	}
	return nil
}

// sweep removes the blobs of removed files that nothing else needs.
func (r repo) sweep(doomed []snapshotFile, left []snapshot) (freed, kept int64, err error) {
	used := map[string]bool{}
	for _, s := range left {
		for _, f := range s.files {
			used[f.Etag] = true
		}
	}
	seen := map[string]bool{}
	for _, f := range doomed {
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
		if !r.theirsHeld(f.Etag) {
			files = append(files, r.theirs(f.Etag))
		}
		for _, path := range files {
			n := occupied(path)
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

// theirsIdle is how long a file that another tool fetches stays as it is before
// nobody seems to fetch it. Locks do not tell where the filesystem has none.
const theirsIdle = 10 * time.Minute

// theirsUnderWay reports whether another tool fetches something of the repository.
// It names that in a snapshot, and with a revision, only when it is whole.
func (r repo) theirsUnderWay() bool {
	entries, err := os.ReadDir(filepath.Join(r.dir, "blobs"))
	if err != nil {
		return false // there is nothing
	}
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		etag, ok := strings.CutSuffix(e.Name(), theirSuffix)
		if !ok {
			return false
		}
		info, err := e.Info()
		return err == nil && time.Since(info.ModTime()) < theirsIdle || r.theirsHeld(etag)
	})
}

// tidy removes what a snapshot without files leaves: its names, its directory,
// and if it was the last one the whole repository. Where another tool is about to
// put something there, it all stays.
func (r repo) tidy(commit string, left []snapshot) error {
	if slices.ContainsFunc(left, func(s snapshot) bool { return s.commit == commit && len(s.files) > 0 }) {
		return nil
	}
	if r.theirsUnderWay() {
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
	if slices.ContainsFunc(left, func(s snapshot) bool { return s.commit != commit && len(s.files) > 0 }) || err != nil {
		return err
	}
	return errors.Join(os.RemoveAll(r.dir), os.RemoveAll(r.locks))
}
