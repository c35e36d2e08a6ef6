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

// Options are those of [Client.DownloadFiles]. The zero value works.
type Options struct {
	// Connections is how many are used at once, for all files; 0 is 8.
	Connections int

	// ChunkSize is how much of a file a connection fetches at a time, in bytes; 0 is 16 MiB.
	ChunkSize int64

	// Pause is how long to wait before the first retry; 0 is 250 ms.
	Pause time.Duration

	// BootID names this boot of the machine. Without it only what was brought to disk of
	// an earlier download counts.
	BootID string
}

// DownloadFiles downloads files in chunks, over several connections. Each must have its
// exact size and its checksum; an address may also be of the scheme file. What arrives is
// written down in a journal, so that a later call goes on where this one ends, whatever
// ends it. Each file appears at its path once its checksum is right. Files may be downloaded
// by one call at a time.
//
// A file with a wrong checksum is downloaded once more; the second time the error is a
// [*MismatchError]. One that cannot be downloaded is a [*TransferError].
func (f *Client) DownloadFiles(ctx context.Context, files []File, o Options) error {
	for round := 1; len(files) > 0; round++ {
		wrong, err := f.downloadRound(ctx, files, o)
		if err != nil {
			return err
		}
		if len(wrong) > 0 && round == 2 {
			return wrong[0].error
		}
		files = nil
		for _, w := range wrong {
			files = append(files, w.File)
			w.progress(-w.Size)
		}
	}
	return nil
}

// wrongFile is a file that came with the wrong content.
type wrongFile struct {
	File
	error
}

// downloadRound downloads files once. Files with the wrong content are no error of it.
func (f *Client) downloadRound(ctx context.Context, files []File, o Options) (wrong []wrongFile, err error) {
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
		p := &part{File: &file, client: f, pause: o.Pause, boot: o.BootID}
		chunk := cmp.Or(o.ChunkSize, defaultChunk)
		local, isLocal := LocalPath(file.URL)
		if isLocal {
			p.discard()
			chunk = max(file.Size, 1)
		}
		if e := p.open(chunk); e != nil {
			fail(fmt.Errorf("making room for %s: %w", file.name(), e))
			break
		}
		todo := p.have.missing()
		var fetching sync.WaitGroup
		fetching.Add(len(todo))
		checks.Go(func() {
			e := p.verify(ctx)
			fetching.Wait()
			p.close()
			var sum *MismatchError
			switch {
			case errors.As(e, &sum):
				mu.Lock()
				wrong = append(wrong, wrongFile{file, e})
				mu.Unlock()
			case e != nil:
				fail(e)
			}
		})
		for _, i := range todo {
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
	return wrong, err
}

// LocalPath returns the path that an address of the scheme file names; ok is false for
// other addresses.
func LocalPath(address string) (path string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "file" {
		return "", false
	}
	return filepath.FromSlash(u.Path), true
}
