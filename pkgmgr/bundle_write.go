package pkgmgr

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/resolve"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// BundleOptions are the options of [Fleet.WriteBundle].
type BundleOptions struct {
	// Platforms are the possible platforms of hives that could not be read. The
	// bundle contains all variants of their workers for these platforms. Empty means
	// linux/amd64 with glibc.
	Platforms []wire.Platform

	// Recipes contains the texts of the user's own recipes, by file name.
	Recipes map[string]string
}

// WriteBundle writes a bundle with all artifacts that the hives need. Call [Fleet.Read]
// first, so that the bundle contains only the variants for the actual machines. It fetches
// artifacts that are not in the cache, and writes the file atomically.
func (f *Fleet) WriteBundle(ctx context.Context, path string, o BundleOptions) (*operations.BundleReport, error) {
	start := time.Now()
	if len(o.Platforms) == 0 {
		o.Platforms = []wire.Platform{{OS: "linux", Arch: "amd64", Libc: "glibc"}}
	}
	want, _ := f.resolveDesired(ctx, plan.Options{Fetch: true})
	c := &bundleContents{fleet: f, artifacts: map[string]bundleArtifact{}, report: &operations.BundleReport{Path: path, Platforms: []string{}}}
	c.collect(ctx, want, o)
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	r := c.report
	hash := sha256.New()
	var contentErr error
	err := atomicfile.Write(path, 0o644, func(w io.Writer) error {
		counter := &countingWriter{w: io.MultiWriter(w, hash)}
		defer func() { r.Bytes = counter.n }()
		contentErr = c.write(ctx, tar.NewWriter(counter), o)
		return contentErr
	})
	switch {
	case contentErr != nil:
		return nil, fmt.Errorf("cannot write the bundle: %w", contentErr)
	case err != nil:
		return nil, operations.FileError(path, "cannot write the bundle", err)
	}
	r.SHA256, r.Artifacts, r.DurationSeconds = hex.EncodeToString(hash.Sum(nil)), len(c.artifacts), seconds(time.Since(start))
	return r, nil
}

// countingWriter counts the bytes written.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}

// bundleArtifact is an artifact of a bundle.
type bundleArtifact struct {
	artifact wire.Artifact
	file     string // on this machine; empty to fetch it
}

// bundleContents collects the contents of a bundle.
type bundleContents struct {
	fleet     *Fleet
	artifacts map[string]bundleArtifact // by SHA-256
	binaries  []wire.Platform
	report    *operations.BundleReport
}

// collect adds the platforms and the artifacts of all hives.
func (c *bundleContents) collect(ctx context.Context, desired plan.Desired, o BundleOptions) {
	f := c.fleet
	l := resolve.NewLookup(f.lookupInput(), plan.Options{Fetch: true})
	for _, m := range f.members {
		if m.extra {
			continue
		}
		platforms := o.Platforms
		if m.state != nil {
			platforms = []wire.Platform{m.state.Platform}
		}
		for _, p := range platforms {
			if !slices.ContainsFunc(c.binaries, func(have wire.Platform) bool { return have.Key() == p.Key() }) {
				c.binaries = append(c.binaries, p)
			}
			for _, w := range m.hive.Workers {
				if m.state != nil {
					want := desired.Workers[plan.WorkerKey{Hive: m.hive.Alias, Type: w.Type}]
					c.add(m.hive.Alias, w.Type, p, want)
					continue
				}
				for _, want := range l.Variants(ctx, w, p) {
					c.add(m.hive.Alias, w.Type, p, want)
				}
			}
		}
	}
	sort.Slice(c.report.Workers, func(i, j int) bool {
		a, b := &c.report.Workers[i], &c.report.Workers[j]
		return cmp.Or(cmp.Compare(a.Worker, b.Worker), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Variant, b.Variant), cmp.Compare(a.Platform, b.Platform)) < 0
	})
	c.report.Workers = slices.Compact(c.report.Workers)
}

// add adds the artifacts of a worker, or reports why it cannot be installed.
func (c *bundleContents) add(hive, typ string, p wire.Platform, want plan.DesiredWorker) {
	if want.Err != nil {
		c.report.Blocked = append(c.report.Blocked, operations.Blocked{
			Hive: hive, Worker: typ, Reason: want.Err.Error(), Error: stepError(config.Hive{Alias: hive}, operations.Step{Worker: typ}, want.Err),
		})
		return
	}
	for i := range want.Steps {
		for _, a := range want.Steps[i].Artifacts() {
			c.artifacts[a.SHA256] = bundleArtifact{*a, want.Files[a.SHA256]}
		}
	}
	c.report.Workers = append(c.report.Workers, operations.BundleContents{
		Worker: typ, Version: want.Version, Variant: want.Variant, Platform: p.Name(), Bytes: wire.TotalSize(want.Steps),
	})
}

// write writes the tar file.
func (c *bundleContents) write(ctx context.Context, t *tar.Writer, o BundleOptions) error {
	f := c.fleet
	binaries, sums := map[string]*artifact.Binary{}, map[string]string{}
	for _, p := range c.binaries {
		if f.opts.Binaries == nil {
			break
		}
		b, err := f.opts.Binaries.Binary(ctx, p, true)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("rbee-%s-%s", p.OS, p.Arch)
		binaries[name], sums[name] = b, b.SHA256
		c.report.Platforms = append(c.report.Platforms, p.Key())
	}
	slices.Sort(c.report.Platforms)
	index, err := json.Marshal(artifact.BundleIndex{
		Versioned: wire.Versioned{Schema: artifact.BundleSchema, MinReader: artifact.BundleSchema},
		Format:    artifact.BundleFormat, Version: f.opts.Version, CreatedAt: time.Now().UTC().Truncate(time.Second),
		Lock: json.RawMessage(f.opts.Lock.BundleText()), Recipes: o.Recipes, Binaries: sums,
		Entries: len(binaries) + len(c.artifacts),
	})
	if err != nil {
		return err
	}
	if err := putEntry(t, artifact.BundleIndexName, int64(len(index)), bytes.NewReader(index)); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(binaries)) {
		r, err := binaries[name].Open()
		if err != nil {
			return err
		}
		err = putEntry(t, artifact.BundleBinaries+name, binaries[name].Size, r)
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
	}
	for i, sum := range slices.Sorted(maps.Keys(c.artifacts)) {
		a := c.artifacts[sum]
		f.emit(operations.Event{Type: operations.EventNote, Message: fmt.Sprintf("%d of %d: %s", i+1, len(c.artifacts), a.artifact.Name)})
		if err := c.putArtifact(ctx, t, sum, a); err != nil {
			return err
		}
	}
	return t.Close()
}

// putArtifact writes an artifact to the tar file and checks its SHA-256.
func (c *bundleContents) putArtifact(ctx context.Context, t *tar.Writer, sum string, a bundleArtifact) error {
	in, _, err := c.fleet.artifacts.Open(ctx, a.artifact, a.file, false)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	h := sha256.New()
	if err := putEntry(t, artifact.BundleArtifacts+sum, info.Size(), io.TeeReader(in, h)); err != nil {
		return err
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != sum {
		return fmt.Errorf("%s has SHA-256 %s, want %s", a.artifact.Name, got, sum)
	}
	return nil
}

// putEntry writes a regular file to the tar file.
func putEntry(t *tar.Writer, name string, size int64, content io.Reader) error {
	if err := t.WriteHeader(&tar.Header{Name: name, Size: size, Mode: 0o644, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := io.Copy(t, content)
	return err
}
