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

// maxRecord is the maximum size of a record in bytes. It limits the memory usage of a Reader.
const maxRecord = 32 << 20

// Writer writes records. It is safe for concurrent use.
type Writer struct {
	mu sync.Mutex
	w  io.Writer
}

// NewWriter returns a Writer that writes records to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes v as one record, with a single call to Write of the underlying writer.
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

// Reader reads records and skips all bytes between them.
type Reader struct{ r *bufio.Reader }

// NewReader returns a Reader that reads records from r.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReader(r)} }

// Read decodes the next record into v. It returns io.EOF at the end of the stream, and
// io.ErrUnexpectedEOF if the stream ends within a record. It skips a record that is
// interrupted by the start of another record. After an error about invalid JSON, the next
// call reads the next record.
func (r *Reader) Read(v any) error {
	if err := r.skipNoise(); err != nil {
		return err
	}
	var body []byte
	for {
		part, err := r.r.ReadSlice('\n')
		// JSON cannot contain this byte, so the writer was interrupted and started over.
		if i := bytes.LastIndexByte(part, recordSeparator); i >= 0 {
			body, part = body[:0], part[i+1:]
		}
		body = append(body, part...)
		switch {
		case len(body) > maxRecord:
			return fmt.Errorf("record is larger than %d MiB", maxRecord>>20)
		case err == nil:
			if err := json.Unmarshal(body, v); err != nil {
				return fmt.Errorf("invalid JSON in record: %w", err)
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

// Special chunk lengths, and the maximum length of a chunk in bytes.
const (
	chunkEnd     = 0
	chunkAborted = 0xFFFFFFFF
	maxChunk     = 1 << 20
)

// ErrAborted reports that the sender of a blob could not send all of it.
var ErrAborted = errors.New("the sender aborted the transfer of the artifact")

// blobBufferSize is the size of a sent chunk in bytes, including the length field. It is a
// multiple of the size of an SSH packet, which avoids packets with only a few bytes.
const blobBufferSize = 128 << 10

// SendBlob sends the content of r as one blob, in the format that the package documentation
// describes. gzipped reports whether the content is compressed. If reading r fails, SendBlob
// marks the blob as aborted and returns the error of r.
func SendBlob(w io.Writer, r io.Reader, gzipped bool) error {
	head := []byte{0}
	if gzipped {
		head[0] = 1
	}
	if _, err := w.Write(head); err != nil {
		return err
	}
	buf := make([]byte, blobBufferSize)
	for {
		n, readErr := fill(r, buf[4:])
		if n > 0 {
			binary.BigEndian.PutUint32(buf, uint32(n)) //nolint:gosec // n is less than blobBufferSize
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

// fill reads until p is full or r returns an error. Unlike [io.ReadFull], fill returns the
// error of r unchanged: an io.ErrUnexpectedEOF from r is a failure, not the end of the data.
func fill(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = r.Read(p[n:])
		n += m
	}
	return n, err
}

// BlobReader reads the content of one blob and decompresses it if necessary. The caller must
// read it to io.EOF or close it before reading anything else from the stream.
type BlobReader struct {
	chunks *chunkReader
	body   io.Reader
}

// NewBlobReader returns a reader for the blob that starts at the current position of r. It
// does not read beyond the end of the blob.
func NewBlobReader(r io.Reader) (*BlobReader, error) {
	var head [1]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, unexpectedEOF(err)
	}
	b := &BlobReader{chunks: &chunkReader{r: r}}
	switch head[0] {
	case 0:
		b.body = b.chunks
	case 1:
		unpacked, err := gzip.NewReader(bufio.NewReader(b.chunks))
		if err != nil {
			if err := b.Close(); err != nil {
				return nil, err // of the stream
			}
			return nil, fmt.Errorf("cannot decompress the artifact: %w", err)
		}
		b.body = unpacked
	default:
		return nil, fmt.Errorf("invalid first byte %#02x of a blob: want 0 or 1", head[0])
	}
	return b, nil
}

// Read implements io.Reader.
func (b *BlobReader) Read(p []byte) (int, error) { return b.body.Read(p) }

// Close skips the rest of the blob. It returns the error of the stream, if any, even if Read
// has already returned it.
func (b *BlobReader) Close() error {
	_, err := io.Copy(io.Discard, b.chunks)
	return err
}

type chunkReader struct {
	r         io.Reader
	remaining uint32 // bytes of the current chunk
	err       error
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if c.remaining == 0 && c.err == nil {
		c.err = c.next()
	}
	if c.err != nil {
		return 0, c.err
	}
	n, err := c.r.Read(p[:min(len(p), int(c.remaining))])
	c.remaining -= uint32(n) //nolint:gosec // n is at most remaining
	if err != nil {
		c.err = unexpectedEOF(err)
	}
	if n > 0 {
		return n, nil
	}
	return 0, c.err
}

// next reads the length of the next chunk. It returns io.EOF at the end of the blob.
func (c *chunkReader) next() error {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return unexpectedEOF(err)
	}
	switch n := binary.BigEndian.Uint32(head[:]); {
	case n == chunkEnd:
		return io.EOF
	case n == chunkAborted:
		return ErrAborted
	case n > maxChunk:
		return fmt.Errorf("invalid chunk length %d: want at most %d bytes", n, maxChunk)
	default:
		c.remaining = n
		return nil
	}
}

// unexpectedEOF returns io.ErrUnexpectedEOF if err is io.EOF, and err otherwise.
func unexpectedEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ReadRequest reads a request from r. It does not read beyond the end of the line.
func ReadRequest(r io.Reader) (*Request, error) {
	var line bytes.Buffer
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return nil, fmt.Errorf("cannot read the request: %w", unexpectedEOF(err))
		}
		if one[0] == '\n' {
			break
		}
		if line.WriteByte(one[0]); line.Len() > maxRecord {
			return nil, fmt.Errorf("request is larger than %d MiB", maxRecord>>20)
		}
	}
	var req Request
	if err := json.Unmarshal(line.Bytes(), &req); err != nil {
		return nil, fmt.Errorf("invalid request: %w", err)
	}
	return &req, nil
}

// WriteRequest writes req to w as one line of JSON.
func WriteRequest(w io.Writer, req *Request) error {
	body, err := json.Marshal(req)
	if err != nil {
		return err
	}
	_, err = w.Write(append(body, '\n'))
	return err
}
