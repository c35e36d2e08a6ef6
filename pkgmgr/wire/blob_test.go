package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// errorReader is a reader that always fails.
type errorReader struct{ err error }

func (r errorReader) Read([]byte) (int, error) { return 0, r.err }

func gzipped(t testing.TB, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(data)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// blobStream returns a blob with data, followed by the string "after".
func blobStream(t testing.TB, data []byte, zip bool) *bytes.Buffer {
	t.Helper()
	if zip {
		data = gzipped(t, data)
	}
	var stream bytes.Buffer
	if err := SendBlob(&stream, bytes.NewReader(data), zip); err != nil {
		t.Fatal(err)
	}
	stream.WriteString("after")
	return &stream
}

func TestBlob(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"empty": nil, "small": []byte("x"), "one chunk": make([]byte, 64<<10), "several chunks": bytes.Repeat([]byte("rbee"), 100_000),
	} {
		for _, zip := range []bool{false, true} {
			stream := blobStream(t, data, zip)
			b, err := NewBlobReader(iotest.OneByteReader(stream))
			if err != nil {
				t.Fatalf("%s, gzip %t: NewBlobReader() = %v, want no error", name, zip, err)
			}
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, data) {
				t.Errorf("%s, gzip %t: ReadAll() = %d bytes, %v, want the %d bytes sent", name, zip, len(got), err, len(data))
			}
			if err := b.Close(); err != nil || stream.String() != "after" {
				t.Errorf("%s, gzip %t: Close() = %v with %d bytes left in the stream, want no error and %q left", name, zip, err, stream.Len(), "after")
			}
		}
	}
}

func TestBlobCloseDrains(t *testing.T) {
	t.Parallel()
	for _, zip := range []bool{false, true} {
		stream := blobStream(t, bytes.Repeat([]byte("0123456789"), 30_000), zip)
		b, err := NewBlobReader(stream)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil || stream.String() != "after" {
			t.Errorf("gzip %t: Close() = %v with %d bytes left in the stream, want no error and %q left", zip, err, stream.Len(), "after")
		}
	}
	// NewBlobReader skips a blob whose content is not gzip.
	var stream bytes.Buffer
	if err := SendBlob(&stream, strings.NewReader("plain"), true); err != nil {
		t.Fatal(err)
	}
	stream.WriteString("after")
	if _, err := NewBlobReader(&stream); !errors.Is(err, gzip.ErrHeader) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("NewBlobReader() of content that is not gzip = %v, want %v or %v", err, gzip.ErrHeader, io.ErrUnexpectedEOF)
	}
	if stream.String() != "after" {
		t.Errorf("stream after NewBlobReader() = %q, want %q", stream.String(), "after")
	}
}

func TestBlobAborted(t *testing.T) {
	t.Parallel()
	// A truncated download of the sender fails with io.ErrUnexpectedEOF.
	for _, readErr := range []error{errors.New("broken"), io.ErrUnexpectedEOF} {
		for _, zip := range []bool{false, true} {
			data := bytes.Repeat([]byte("0123456789"), 30_000)
			if zip {
				data = gzipped(t, data)
			}
			for _, sent := range []int{0, len(data) / 2} {
				name := fmt.Sprintf("gzip %t, %v after %d bytes", zip, readErr, sent)
				var stream bytes.Buffer
				err := SendBlob(&stream, io.MultiReader(bytes.NewReader(data[:sent]), errorReader{readErr}), zip)
				if !errors.Is(err, readErr) {
					t.Errorf("%s: SendBlob() = %v, want %v", name, err, readErr)
				}
				stream.WriteString("after")
				b, err := NewBlobReader(&stream)
				if err == nil {
					_, err = io.Copy(io.Discard, b)
					if closeErr := b.Close(); !errors.Is(closeErr, ErrAborted) {
						t.Errorf("%s: Close() = %v, want %v", name, closeErr, ErrAborted)
					}
				}
				if !errors.Is(err, ErrAborted) || stream.String() != "after" {
					t.Errorf("%s: reading the blob returns %v and leaves %q in the stream, want %v and %q", name, err, stream.String(), ErrAborted, "after")
				}
			}
		}
	}
}

func TestBlobReaderRejectsInvalidBlob(t *testing.T) {
	t.Parallel()
	chunk := func(n uint32, body string) string {
		return string(binary.BigEndian.AppendUint32(nil, n)) + body
	}
	for name, tt := range map[string]struct{ stream, want string }{
		"empty stream":       {"", "unexpected EOF"},
		"unknown first byte": {"\x02" + chunk(0, ""), "0x02"},
		"text":               {"hello", "0x68"},
		"no chunk":           {"\x00", "unexpected EOF"},
		"truncated length":   {"\x00\x00\x00", "unexpected EOF"},
		"truncated chunk":    {"\x00" + chunk(5, "abc"), "unexpected EOF"},
		"no last chunk":      {"\x00" + chunk(3, "abc"), "unexpected EOF"},
		"chunk too large":    {"\x00" + chunk(maxChunk+1, "abc"), "want at most"},
		"truncated gzip":     {"\x01" + chunk(10, string(gzipped(t, []byte("abc"))[:10])) + chunk(0, ""), "unexpected EOF"},
	} {
		b, err := NewBlobReader(strings.NewReader(tt.stream))
		if err == nil {
			_, err = io.Copy(io.Discard, b)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: reading the blob returns %v, want an error with %q", name, err, tt.want)
		}
	}
}

func TestSendBlobReturnsWriteError(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	writeErr := errors.New("closed by reader")
	_ = r.CloseWithError(writeErr)
	if err := SendBlob(w, strings.NewReader("x"), false); !errors.Is(err, writeErr) {
		t.Errorf("SendBlob() = %v, want %v", err, writeErr)
	}
}

// FuzzBlobReader checks that a blob has the content that was sent, and that reading an
// uncompressed blob never returns more bytes than the stream has.
func FuzzBlobReader(f *testing.F) {
	f.Add([]byte(nil), false)
	f.Add([]byte("\x00\x00\x00\x00\x03abc\x00\x00\x00\x00"), false)
	f.Add([]byte("\x00\xff\xff\xff\xff"), true)
	f.Add(append([]byte("\x01\x00\x00\x00\x1b"), gzipped(f, []byte("abc"))...), true)
	f.Fuzz(func(t *testing.T, data []byte, zip bool) {
		stream := blobStream(t, data, zip)
		b, err := NewBlobReader(stream)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) || stream.String() != "after" {
			t.Fatalf("ReadAll() = %q, %v, leaving %q, want %q, leaving %q", got, err, stream.String(), data, "after")
		}
		if b, err = NewBlobReader(bytes.NewReader(data)); err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, io.LimitReader(b, 1<<20))
		if data[0] == 0 && n > int64(len(data)) {
			t.Errorf("reading a stream of %d bytes returns %d bytes, want fewer", len(data), n)
		}
		_ = b.Close()
	})
}
