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

const defaultStallTimeout = 60 * time.Second // without a byte

func (in *Installer) stallLimit() time.Duration { return cmp.Or(in.stall, defaultStallTimeout) }

// maxParallelDownloads is how many artifacts of one step are downloaded at a time.
const maxParallelDownloads = 4

// get makes artifacts be in the download directory, each checked, and gives their
// paths. What is there already, of an install that did not end well, counts.
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
			err = st.receive(a, paths[i]) // over the one connection, one after the other
		}
	}
	st.incomplete = err != nil
	return paths, err
}

// hasArtifact reports whether an artifact is there, with the right content.
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

// receive asks the other side for an artifact and stores it. The other side may have
// to fetch it first, which takes as long as it takes and shows no sign of life; once
// it sends it does not pause.
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
		return fmt.Errorf("receiving %s: %w", a.Name, err)
	}
	err = fetch.Save(blob, fetchFile(a, path, nil))
	// Whatever went wrong, the next blob begins only after this one's end.
	if closeErr := blob.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("receiving %s: %w", a.Name, err)
	}
	return nil
}

// stallReader calls stalled when no byte has come for a limit, from the first one
// until stop. It is for one goroutine.
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

// partSuffix marks what has arrived of an artifact.
const partSuffix = fetch.PartSuffix

// download fetches an artifact and stores it, going on with what an earlier try
// has brought.
func (st *stage) download(ctx context.Context, client *fetch.Client, a *wire.Artifact, path string) error {
	if st.hasArtifact(a, path) {
		return nil
	}
	return client.Download(ctx, fetchFile(a, path, st.addReceived))
}

// fetchFile is an artifact as it is downloaded.
func fetchFile(a *wire.Artifact, path string, arrived func(n int64)) fetch.File {
	return fetch.File{URL: a.URL, Path: path, Sum: a.SHA256, Size: a.Size, SkipSync: true, Progress: arrived}
}

// newFetchClient is how artifacts are downloaded.
func (in *Installer) newFetchClient() *fetch.Client {
	c := &fetch.Client{HTTP: in.HTTP, UserAgent: "rbee/" + in.Store.Version, Verb: "downloading", Stall: in.stallLimit()}
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
