package install

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// defaultStallTimeout limits the time in which a transfer receives no data.
const defaultStallTimeout = 60 * time.Second

func (in *Installer) stallLimit() time.Duration { return cmp.Or(in.stall, defaultStallTimeout) }

// maxParallelDownloads limits the parallel downloads of one step.
const maxParallelDownloads = 4

// fetchArtifacts downloads or receives artifacts into the download directory, verifies
// their checksums and returns their paths. It reuses the artifacts and partial downloads of
// an earlier install that failed.
func (st *stage) fetchArtifacts(ctx context.Context, artifacts ...*wire.Artifact) (paths []string, err error) {
	if err := os.MkdirAll(st.Home.Path(wire.DownloadDir), 0o700); err != nil {
		return nil, err
	}
	paths = make([]string, len(artifacts))
	client := st.newFetchClient()
	defer client.HTTP.CloseIdleConnections()
	p := pool.New().WithContext(ctx).WithCancelOnError().WithFirstError().WithMaxGoroutines(maxParallelDownloads)
	for i, a := range artifacts {
		paths[i] = filepath.Join(st.Home.Path(wire.DownloadDir), strings.ToLower(a.SHA256))
		st.downloads = append(st.downloads, paths[i])
		if a.URL != "" {
			p.Go(func(ctx context.Context) error { return st.download(ctx, client, a, paths[i]) })
		}
	}
	err = p.Wait()
	for i, a := range artifacts {
		if a.URL == "" && err == nil {
			err = st.receive(a, paths[i]) // one after another, on the same connection
		}
	}
	st.incomplete = err != nil
	return paths, err
}

// hasArtifact reports whether the file at path has the content of an artifact. It removes a
// file with other content.
func (st *stage) hasArtifact(a *wire.Artifact, path string) bool {
	info, err := os.Stat(path)
	if err != nil {
		return false
	}
	sum, size, err := fetch.HashFile(path)
	if err != nil || size != info.Size() || !equalHex(sum, a.SHA256) {
		_ = os.Remove(path)
		return false
	}
	st.addReceived(size)
	return true
}

// receive requests an artifact from the client and stores it. It waits for the first byte
// without a time limit, because the client may first have to download the artifact itself.
// After the first byte, a pause longer than the stall timeout cancels the run.
func (st *stage) receive(a *wire.Artifact, path string) error {
	if st.hasArtifact(a, path) {
		return nil
	}
	st.send(wire.Message{Need: &wire.Need{Index: st.index, SHA256: a.SHA256}})
	defer st.heartbeat.Pause()()
	in := &stallReader{r: st.in, limit: st.stallLimit(), onStall: st.cancel}
	defer in.stop()
	blob, err := wire.NewBlobReader(in)
	if err != nil {
		return fmt.Errorf("cannot receive %s: %w", a.Name, err)
	}
	err = fetch.Save(blob, fetchFile(a, path, nil))
	// Read to the end of the blob after an error too, because the next blob follows it.
	if closeErr := blob.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("cannot receive %s: %w", a.Name, err)
	}
	return nil
}

// stallReader calls onStall if it receives no data within limit. The timer runs from the
// first byte until stop is called. A stallReader is not safe for concurrent use.
type stallReader struct {
	r       io.Reader
	limit   time.Duration
	onStall func(error)
	timer   *time.Timer // nil before the first byte
}

func (s *stallReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	switch {
	case n == 0:
	case s.timer == nil:
		s.timer = time.AfterFunc(s.limit, func() { s.onStall(&fetch.StallError{Limit: s.limit}) })
	default:
		s.timer.Reset(s.limit)
	}
	return n, err
}

func (s *stallReader) stop() {
	if s.timer != nil {
		s.timer.Stop()
	}
}

// partSuffix is the suffix of a partial download.
const partSuffix = fetch.PartSuffix

// download downloads an artifact and stores it. It resumes a partial download.
func (st *stage) download(ctx context.Context, client *fetch.Client, a *wire.Artifact, path string) error {
	if st.hasArtifact(a, path) {
		return nil
	}
	return client.Download(ctx, fetchFile(a, path, st.addReceived))
}

// fetchFile returns the download parameters of an artifact.
func fetchFile(a *wire.Artifact, path string, progress func(n int64)) fetch.File {
	return fetch.File{URL: a.URL, Path: path, Sum: a.SHA256, Size: a.Size, SkipSync: true, Progress: progress}
}

// newFetchClient returns a client that downloads artifacts.
func (in *Installer) newFetchClient() *fetch.Client {
	c := &fetch.Client{HTTP: in.HTTP, UserAgent: "rbee/" + in.Store.Version, ErrorVerb: "download", Stall: in.stallLimit()}
	if c.HTTP == nil {
		c.HTTP = fetch.NewHTTPClient()
	}
	return c
}

func fileSize(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

func equalHex(a, b string) bool {
	x, errX := hex.DecodeString(a)
	y, errY := hex.DecodeString(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
