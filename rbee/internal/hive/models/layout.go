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

// repo is the place of one repository in the cache.
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
		if err := os.MkdirAll(filepath.Join(r.dir, dir), 0o755); err != nil { //nolint:gosec // as the hub's own tools make theirs
			return err
		}
	}
	return nil
}

// lock keeps others from changing the repository. waiting is called once if
// somebody else has it. The kernel frees it when the process ends, however it does.
func (r repo) lock(ctx context.Context, waiting func()) (unlock func(), err error) {
	l, err := filelock.Wait(ctx, filepath.Join(r.locks, "rbee.lock"), 0o755, filelock.NoLimit, waiting)
	switch {
	case ctx.Err() != nil && err != nil:
		return nil, fmt.Errorf("waiting for another download of %s: %w", r.name, context.Cause(ctx))
	case err != nil:
		return nil, fmt.Errorf("taking the lock of %s: %w", r.name, err)
	}
	return func() { _ = l.Close() }, nil
}

// theirSuffix ends the name of a blob that huggingface_hub is fetching.
const theirSuffix = ".incomplete"

func (r repo) theirs(etag string) string { return r.blob(etag) + theirSuffix }

// theirLock is what huggingface_hub locks while it fetches a blob.
func (r repo) theirLock(etag string) string { return filepath.Join(r.locks, etag+".lock") }

// theirsHeld reports whether huggingface_hub fetches a blob at this moment.
func (r repo) theirsHeld(etag string) bool {
	return filelock.Held(r.theirLock(etag))
}

// link makes the snapshot's name for a blob.
func (r repo) link(commit string, f model.File) error {
	at := filepath.Join(r.snapshot(commit), filepath.FromSlash(f.Path))
	target, err := filepath.Rel(filepath.Dir(at), r.blob(f.Etag))
	if err != nil {
		return err
	}
	if now, err := os.Readlink(at); err == nil && now == target {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil { //nolint:gosec // as the hub's own tools make theirs
		return err
	}
	return atomicfile.Symlink(target, at, at+".rbee-link")
}

// plan is what a download that is not whole yet is about.
type plan struct {
	Commit   string       `json:"commit"`
	Revision string       `json:"revision"`
	Files    []model.File `json:"files"`
}

// path names a plan by what it is about, so that asking again is the same plan.
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
	_ = os.Remove(r.plans()) // only if it is empty
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// readPlans reads the plans of downloads that are not whole.
func (r repo) readPlans() []plan {
	names, _ := filepath.Glob(filepath.Join(r.plans(), "*.json"))
	var plans []plan
	for _, name := range names {
		var p plan
		if statefile.Read(name, &p) != nil || !model.IsCommit(p.Commit) {
			continue // not ours, or half written by a disk that was full
		}
		if !slices.ContainsFunc(p.Files, func(f model.File) bool { return !f.Valid() }) {
			plans = append(plans, p)
		}
	}
	return plans
}
