package wire

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
)

const recordSeparator = 0x1E

// maxRecord bounds one record, so that a machine cannot fill the reader's memory.
const maxRecord = 32 << 20

// Writer writes records. Its methods may be called from several goroutines.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer of records to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write sends v as one record, in a single write.
func (w *Writer) Write(v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	record := append(append([]byte{recordSeparator}, body...), '\n')
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(record)
	return err
}

// Reader reads records and skips what is between them.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader of records from r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReader(r)} }

// Read fills v from the next record. It returns io.EOF when there is none, and
// io.ErrUnexpectedEOF when the stream ends within one. A record that another one
// cuts off is dropped. After a record that is no JSON, reading can go on.
func (r *Reader) Read(v any) error {
	if err := r.skipNoise(); err != nil {
		return err
	}
	var body []byte
	for {
		part, err := r.r.ReadSlice('\n')
		// JSON holds no such byte, so the one who wrote was cut off and began anew.
		if i := bytes.LastIndexByte(part, recordSeparator); i >= 0 {
			body, part = body[:0], part[i+1:]
		}
		body = append(body, part...)
		switch {
		case len(body) > maxRecord:
			return fmt.Errorf("a record of more than %d bytes", maxRecord)
		case err == nil:
			if err := json.Unmarshal(body, v); err != nil {
				return fmt.Errorf("a record that is no JSON: %w", err)
			}
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		default:
			return err
		}
	}
}

func (r *Reader) skipNoise() error {
	for {
		_, err := r.r.ReadSlice(recordSeparator)
		if err == nil {
			return nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
	}
}

// Chunk lengths with a meaning of their own.
const (
	chunkEnd     = 0
	chunkAborted = 0xFFFFFFFF
	maxChunk     = 1 << 20
)

// ErrAborted is what a [BlobReader] returns when the sender could not go on.
var ErrAborted = errors.New("the sender gave up sending the artifact")

// blobPiece is a chunk with its length: a multiple of what SSH puts into a packet,
// so that no packet goes with four bytes.
const blobPiece = 128 << 10

// SendBlob sends all of r as one blob: a byte that says whether it is gzip,
// then chunks, each with its length as 4 bytes in network order, then a chunk
// of length 0. If r fails, the receiver is told, and r's error is returned.
func SendBlob(w io.Writer, r io.Reader, gzipped bool) error {
	head := []byte{0}
	if gzipped {
		head[0] = 1
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	buf := make([]byte, blobPiece)
	for {
		n, readErr := fill(r, buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n)) //nolint:gosec // n is less than blobPiece
			if _, err := w.Write(buf[:4+n]); err != nil {
				return err
			}
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF):
			_, err := w.Write(binary.BigEndian.AppendUint32(nil, chunkEnd))
			return err
		default:
			_, err := w.Write(binary.BigEndian.AppendUint32(nil, chunkAborted))
			return errors.Join(readErr, err)
		}
	}
}

// fill reads until p is full or r ends. Unlike io.ReadFull it hands on r's own
// error: an io.ErrUnexpectedEOF of r is a failure and no end.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// BlobReader reads one blob, unpacked if it came as gzip. It must be read to
// io.EOF, or drained by Close, before anything else is read from the stream.
type BlobReader struct {
	chunks *chunkReader
	body   io.Reader
}

// NewBlobReader begins to read a blob from r, which must not buffer for itself
// what follows the blob.
func NewBlobReader(r io.Reader) (*BlobReader, error) {
	var head [1]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, noEOF(err)
	}
	b := &BlobReader{chunks: &chunkReader{r: r}}
	switch head[0] {
	case 0:
		b.body = b.chunks
	case 1:
		unpacked, err := gzip.NewReader(bufio.NewReader(b.chunks))
		if err != nil {
			if err := b.Close(); err != nil {
				return nil, err // the stream itself broke
			}
			return nil, fmt.Errorf("unpacking the artifact: %w", err)
		}
		b.body = unpacked
	default:
		return nil, fmt.Errorf("a blob that begins with byte %#02x, want 0 or 1", head[0])
	}
	return b, nil
}

// Read implements io.Reader.
func (b *BlobReader) Read(p []byte) (int, error) { return b.body.Read(p) }

// Close reads what is left of the blob, so that the stream is at its end. It
// returns what broke the stream, again if Read has returned it already.
func (b *BlobReader) Close() error {
	_, err := io.Copy(io.Discard, b.chunks)
	return err
}

type chunkReader struct {
	r    io.Reader
	left uint32
	err  error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.left == 0 && c.err == nil {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p[:min(len(p), int(c.left))])
	c.left -= uint32(n) //nolint:gosec // n is at most left
	if err != nil {
		c.err = noEOF(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

func (c *chunkReader) next() error {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return noEOF(err)
	}
	switch n := binary.BigEndian.Uint32(head[:]); {
	case n == chunkEnd:
		return io.EOF
	case n == chunkAborted:
		return ErrAborted
	case n > maxChunk:
		return fmt.Errorf("a chunk of %d bytes, more than %d", n, maxChunk)
	default:
		c.left = n
		return nil
	}
}

// noEOF turns an end of stream, which is no regular end here, into an error.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadRequest reads the request line from r without buffering what follows it.
func ReadRequest(r io.Reader) (*Request, error) {
	var line bytes.Buffer
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, fmt.Errorf("reading the request: %w", noEOF(err))
		}
		if one[0] == '\n' {
			break
		}
		if line.WriteByte(one[0]); line.Len() > maxRecord {
			return nil, fmt.Errorf("a request of more than %d bytes", maxRecord)
		}
	}
	var req Request
	if err := json.Unmarshal(line.Bytes(), &req); err != nil {
		return nil, fmt.Errorf("reading the request: %w", err)
	}
	return &req, nil
}

// WriteRequest writes req as one line.
func WriteRequest(w io.Writer, req *Request) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	_, err = w.Write(append(body, '\n'))
	return err
}
