package fetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"github.com/sourcegraph/conc/pool"
)

// Options are the options of [Client.DownloadFiles]. The zero value is valid.
type Options struct {
	// Connections is the number of concurrent connections for all files; 0 means 8.
	Connections int

	// ChunkSize is the size of the chunks of a file in bytes; 0 means 16 MiB.
	ChunkSize int64

	// Pause is the pause before the first retry; 0 means 250 ms.
	Pause time.Duration

	// BootID identifies the current boot of the machine. If it is empty, only the
	// synced data of an earlier download is used.
	BootID string
}

// DownloadFiles downloads files in chunks, over several connections. Each file must have Size
// and Sum. URLs may have the scheme file. A journal records the received data: if the call
// fails or the process is killed, a later call resumes the download. Each file appears at its
// path after its checksum has been verified. Concurrent calls must not download the same
// file.
//
// A file with a wrong checksum is downloaded once more. If the checksum is wrong again, the
// error is a [*MismatchError]. If a file cannot be downloaded, the error is a
// [*TransferError].
func (c *Client) DownloadFiles(ctx context.Context, files []File, o Options) error {
	for round := 1; len(files) > 0; round++ {
		mismatched, err := c.downloadRound(ctx, files, o)
		if err != nil {
			return err
		}
		if len(mismatched) > 0 && round == 2 {
			return mismatched[0].error
		}
		files = nil
		for _, m := range mismatched {
			files = append(files, m.File)
			m.progress(-m.Size)
		}
	}
	return nil
}

// mismatchedFile is a file with a wrong checksum.
type mismatchedFile struct {
	File
	error
}

// downloadRound downloads each file once. It returns the files with wrong checksums, which
// are not errors.
func (c *Client) downloadRound(ctx context.Context, files []File, o Options) (mismatched []mismatchedFile, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := pool.New().WithMaxGoroutines(cmp.Or(o.Connections, 8))
	var checks sync.WaitGroup
	var mu sync.Mutex
	fail := func(e error) {
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			err = e
		}
		cancel(e)
	}
	for _, file := range files {
		if ctx.Err() != nil {
			break
		}
		p := &part{File: &file, client: c, pause: o.Pause, boot: o.BootID}
		chunk := cmp.Or(o.ChunkSize, defaultChunk)
		local, isLocal := LocalPath(file.URL)
		if isLocal {
			p.discard()
			chunk = max(file.Size, 1)
		}
		if e := p.open(chunk); e != nil {
			fail(fmt.Errorf("cannot create the file for %s: %w", file.name(), e))
			break
		}
		missing := p.received.missingChunks()
		var fetching sync.WaitGroup
		fetching.Add(len(missing))
		checks.Go(func() {
			e := p.verify(ctx)
			fetching.Wait()
			p.close()
			var mismatch *MismatchError
			switch {
			case errors.As(e, &mismatch):
				mu.Lock()
				mismatched = append(mismatched, mismatchedFile{file, e})
				mu.Unlock()
			case e != nil:
				fail(e)
			}
		})
		for _, i := range missing {
			work.Go(func() {
				defer fetching.Done()
				var e error
				if isLocal {
					e = p.copyFile(ctx, local)
				} else {
					e = p.fetch(ctx, i)
				}
				if e != nil {
					fail(e)
					p.fail(e)
				}
			})
		}
	}
	work.Wait()
	checks.Wait()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return mismatched, err
}

// LocalPath returns the path of a URL with the scheme file; ok is false for other URLs.
func LocalPath(address string) (path string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.FromSlash(u.Path), true
}
