package fetch

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
)

const (
	defaultChunk  = 16 << 20    // size of a chunk in bytes
	bufferSize    = 512 << 10   // size of the read buffer of a chunk in bytes
	syncThreshold = 128 << 20   // number of unsynced bytes that triggers a sync
	syncTimeout   = time.Second // maximum time that close waits for the last sync
)

// part is a file that is being downloaded in chunks.
type part struct {
	*File
	client *Client
	pause  time.Duration // before the first retry
	boot   string        // ID of the current boot of the machine

	f       *os.File
	journal *journal

	mu        sync.Mutex
	cond      *sync.Cond // signals new data, the end of a sync, or an error
	received  *chunks
	address   string // URL of the content after redirects, may expire; empty if unknown
	noRanges  bool   // the server does not support ranges: one request fetches everything
	streaming bool   // that request is running
	unsynced  int64  // bytes that may not be synced to disk
	syncing   bool   // a sync is running
	finished  bool   // the file was renamed to its path or discarded

	syncFailed bool
	err        error
}

// PartPath returns the path of the file in which [Client.DownloadFiles] stores the received
// data of the file at path. The file has its final size from the start.
func PartPath(path string) string { return path + ".rbee-part" }

// JournalPath returns the path of the journal that records which bytes of the file at
// [PartPath] have been received.
func JournalPath(path string) string { return path + ".rbee-journal" }

// Partial returns how many bytes of the file at path an earlier [Client.DownloadFiles] has
// received. size is the size of the complete file. bootID identifies the current boot of the
// machine; if it is empty or differs from the one in the journal, Partial counts only synced
// data.
func Partial(path string, size int64, bootID string) int64 {
	info, err := os.Stat(PartPath(path))
	if err != nil || info.Size() != size {
		return 0
	}
	received, _, err := readJournal(JournalPath(path), size, bootID)
	if err != nil {
		return 0
	}
	return received.total()
}

// open opens the file and the journal of an earlier download, or creates new ones with the
// given chunk size.
func (p *part) open(chunk int64) (err error) {
	p.cond = sync.NewCond(&p.mu)
	p.f, err = os.OpenFile(PartPath(p.Path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	var synced *chunks
	info, err := p.f.Stat()
	if err == nil && info.Size() == p.Size {
		p.received, synced, err = readJournal(JournalPath(p.Path), p.Size, p.boot)
	} else if err == nil {
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		p.received, synced = newChunks(p.Size, chunk), newChunks(p.Size, chunk)
		if err = p.f.Truncate(0); err == nil {
			err = p.adoptPrefix()
		}
		if err == nil {
			err = p.f.Truncate(p.Size)
		}
	}
	if err == nil {
		p.unsynced = p.received.total() - synced.total()
		p.journal, err = openJournal(JournalPath(p.Path), p.received, synced, p.boot)
	}
	if err != nil {
		_ = p.f.Close()
	}
	return err
}

// adoptPrefix renames p.Prefix, the incomplete download of another program, to the file of
// p, unless that program is using it. The checksum of the complete file also covers this
// data.
func (p *part) adoptPrefix() error {
	if p.Prefix == "" {
		return nil
	}
	info, err := os.Stat(p.Prefix)
	if err != nil || info.Size() == 0 || info.Size() > p.Size {
		return nil // nothing to adopt
	}
	lockFile, err := os.OpenFile(p.PrefixLock, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // the mode that the other program uses
	if err != nil {
		return nil // adopting the prefix is optional
	}
	_ = lockFile.Close()
	lock, err := filelock.Try(p.PrefixLock, 0o755)
	if err != nil {
		return nil //nolint:nilerr // the other program is using the file
	}
	defer lock.Close()
	_ = p.f.Close()
	if err := os.Rename(p.Prefix, PartPath(p.Path)); err != nil {
		return err
	}
	if p.f, err = os.OpenFile(PartPath(p.Path), os.O_RDWR, 0o600); err != nil {
		return err
	}
	for i := range p.received.done {
		from, to := p.received.span(i)
		p.received.done[i] = max(0, min(to, info.Size())-from)
	}
	return nil
}

// close syncs the received data to disk for a later download, and closes the files. If this
// takes longer than syncTimeout, it continues in the background. All other methods must have
// returned.
func (p *part) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.mu.Lock()
		for p.syncing {
			p.cond.Wait()
		}
		// After a failed sync, a successful one does not prove that all data is on disk.
		needsSync := p.unsynced > 0 && !p.finished && !p.syncFailed
		p.mu.Unlock()
		if needsSync {
			_ = p.syncJournal() // unsynced data is fetched again
		}
		p.journal.close()
		_ = p.f.Close()
	}()
	timeout := time.NewTimer(syncTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
}

// discard removes the received data and its journal.
func (p *part) discard() {
	_ = os.Remove(JournalPath(p.Path)) // first: without the journal, the data is ignored
	_ = os.Remove(PartPath(p.Path))
}

// fail records the first error of the download and wakes up verify.
func (p *part) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.cond.Broadcast()
}

// fetch downloads one chunk, with retries.
func (p *part) fetch(ctx context.Context, chunk int) error {
	return retry(ctx, p.pause, func(failures int) (progress bool, err error) {
		for {
			before, done := p.chunkState(chunk)
			if done {
				return progress, nil
			}
			staleURL, err := p.attempt(ctx, chunk)
			now, _ := p.chunkState(chunk)
			progress = progress || now > before
			if err == nil {
				continue
			}
			if progress {
				failures = 0
			}
			return progress, p.classify(ctx, err, staleURL, failures+1)
		}
	})
}

// chunkState returns how many bytes of the file have been received, and whether the caller
// has nothing more to do for a chunk: the chunk is complete or, if the server does not
// support ranges, the file is complete or another goroutine is fetching it.
func (p *part) chunkState(chunk int) (total int64, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	total = p.received.total()
	if p.noRanges {
		return total, p.streaming || total == p.Size
	}
	return total, p.received.isComplete(chunk)
}

// classify returns the error of an attempt, marked as permanent if a retry cannot succeed.
// failures is the number of consecutive failures, including this one.
func (p *part) classify(ctx context.Context, err error, staleURL string, failures int) error {
	var status *StatusError
	switch {
	case ctx.Err() != nil:
		return backoff.Permanent(context.Cause(ctx))
	case IsDiskFull(err):
		return backoff.Permanent(err)
	case errors.As(err, &status) && staleURL != "" && failures < maxFailures/2:
		p.forgetURL(staleURL) // the URL may have expired; the next attempt requests a new one
		return err
	case errors.As(err, &status) && !status.Temporary(), failures >= maxFailures:
		return backoff.Permanent(&TransferError{p.name(), err})
	}
	return err
}

// forgetURL clears p.address if it still has the given value.
func (p *part) forgetURL(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address == address {
		p.address = ""
	}
}

// attempt sends one request for the missing bytes of a chunk. If the server does not support
// ranges, it fetches the missing bytes of all chunks. If the request fails with an error
// status, staleURL is the redirected URL that may have expired; empty without a redirect.
func (p *part) attempt(ctx context.Context, chunk int) (staleURL string, err error) {
	p.mu.Lock()
	from, to := p.received.span(chunk)
	from += p.received.done[chunk]
	address := p.address
	p.mu.Unlock()
	staleURL = address
	first := p.client.MirrorURL(p.URL)
	if address == "" {
		address = first
	}
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to-1)}, "Accept-Encoding": {"identity"}}
	err = p.client.get(ctx, address, header, func(resp *http.Response, body io.Reader) error {
		final := resp.Request.URL.String()
		switch resp.StatusCode {
		case http.StatusPartialContent:
			if err := p.checkRange(resp, from); err != nil {
				return err
			}
		case http.StatusOK:
			if resp.ContentLength >= 0 && resp.ContentLength != p.Size {
				return &SizeError{Name: p.name(), Got: resp.ContentLength, Want: p.Size}
			}
			return p.writeAll(body)
		default:
			if final != first {
				staleURL = final // a URL can expire between the redirect and its use
			}
			return NewStatusError(resp)
		}
		if final != first {
			p.mu.Lock()
			p.address = final
			p.mu.Unlock()
		}
		return p.writeChunk(body, chunk, from, to)
	})
	return staleURL, err
}

// checkRange returns an error if a partial response does not start at from, or if the size of
// the file on the server is not p.Size.
func (p *part) checkRange(resp *http.Response, from int64) error {
	var first, last, total int64
	text := resp.Header.Get("Content-Range")
	if n, _ := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total); n < 2 || first != from || n == 3 && total != p.Size {
		return fmt.Errorf("invalid Content-Range %q: want start %d and size %d", text, from, p.Size)
	}
	return nil
}

// writeChunk copies a body to the file, from offset at up to offset to. Both offsets are in
// the same chunk.
func (p *part) writeChunk(body io.Reader, chunk int, at, to int64) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for at < to {
		n, err := readSome(body, (*buf)[:min(int64(len(*buf)), to-at)])
		if n > 0 {
			written, err := p.f.WriteAt((*buf)[:n], at) // partial on a full disk
			at += int64(written)
			if recordErr := p.recordProgress(chunk, at, int64(written)); err == nil {
				err = recordErr
			}
			if err != nil {
				return fmt.Errorf("cannot write %s: %w", p.name(), err)
			}
		}
		if err != nil && at < to {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// readSome reads until buf is full or about 250 ms have passed. Large writes are cheaper, but
// received data must be recorded soon.
func readSome(r io.Reader, buf []byte) (n int, err error) {
	for start := time.Now(); n < len(buf) && err == nil && time.Since(start) < 250*time.Millisecond; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// writeAll writes the body of a response from a server that does not support ranges. It
// skips the data that has already been received. Other requests for the same file stop.
func (p *part) writeAll(body io.Reader) error {
	p.mu.Lock()
	if p.streaming {
		p.mu.Unlock()
		return nil
	}
	p.noRanges, p.streaming = true, true
	at := p.received.contiguous()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.streaming = false
		p.mu.Unlock()
	}()
	if _, err := io.CopyN(io.Discard, body, at); err != nil {
		return err
	}
	for i := range p.received.done {
		from, to := p.received.span(i)
		if to <= at {
			continue
		}
		p.mu.Lock()
		done := p.received.done[i]
		if from+done > at { // another request fetched data after a gap
			p.received.done[i], done = at-from, at-from
		}
		p.mu.Unlock()
		if err := p.writeChunk(body, i, from+done, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// recordProgress records that n more bytes have been written to the file, and that a chunk
// has been received up to the offset at. It starts a sync if enough data is unsynced.
func (p *part) recordProgress(chunk int, at, n int64) error {
	p.mu.Lock()
	from, _ := p.received.span(chunk)
	done := max(p.received.done[chunk], at-from)
	err := p.journal.record(chunk, done)
	if err == nil {
		p.received.done[chunk] = done
		p.unsynced += n
		if p.unsynced >= syncThreshold && !p.syncing {
			p.syncing, p.unsynced = true, 0
			go p.sync(p.syncJournal)
		}
		p.cond.Broadcast()
	}
	p.mu.Unlock()
	if err == nil {
		p.progress(n)
	}
	return err
}

// syncJournal syncs the received data to disk and records this in the journal.
func (p *part) syncJournal() error { return p.journal.sync(p.f.Sync) }

// sync calls syncFile and then resets p.syncing, which the caller has set. It runs in its
// own goroutine, so that a slow disk does not block the download or its cancellation.
func (p *part) sync(syncFile func() error) {
	err := syncFile()
	if err != nil {
		p.fail(fmt.Errorf("cannot sync %s to disk: %w", p.name(), err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing, p.syncFailed = false, err != nil
	p.cond.Broadcast()
}

// verify computes the checksum while data is being received. Once the file is complete, it
// renames it to its path. If the checksum is wrong, it discards the data and returns a
// [*MismatchError].
func (p *part) verify(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })()
	h, buf := p.newHash(), make([]byte, 1<<20)
	for at := int64(0); at < p.Size; {
		end, err := p.waitForData(at)
		if err != nil {
			return err
		}
		for at < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := p.f.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 && err != nil {
				return fmt.Errorf("cannot read the downloaded data of %s: %w", p.name(), err)
			}
			_, _ = h.Write(buf[:n]) // never returns an error
			at += int64(n)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.Sum {
		p.markFinished()
		p.discard()
		return &MismatchError{Name: p.name(), Got: got, Want: p.Sum}
	}
	return p.finish()
}

// waitForData waits until all bytes before some offset end > at have been received, and
// returns end. It returns immediately if the download has failed.
func (p *part) waitForData(at int64) (end int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && p.received.contiguous() <= at {
		p.cond.Wait()
	}
	return p.received.contiguous(), p.err
}

// finish syncs a verified file to disk, renames it to its path and removes the journal.
func (p *part) finish() error {
	if err := p.f.Chmod(p.mode()); err != nil {
		return err
	}
	p.mu.Lock()
	p.waitForSync()
	if p.err == nil {
		p.syncing = true
		go p.sync(p.f.Sync)
		p.waitForSync()
	}
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.Rename(PartPath(p.Path), p.Path); err != nil {
		return err
	}
	p.markFinished()
	return os.Remove(JournalPath(p.Path))
}

// waitForSync waits until the current sync ends or the download fails. The caller holds p.mu.
func (p *part) waitForSync() {
	for p.syncing && p.err == nil {
		p.cond.Wait()
	}
}

// markFinished records that no data remains for a later download.
func (p *part) markFinished() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.finished = true
}

// copyFile copies a local file instead of downloading it.
func (p *part) copyFile(ctx context.Context, path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	return p.writeChunk(&ctxReader{ctx, src}, 0, 0, p.Size)
}
