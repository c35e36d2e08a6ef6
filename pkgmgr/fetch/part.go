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
	defaultChunk = 16 << 20
	bufferSize   = 512 << 10
	syncEvery    = 128 << 20   // bytes after which a file is brought to disk
	syncPatience = time.Second // how long a download that ends waits for that
)

// part is one file that is being fetched in chunks.
type part struct {
	*File
	client *Client
	pause  time.Duration // before the first retry
	boot   string        // of the machine

	f       *os.File
	journal *journal

	mu       sync.Mutex
	grown    *sync.Cond // more bytes are there, or on disk, or it has failed
	have     *chunks
	address  string // where it really is, once the server has said; may expire
	noRanges bool   // the server gives none: one connection fetches all
	single   bool   // that connection is under way
	unsynced int64  // bytes that are perhaps not on disk
	syncing  bool   // they are being brought there
	settled  bool   // the file has its name, or was thrown away

	syncFailed bool
	err        error
}

// PartPath returns the path of a file that [Client.DownloadFiles] is fetching, in its full
// length, and JournalPath that of the record of which bytes of it are there.
func PartPath(path string) string { return path + ".rbee-part" }

// JournalPath returns the path of the journal beside [PartPath].
func JournalPath(path string) string { return path + ".rbee-journal" }

// Partial returns how many bytes of a file of this size an earlier
// [Client.DownloadFiles] has brought. bootID names this boot of the machine; if it is
// empty or the journal is of another one, only what is surely on disk counts.
func Partial(path string, size int64, bootID string) int64 {
	info, err := os.Stat(PartPath(path))
	if err != nil || info.Size() != size {
		return 0
	}
	have, _, err := readJournal(JournalPath(path), size, bootID)
	if err != nil {
		return 0
	}
	return have.total()
}

// open goes on with what is there, or begins anew.
func (p *part) open(chunk int64) (err error) {
	p.grown = sync.NewCond(&p.mu)
	p.f, err = os.OpenFile(PartPath(p.Path), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	var sure *chunks
	info, err := p.f.Stat()
	if err == nil && info.Size() == p.Size {
		p.have, sure, err = readJournal(JournalPath(p.Path), p.Size, p.boot)
	} else if err == nil {
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		p.have, sure = newChunks(p.Size, chunk), newChunks(p.Size, chunk)
		if err = p.f.Truncate(0); err == nil {
			err = p.takeOver()
		}
		if err == nil {
			err = p.f.Truncate(p.Size)
		}
	}
	if err == nil {
		p.unsynced = p.have.total() - sure.total()
		p.journal, err = openJournal(JournalPath(p.Path), p.have, sure, p.boot)
	}
	if err != nil {
		_ = p.f.Close()
	}
	return err
}

// takeOver begins with what another program left of a download that was cut off:
// the beginning of the file. It is checked with the rest at the end. A download
// that is under way holds a lock, and keeps its file.
func (p *part) takeOver() error {
	if p.Prefix == "" {
		return nil
	}
	info, err := os.Stat(p.Prefix)
	if err != nil || info.Size() == 0 || info.Size() > p.Size {
		return nil // there is nothing to take over
	}
	made, err := os.OpenFile(p.PrefixLock, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // as that program makes it
	if err != nil {
		return nil // it is only a help
	}
	_ = made.Close()
	lock, err := filelock.Try(p.PrefixLock, 0o755)
	if err != nil {
		return nil //nolint:nilerr // that program has it
	}
	defer lock.Close()
	_ = p.f.Close()
	if err := os.Rename(p.Prefix, PartPath(p.Path)); err != nil {
		return err
	}
	if p.f, err = os.OpenFile(PartPath(p.Path), os.O_RDWR, 0o600); err != nil {
		return err
	}
	for i := range p.have.done {
		from, to := p.have.span(i)
		p.have.done[i] = max(0, min(to, info.Size())-from)
	}
	return nil
}

// close leaves what is there for a later download. It is brought to disk, so that
// it outlasts the machine too; where that takes longer than syncPatience, it goes
// on behind the caller's back. Nobody fetches or verifies any more.
func (p *part) close() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.mu.Lock()
		for p.syncing {
			p.grown.Wait()
		}
		// After a sync that failed the next one may speak of less than it seems to.
		todo := p.unsynced > 0 && !p.settled && !p.syncFailed
		p.mu.Unlock()
		if todo {
			_ = p.syncJournal() // what is not surely there is fetched again
		}
		p.journal.close()
		_ = p.f.Close()
	}()
	patience := time.NewTimer(syncPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
}

// discard throws away what is there.
func (p *part) discard() {
	_ = os.Remove(JournalPath(p.Path)) // first: without it the rest counts for nothing
	_ = os.Remove(PartPath(p.Path))
}

// fail ends the waiting of verify.
func (p *part) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.grown.Broadcast()
}

// fetch fetches one chunk, with patience.
func (p *part) fetch(ctx context.Context, chunk int) error {
	return retry(ctx, p.pause, func(failures int) (progress bool, err error) {
		for {
			before, enough := p.enough(chunk)
			if enough {
				return progress, nil
			}
			stale, err := p.attempt(ctx, chunk)
			now, _ := p.enough(chunk)
			progress = progress || now > before
			if err == nil {
				continue
			}
			if progress {
				failures = 0
			}
			return progress, p.classify(ctx, err, stale, failures+1)
		}
	})
}

// enough reports how many bytes are there, and whether the one who fetches a
// chunk is done: with the chunk, or where there are no ranges with the file,
// unless another fetches that.
func (p *part) enough(chunk int) (total int64, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	total = p.have.total()
	if p.noRanges {
		return total, p.single || total == p.Size
	}
	return total, p.have.whole(chunk)
}

// classify returns an error that is permanent if another attempt is not worth it. It is
// the failures-th in a row.
func (p *part) classify(ctx context.Context, err error, stale string, failures int) error {
	var status *StatusError
	switch {
	case ctx.Err() != nil:
		return backoff.Permanent(context.Cause(ctx))
	case IsDiskFull(err):
		return backoff.Permanent(err)
	case errors.As(err, &status) && stale != "" && failures < maxFailures/2:
		p.forget(stale) // it has expired: the server gives another one
		return err
	case errors.As(err, &status) && !status.Temporary(), failures >= maxFailures:
		return backoff.Permanent(&TransferError{p.name(), err})
	}
	return err
}

// forget drops an address of the file, unless another one is known by now.
func (p *part) forget(address string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.address == address {
		p.address = ""
	}
}

// attempt fetches what is missing of a chunk once; or, from a server that gives
// no ranges, of all chunks. If the server refuses, stale is the address of the content
// that it gave and that may have expired.
func (p *part) attempt(ctx context.Context, chunk int) (stale string, err error) {
	p.mu.Lock()
	from, to := p.have.span(chunk)
	from += p.have.done[chunk]
	address := p.address
	p.mu.Unlock()
	stale = address
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
			return p.takeAll(body)
		default:
			if final != first {
				stale = final // it can expire between the server's word and the use of it
			}
			return NewStatusError(resp)
		}
		if final != first {
			p.mu.Lock()
			p.address = final
			p.mu.Unlock()
		}
		return p.take(body, chunk, from, to)
	})
	return stale, err
}

func (p *part) checkRange(resp *http.Response, from int64) error {
	var first, last, total int64
	text := resp.Header.Get("Content-Range")
	if n, _ := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total); n < 2 || first != from || n == 3 && total != p.Size {
		return fmt.Errorf("the server sent the range %q, want %d bytes from %d of %d", text, last-first+1, from, p.Size)
	}
	return nil
}

// take writes a body into its place.
func (p *part) take(body io.Reader, chunk int, at, to int64) error {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for at < to {
		n, err := readSome(body, (*buf)[:min(int64(len(*buf)), to-at)])
		if n > 0 {
			written, err := p.f.WriteAt((*buf)[:n], at) // of a full disk the last bytes too
			at += int64(written)
			if noted := p.note(chunk, at, int64(written)); err == nil {
				err = noted
			}
			if err != nil {
				return fmt.Errorf("writing %s: %w", p.name(), err)
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

// readSome fills the buffer as far as bytes come without a long wait: large
// writes are cheaper, and what has arrived shall not wait long to be kept.
func readSome(r io.Reader, buf []byte) (n int, err error) {
	for start := time.Now(); n < len(buf) && err == nil && time.Since(start) < 250*time.Millisecond; {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}

// takeAll writes a whole file, the only thing that this server gives. What is
// there already is passed over. Other connections for the same file give way.
func (p *part) takeAll(body io.Reader) error {
	p.mu.Lock()
	if p.single {
		p.mu.Unlock()
		return nil
	}
	p.noRanges, p.single = true, true
	at := p.have.frontier()
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		p.single = false
		p.mu.Unlock()
	}()
	if _, err := io.CopyN(io.Discard, body, at); err != nil {
		return err
	}
	for i := range p.have.done {
		from, to := p.have.span(i)
		if to <= at {
			continue
		}
		p.mu.Lock()
		done := p.have.done[i]
		if from+done > at { // there is a gap before what another connection fetched
			p.have.done[i], done = at-from, at-from
		}
		p.mu.Unlock()
		if err := p.take(body, i, from+done, to); err != nil {
			return err
		}
		at = to
	}
	return nil
}

// note counts n bytes that are in the file now, up to a place in a chunk.
func (p *part) note(chunk int, at, n int64) error {
	p.mu.Lock()
	from, _ := p.have.span(chunk)
	done := max(p.have.done[chunk], at-from)
	err := p.journal.note(chunk, done)
	if err == nil {
		p.have.done[chunk] = done
		p.unsynced += n
		if p.unsynced >= syncEvery && !p.syncing {
			p.syncing, p.unsynced = true, 0
			go p.sync(p.syncJournal)
		}
		p.grown.Broadcast()
	}
	p.mu.Unlock()
	if err == nil {
		p.progress(n)
	}
	return err
}

// syncJournal brings to disk what has arrived, and notes that.
func (p *part) syncJournal() error { return p.journal.sync(p.f.Sync) }

// sync brings to disk what has arrived, while more does: who waits for a slow disk
// can leave off. The caller has set p.syncing.
func (p *part) sync(how func() error) {
	err := how()
	if err != nil {
		p.fail(fmt.Errorf("bringing %s to disk: %w", p.name(), err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing, p.syncFailed = false, err != nil
	p.grown.Broadcast()
}

// verify computes the checksum while bytes arrive, and gives the file its name
// once all are there and right. A wrong one is a [*MismatchError], and the bytes
// are thrown away.
func (p *part) verify(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })()
	h, buf := p.newHash(), make([]byte, 1<<20)
	for at := int64(0); at < p.Size; {
		end, err := p.await(at)
		if err != nil {
			return err
		}
		for at < end {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			n, err := p.f.ReadAt(buf[:min(int64(len(buf)), end-at)], at)
			if n == 0 && err != nil {
				return fmt.Errorf("reading what was fetched of %s: %w", p.name(), err)
			}
			_, _ = h.Write(buf[:n]) // never fails
			at += int64(n)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.Sum {
		p.settle()
		p.discard()
		return &MismatchError{Name: p.name(), Got: got, Want: p.Sum}
	}
	return p.finish()
}

// await waits until bytes are there after at without a gap, and tells where they
// end. It does not wait once the download has failed.
func (p *part) await(at int64) (end int64, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.err == nil && p.have.frontier() <= at {
		p.grown.Wait()
	}
	return p.have.frontier(), p.err
}

// finish gives a file that is right its name, once it is on disk.
func (p *part) finish() error {
	if err := p.f.Chmod(p.mode()); err != nil {
		return err
	}
	p.mu.Lock()
	p.awaitSync()
	if p.err == nil {
		p.syncing = true
		go p.sync(p.f.Sync)
		p.awaitSync()
	}
	err := p.err
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if err := os.Rename(PartPath(p.Path), p.Path); err != nil {
		return err
	}
	p.settle()
	return os.Remove(JournalPath(p.Path))
}

// awaitSync waits for the sync that is under way, or until the download has
// failed. The caller holds p.mu.
func (p *part) awaitSync() {
	for p.syncing && p.err == nil {
		p.grown.Wait()
	}
}

// settle says that nothing is left for a later download.
func (p *part) settle() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settled = true
}

// copyFile is the way of a file of this machine into the cache.
func (p *part) copyFile(ctx context.Context, path string) error {
	src, err := os.Open(path)
	if err != nil {
		return err
	}
	defer src.Close()
	return p.take(&ctxReader{ctx, src}, 0, 0, p.Size)
}
