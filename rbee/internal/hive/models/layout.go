package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// repo locates the files of one repository in the cache.
type repo struct {
	name  string // org/name
	dir   string
	locks string
}

func (s *Store) repo(name string) repo {
	folder := "models--" + strings.ReplaceAll(name, "/", "--")
	return repo{name: name, dir: filepath.Join(s.Dir, folder), locks: filepath.Join(s.Dir, ".locks", folder)}
}

func (r repo) blob(etag string) string { return filepath.Join(r.dir, "blobs", etag) }
func (r repo) ref(revision string) string {
	return filepath.Join(r.dir, "refs", filepath.FromSlash(revision))
}
func (r repo) snapshot(commit string) string { return filepath.Join(r.dir, "snapshots", commit) }
func (r repo) plans() string                 { return filepath.Join(r.dir, ".rbee") }

func (r repo) makeDirs(commit string) error {
	for _, dir := range []string{"blobs", "refs", filepath.Join("snapshots", commit)} {
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil { //nolint:gosec // the mode that the hub's tools use
			return err
		}
	}
	return nil
}

// lock acquires the lock of the repository. If it has to wait, it calls waiting once. The
// kernel releases the lock when the process exits.
func (r repo) lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	l, err := filelock.Wait(ctx, filepath.Join(r.locks, "rbee.lock"), 0o755, filelock.NoLimit, waiting)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, fmt.Errorf("cannot wait for another download of %s: %w", r.name, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("cannot lock repository %s: %w", r.name, err)
	}
	return func() { _ = l.Close() }, nil
}

// hubPartSuffix is the file name suffix of a blob that huggingface_hub is downloading.
const hubPartSuffix = ".incomplete"

func (r repo) hubPartPath(etag string) string { return r.blob(etag) + hubPartSuffix }

// hubLockPath returns the file that huggingface_hub locks while it downloads a blob.
func (r repo) hubLockPath(etag string) string { return filepath.Join(r.locks, etag+".lock") }

// isHubLocked reports whether huggingface_hub is downloading a blob.
func (r repo) isHubLocked(etag string) bool {
	return filelock.IsLocked(r.hubLockPath(etag))
}

// link creates the link to a blob in a snapshot.
func (r repo) link(commit string, f model.File) error {
	path := filepath.Join(r.snapshot(commit), filepath.FromSlash(f.Path))
	target, err := filepath.Rel(filepath.Dir(path), r.blob(f.Etag))
	if err != nil {
		return err
	}
	if current, err := os.Readlink(path); err == nil && current == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the mode that the hub's tools use
		return err
	}
	return atomicfile.Symlink(target, path, path+".rbee-link")
}

// plan describes an incomplete download.
type plan struct {
	Commit   string       `json:"commit"`
	Revision string       `json:"revision"`
	Files    []model.File `json:"files"`
}

// planPath returns the file of a plan. Its name depends only on the commit and the files, so
// the same download always has the same plan.
func (r repo) planPath(p plan) string {
	h := sha256.New()
	fmt.Fprintln(h, p.Commit)
	for _, f := range p.Files {
		fmt.Fprintln(h, f.Path)
	}
	return filepath.Join(r.plans(), hex.EncodeToString(h.Sum(nil)[:8])+".json")
}

func (r repo) savePlan(p plan) error { return statefile.Write(r.planPath(p), p) }

func (r repo) dropPlan(p plan) error {
	err := os.Remove(r.planPath(p))
	_ = os.Remove(r.plans()) // fails unless the directory is empty
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readPlans returns the plans of incomplete downloads.
func (r repo) readPlans() []plan {
	names, _ := filepath.Glob(filepath.Join(r.plans(), "*.json"))
	var plans []plan
	for _, name := range names {
		var p plan
		if statefile.Read(name, &p) != nil || !model.IsCommit(p.Commit) {
			continue // not a plan, or truncated by a full disk
		}
		if !slices.ContainsFunc(p.Files, func(f model.File) bool { return !f.Valid() }) {
			plans = append(plans, p)
		}
	}
	return plans
}
