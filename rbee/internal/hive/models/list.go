package models

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

// snapshotFile is a file of a snapshot, or a file of an incomplete download.
type snapshotFile struct {
	model.File
	missing bool
	plain   bool // a regular file instead of a link to a blob
}

// snapshot is one commit of a repository with its local files.
type snapshot struct {
	repo      repo
	commit    string
	revisions []string // sorted, shortest first
	files     []snapshotFile
}

// snapshots returns the local snapshots of the repository, including incomplete ones.
func (r repo) snapshots() ([]snapshot, error) {
	refs, err := r.refs()
	if err != nil {
		return nil, err
	}
	commits := map[string]map[string]snapshotFile{}
	entries, err := os.ReadDir(filepath.Join(r.dir, "snapshots"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, e := range entries {
		if e.IsDir() && model.IsCommit(e.Name()) {
			commits[e.Name()] = r.readSnapshot(e.Name())
		}
	}
	for _, p := range r.readPlans() {
		// A revision that refers to a commit keeps it until the download is complete.
		if _, exists := refs[p.Revision]; !exists && model.ValidRevision(p.Revision) && !model.IsCommit(p.Revision) {
			refs[p.Revision] = p.Commit
		}
		if commits[p.Commit] == nil {
			commits[p.Commit] = map[string]snapshotFile{}
		}
		for _, f := range p.Files {
			if _, exists := commits[p.Commit][f.Path]; !exists {
				commits[p.Commit][f.Path] = snapshotFile{File: f, missing: true}
			}
		}
	}
	var list []snapshot
	for _, commit := range slices.Sorted(maps.Keys(commits)) {
		s := snapshot{repo: r, commit: commit}
		for name, c := range refs {
			if c == commit {
				s.revisions = append(s.revisions, name)
			}
		}
		slices.SortFunc(s.revisions, func(a, b string) int { return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b)) })
		for _, name := range slices.Sorted(maps.Keys(commits[commit])) {
			s.files = append(s.files, commits[commit][name])
		}
		list = append(list, s)
	}
	return list, nil
}

// refs returns the commits by revision.
func (r repo) refs() (map[string]string, error) {
	refs, root := map[string]string{}, filepath.Join(r.dir, "refs")
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p) //nolint:gosec // below the cache
		name, relErr := filepath.Rel(root, p)
		if commit := string(bytes.TrimSpace(data)); err == nil && relErr == nil && model.IsCommit(commit) {
			refs[filepath.ToSlash(name)] = commit
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return refs, err
}

// readSnapshot returns the files of a commit by path. Most files are links to blobs; on
// systems without links they are regular files.
func (r repo) readSnapshot(commit string) map[string]snapshotFile {
	files, root := map[string]snapshotFile{}, r.snapshot(commit)
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(root, p)
		if err != nil || relErr != nil || d.IsDir() || strings.HasSuffix(p, ".rbee-link") {
			return nil // unreadable files are not listed
		}
		f := snapshotFile{File: model.File{Path: filepath.ToSlash(rel)}, plain: true}
		if target, err := os.Readlink(p); err == nil {
			f.plain = false
			if etag := filepath.Base(target); model.IsEtag(etag) {
				f.Etag = etag
			}
		}
		info, err := os.Stat(p)
		if f.missing = err != nil; err == nil {
			f.Size = info.Size()
		}
		files[f.Path] = f
		return nil
	})
	return files
}

// models groups the files of a snapshot into models.
func (s snapshot) models() []operations.Model {
	var ggufs, others []string
	for _, f := range s.files {
		if model.IsGGUF(f.Path) {
			ggufs = append(ggufs, f.Path)
		} else {
			others = append(others, f.Path)
		}
	}
	groups := model.GroupGGUF(ggufs)
	names := model.GroupIDs(groups)
	var list []operations.Model
	for i, g := range groups {
		list = append(list, s.newModel(s.repo.name+":"+names[i], "gguf", s.selectFiles(g.Files)))
	}
	weights := slices.ContainsFunc(others, model.IsSafetensors)
	if len(others) > 0 && (weights || len(groups) == 0) {
		format := ""
		if weights {
			format = "safetensors"
		}
		list = append(list, s.newModel(s.repo.name, format, s.selectFiles(others)))
	}
	return list
}

// selectFiles returns the files with these paths.
func (s snapshot) selectFiles(names []string) []snapshotFile {
	var files []snapshotFile
	for _, f := range s.files {
		if slices.Contains(names, f.Path) {
			files = append(files, f)
		}
	}
	return files
}

// revisionSuffix returns the revision part of a model ID, such as "@v2", or "" for main.
func (s snapshot) revisionSuffix() string {
	switch {
	case slices.Contains(s.revisions, "main"):
		return ""
	case len(s.revisions) > 0:
		return "@" + s.revisions[0]
	default:
		return "@" + s.commit[:12]
	}
}

func (s snapshot) newModel(id, format string, files []snapshotFile) operations.Model {
	m := operations.Model{
		ID: id + s.revisionSuffix(), Repo: s.repo.name, Revisions: s.revisions, Commit: s.commit, Format: format,
		Path: s.repo.snapshot(s.commit), Complete: true,
	}
	if format == "gguf" {
		m.Path = filepath.Join(m.Path, filepath.FromSlash(files[0].Path))
	}
	seen := map[string]bool{}
	for _, f := range files {
		file := operations.ModelFile{Path: f.Path, Bytes: f.Size, Missing: f.missing}
		if f.IsLFS() {
			file.SHA256 = f.Etag
		}
		m.Files = append(m.Files, file)
		if f.missing {
			m.Complete = false
		}
		if f.Etag != "" && seen[f.Etag] {
			continue
		}
		seen[f.Etag] = true
		if f.missing {
			m.PartialBytes += s.repo.partialBytes(f.File)
			continue
		}
		m.Bytes += f.Size
		if info, err := os.Stat(filepath.Join(s.repo.snapshot(s.commit), filepath.FromSlash(f.Path))); err == nil && info.ModTime().After(m.ModifiedAt) {
			m.ModifiedAt = info.ModTime().UTC()
		}
	}
	if m.Complete && format == "safetensors" {
		m.Complete = s.hasAllShards(files)
	}
	return m
}

// partialBytes returns how many bytes of an incomplete file are present, from a download of
// rbee or of another tool.
func (r repo) partialBytes(f model.File) int64 {
	if f.Etag == "" {
		return 0
	}
	if n := fetch.Partial(r.blob(f.Etag), f.Size, bootID()); n > 0 {
		return n
	}
	if info, err := os.Stat(r.hubPartPath(f.Etag)); err == nil && info.Size() <= f.Size {
		return info.Size()
	}
	return 0
}

// hasAllShards reports whether all shards in the snapshot's index are present.
func (s snapshot) hasAllShards(files []snapshotFile) bool {
	const index = "model.safetensors.index.json"
	i := slices.IndexFunc(files, func(f snapshotFile) bool { return f.Path == index })
	if i < 0 || files[i].Size > 64<<20 {
		return true
	}
	data, err := os.ReadFile(filepath.Join(s.repo.snapshot(s.commit), index))
	var content struct {
		WeightMap map[string]string `json:"weight_map"`
	}
	if err != nil || json.Unmarshal(data, &content) != nil {
		return true // without an index, no shard is known to be missing
	}
	for _, shard := range content.WeightMap {
		if !slices.ContainsFunc(files, func(f snapshotFile) bool { return f.Path == shard && !f.missing }) {
			return false
		}
	}
	return true
}

// repos returns the repositories in the cache, sorted by name.
func (s *Store) repos() ([]repo, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("cannot list models: %w", err)
	}
	var list []repo
	for _, e := range entries {
		name, ok := strings.CutPrefix(e.Name(), "models--")
		if !ok || !e.IsDir() {
			continue
		}
		if name = strings.Replace(name, "--", "/", 1); !strings.Contains(name, "--") {
			list = append(list, s.repo(name))
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].name < list[j].name })
	return list, nil
}

// repoModels returns the models of one repository with their files.
func repoModels(r repo) ([]operations.Model, error) {
	snapshots, err := r.snapshots()
	if err != nil {
		return nil, fmt.Errorf("cannot read repository %s: %w", r.dir, err)
	}
	var list []operations.Model
	for _, s := range snapshots {
		list = append(list, s.models()...)
	}
	sort.Slice(list, func(i, j int) bool { return list[i].ID < list[j].ID })
	return list, nil
}

// List returns all models in the cache without their files, sorted by ID. It includes
// incomplete models and models of other tools.
func (s *Store) List(ctx context.Context) ([]operations.Model, error) {
	repos, err := s.repos()
	if err != nil {
		return nil, err
	}
	var list []operations.Model
	for _, r := range repos {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		models, err := repoModels(r)
		if err != nil {
			return nil, err
		}
		for _, m := range models {
			m.Files = nil
			list = append(list, m)
		}
	}
	return list, nil
}

// Get returns one model with its files. id is an ID from List, or any reference that
// selects one local model. For an unknown model, the error is an [*operations.Error] with
// CodeNotFound.
func (s *Store) Get(ctx context.Context, id string) (*operations.Model, error) {
	ref, err := model.ParseRef(id)
	if err != nil {
		return nil, err
	}
	return s.lookup(ctx, ref, id)
}

// Find returns the complete model to which a reference refers, for use by an engine. For a
// reference to a single file or to a URL, the result has only this file.
func (s *Store) Find(ctx context.Context, ref model.Ref) (*operations.Model, error) {
	m, err := s.lookup(ctx, ref, ref.String())
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(m.Files, func(f operations.ModelFile) bool { return f.Path == ref.Part || ref.URL != "" }); i >= 0 && m.Format != "gguf" {
		f := m.Files[i]
		m.Path = filepath.Join(m.Path, filepath.FromSlash(f.Path))
		m.Files, m.Bytes, m.Complete = []operations.ModelFile{f}, f.Bytes, !f.Missing
	}
	if !m.Complete {
		return nil, failure(operations.ReasonModelIncomplete, ref.String(), nil, "model %q is incomplete: its download was not finished", ref)
	}
	return m, nil
}

func (s *Store) lookup(ctx context.Context, ref model.Ref, id string) (*operations.Model, error) {
	sum := ref.SHA256
	if ref.URL != "" {
		ref = model.Ref{Repo: ref.LocalRepo()}
	}
	all, err := repoModels(s.repo(ref.Repo))
	if err != nil {
		return nil, err
	}
	if sum != "" {
		all = slices.DeleteFunc(all, func(m operations.Model) bool {
			return !slices.ContainsFunc(m.Files, func(f operations.ModelFile) bool { return f.SHA256 == sum })
		})
		if len(all) > 0 {
			return &all[0], nil
		}
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	matching := slices.DeleteFunc(slices.Clone(all), func(m operations.Model) bool { return !hasRevision(m, ref.RevisionOrMain()) })
	if m, ok := selectModel(matching, ref.Part); ok {
		return m, nil
	}
	return nil, s.notFoundError(ctx, ref, id, all)
}

// hasRevision reports whether a model belongs to a revision, or to a commit given by at
// least 7 digits.
func hasRevision(m operations.Model, revision string) bool {
	return slices.Contains(m.Revisions, revision) || len(revision) >= 7 && strings.HasPrefix(m.Commit, revision)
}

// selectModel selects the model to which a part refers among the models of one commit.
func selectModel(list []operations.Model, part string) (*operations.Model, bool) {
	if part == "" {
		for i := range list {
			if len(list) == 1 || list[i].Format != "gguf" {
				return &list[i], true
			}
		}
		part = model.DefaultQuant
	}
	var files []string
	owner := map[string]int{}
	for i, m := range list {
		for _, f := range m.Files {
			if m.Format == "gguf" {
				files = append(files, f.Path)
			}
			owner[f.Path] = i
		}
	}
	if g, _ := model.MatchGGUF(model.GroupGGUF(files), part); g != nil {
		return &list[owner[g.Files[0]]], true
	}
	if i, ok := owner[part]; ok {
		return &list[i], true
	}
	return nil, false
}

// notFoundError returns the error for a model that is not on the hive. The message names
// models of the same repository, or with a similar name.
func (s *Store) notFoundError(ctx context.Context, ref model.Ref, id string, sameRepo []operations.Model) error {
	if len(sameRepo) > 0 {
		names := make([]string, len(sameRepo))
		for i, m := range sameRepo {
			names[i] = m.ID
		}
		return notFound(operations.ReasonModelNotFound, id, "model %q is not on this hive; models of %s on this hive: %s", id, ref.Repo, strings.Join(names, ", "))
	}
	all, err := s.List(ctx)
	if err != nil || len(all) == 0 {
		return notFound(operations.ReasonModelNotFound, id, "model %q is not on this hive", id)
	}
	var similar []string
	for _, m := range all {
		if strings.EqualFold(path.Base(m.Repo), path.Base(ref.Repo)) || strings.Contains(strings.ToLower(m.Repo), strings.ToLower(path.Base(ref.Repo))) {
			similar = append(similar, m.ID)
		}
	}
	if len(similar) == 0 {
		return notFound(operations.ReasonModelNotFound, id, "model %q is not on this hive", id)
	}
	return notFound(operations.ReasonModelNotFound, id, "model %q is not on this hive; did you mean %s?", id, strings.Join(similar[:min(len(similar), 5)], ", "))
}
