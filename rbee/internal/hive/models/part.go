package models

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's own hash, by which the hub names small files
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
)

const (
	defaultChunk = 16 << 20
	bufferSize   = 512 << 10
	syncEvery    = 128 << 20   // bytes after which a file is brought to disk
	syncPatience = time.Second // how long a download that ends waits for that
	defaultStall = 30 * time.Second
)

// part is one file that is being fetched.
type part struct {
	hub  *hub
	file hubFile
	from string // where the hub says that it is
	blob string // the path that it will take

	theirLock string // what huggingface_hub locks while it fetches this file

	stall time.Duration
	moved func(n int64) // told of bytes that arrived

	f       *os.File
	journal *journal

	mu       sync.Mutex
	grown    *sync.Cond // more bytes are there, or on disk, or it has failed
	have     *chunks
	address  string // where it really is, once the hub has said; may expire
	noRanges bool   // the server gives none: one connection fetches all
	single   bool   // that connection is under way
	unsynced int64  // bytes that are perhaps not on disk
	syncing  bool   // they are being brought there
	settled  bool   // the file has its name, or was thrown away

	syncFailed bool
	err        error
}

func partPath(blob string) string    { return blob + ".rbee-part" }
func journalPath(blob string) string { return blob + ".rbee-journal" }

// partial is how many bytes of a blob are there from an earlier download.
func partial(blob string, size int64) int64 {
	info, err := os.Stat(partPath(blob))
	if err != nil || info.Size() != size {
		return 0
	}
	have, _, err := readJournal(journalPath(blob), size)
	if err != nil {
		return 0
	}
	return have.total()
}

// open goes on with what is there, or begins anew.
func (p *part) open(chunk int64) (err error) {
	p.grown = sync.NewCond(&p.mu)
	p.f, err = os.OpenFile(partPath(p.blob), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	var sure *chunks
	info, err := p.f.Stat()
	if err == nil && info.Size() == p.file.Size {
		p.have, sure, err = readJournal(journalPath(p.blob), p.file.Size)
	} else if err == nil {
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		p.have, sure = newChunks(p.file.Size, chunk), newChunks(p.file.Size, chunk)
		if err = p.f.Truncate(0); err == nil {
			err = p.takeOver()
		}
		if err == nil {
			err = p.f.Truncate(p.file.Size)
		}
	}
	if err == nil {
		p.unsynced = p.have.total() - sure.total()
		p.journal, err = openJournal(journalPath(p.blob), p.have, sure)
	}
	if err != nil {
		_ = p.f.Close()
	}
	return err
}

// takeOver begins with what huggingface_hub left of a download that was cut off:
// the beginning of the file. It is checked with the rest at the end. A download
// that is under way holds a lock, and keeps its file.
func (p *part) takeOver() error {
	theirs := p.blob + theirSuffix
	info, err := os.Stat(theirs)
	if err != nil || info.Size() == 0 || info.Size() > p.file.Size {
		return nil //nolint:nilerr // there is nothing to take over
	}
	lock, err := os.OpenFile(p.theirLock, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // as huggingface_hub makes it
	if err != nil {
		return nil //nolint:nilerr // it is only a help
	}
	defer lock.Close()
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil { //nolint:gosec // a descriptor fits
		return nil
	}
	_ = p.f.Close()
	if err := os.Rename(theirs, partPath(p.blob)); err != nil {
		return err
	}
	if p.f, err = os.OpenFile(partPath(p.blob), os.O_RDWR, 0o600); err != nil {
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
	_ = os.Remove(journalPath(p.blob)) // first: without it the rest counts for nothing
	_ = os.Remove(partPath(p.blob))
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
	for try := 1; ; try++ {
		before, enough := p.enough(chunk)
		if enough {
			return nil
		}
		err := p.attempt(ctx, chunk)
		now, _ := p.enough(chunk)
		gained := now > before
		if err == nil {
			try = 0
			continue
		}
		if gained {
			try = 1
		}
		if err := p.give(ctx, err, try); err != nil {
			return err
		}
	}
}

// enough reports how many bytes are there, and whether the one who fetches a
// chunk is done: with the chunk, or where there are no ranges with the file,
// unless another fetches that.
func (p *part) enough(chunk int) (total int64, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	total = p.have.total()
	if p.noRanges {
		return total, p.single || total == p.file.Size
	}
	return total, p.have.whole(chunk)
}

// give decides whether another try is worth it after err: nil, after a pause, if it is.
func (p *part) give(ctx context.Context, err error, try int) error {
	var status *statusError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isFull(err):
		return err
	case errors.As(err, &status) && status.stale != "" && try < maxTries/2:
		p.forget(status.stale) // it has expired: the hub gives another one
	case errors.As(err, &status) && !status.mayPass(), try >= maxTries:
		return failure(p.refusalReason(err), p.file.Path, err, "fetching %s: %v; what has arrived is kept", p.file.Path, err)
	}
	return rest(ctx, p.hub.pause, try, err)
}

// refusalReason returns why the file was not sent. The hub answers with 401 or 403
// where its repository is gated.
func (p *part) refusalReason(err error) operations.Reason {
	var status *statusError
	if errors.As(err, &status) && (status.status == http.StatusUnauthorized || status.status == http.StatusForbidden) && strings.HasPrefix(p.from, p.hub.endpoint+"/") {
		return operations.ReasonModelGated
	}
	return requestReason(err)
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
// no ranges, of all chunks.
func (p *part) attempt(ctx context.Context, chunk int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := fmt.Errorf("nothing came for %s", p.stall)
	watch := time.AfterFunc(p.stall, func() { cancel(silent) })
	defer watch.Stop()

	p.mu.Lock()
	from, to := p.have.span(chunk)
	from += p.have.done[chunk]
	address := p.address
	p.mu.Unlock()
	stale := address
	if address == "" {
		address = p.from
	}
	header := http.Header{"Range": {fmt.Sprintf("bytes=%d-%d", from, to-1)}}
	resp, final, err := p.hub.get(ctx, address, header)
	if err != nil {
		return causeOr(ctx, err)
	}
	defer resp.Body.Close()
	body := &alive{resp.Body, watch, p.stall}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if err := p.checkRange(resp, from); err != nil {
			return err
		}
	case http.StatusOK:
		if resp.ContentLength >= 0 && resp.ContentLength != p.file.Size {
			return failure(operations.ReasonChecksum, p.file.Path, nil, "%s has %d bytes there, not %d as the hub says", p.file.Path, resp.ContentLength, p.file.Size)
		}
		return causeOr(ctx, p.takeAll(body))
	default:
		status := readStatus(resp)
		if status.stale = stale; final != p.from {
			status.stale = final // it can expire between the hub's word and the use of it
		}
		return status
	}
	if final != p.from {
		p.mu.Lock()
		p.address = final
		p.mu.Unlock()
	}
	return causeOr(ctx, p.take(body, chunk, from, to))
}

func causeOr(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (p *part) checkRange(resp *http.Response, from int64) error {
	var first, last, total int64
	text := resp.Header.Get("Content-Range")
	if n, _ := fmt.Sscanf(text, "bytes %d-%d/%d", &first, &last, &total); n < 2 || first != from || n == 3 && total != p.file.Size {
		return fmt.Errorf("the server sent the range %q, want %d bytes from %d of %d", text, last-first+1, from, p.file.Size)
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
				return fmt.Errorf("writing %s: %w", p.file.Path, err)
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
		p.moved(n)
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
		p.fail(fmt.Errorf("bringing %s to disk: %w", p.file.Path, err))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing, p.syncFailed = false, err != nil
	p.grown.Broadcast()
}

// alive is a body whose reads put off the end of patience.
type alive struct {
	r     io.Reader
	timer *time.Timer
	stall time.Duration
}

func (a *alive) Read(b []byte) (int, error) {
	n, err := a.r.Read(b)
	if n > 0 {
		a.timer.Reset(a.stall)
	}
	return n, err
}

// wrongSumError says that a file is whole and not what it should be.
type wrongSumError struct{ file, want, got string }

func (e *wrongSumError) Error() string {
	return fmt.Sprintf("%s has the checksum %s, want %s", e.file, e.got, e.want)
}

// hasher is the hash whose sum names the blob.
func (f hubFile) hasher() hash.Hash {
	if f.lfs() {
		return sha256.New()
	}
	h := sha1.New() //nolint:gosec // see the import
	fmt.Fprintf(h, "blob %d\x00", f.Size)
	return h
}

// verify computes the checksum while bytes arrive, and gives the file its name
// once all are there and right. A wrong one is a *wrongSumError, and the bytes
// are thrown away.
func (p *part) verify(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { p.fail(context.Cause(ctx)) })()
	h, buf := p.file.hasher(), make([]byte, 1<<20)
	for at := int64(0); at < p.file.Size; {
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
				return fmt.Errorf("reading what was fetched of %s: %w", p.file.Path, err)
			}
			_, _ = h.Write(buf[:n]) // never fails
			at += int64(n)
		}
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.file.Etag {
		p.settle()
		p.discard()
		return &wrongSumError{p.file.Path, p.file.Etag, got}
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
	if err := p.f.Chmod(0o644); err != nil {
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
	if err := os.Rename(partPath(p.blob), p.blob); err != nil {
		return err
	}
	p.settle()
	return os.Remove(journalPath(p.blob))
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
	src, err := os.Open(path) //nolint:gosec // the file that was asked for
	if err != nil {
		return notFoundOr(err, path)
	}
	defer src.Close()
	return p.take(&canceled{ctx, src}, 0, 0, p.file.Size)
}

func notFoundOr(err error, path string) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotFound, Subject: operations.SubjectFile.Named(path), Message: "there is no file " + path + " on the hive", Err: err}
	}
	return err
}

// canceled is a reader that ends with its context.
type canceled struct {
	ctx context.Context //nolint:containedctx // of this one copy
	r   io.Reader
}

func (c *canceled) Read(b []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(b)
}
