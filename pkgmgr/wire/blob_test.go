package wire

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

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

// blob is what SendBlob sends of data, with more behind it.
func blob(t testing.TB, data []byte, zip bool) *bytes.Buffer {
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
		"empty": nil, "small": []byte("x"), "one chunk": make([]byte, 64<<10), "more": bytes.Repeat([]byte("rbee"), 100_000),
	} {
		for _, zip := range []bool{false, true} {
			stream := blob(t, data, zip)
			b, err := NewBlobReader(iotest.OneByteReader(stream))
			if err != nil {
				t.Fatalf("%s, %v: %v", name, zip, err)
			}
			got, err := io.ReadAll(b)
			if err != nil || !bytes.Equal(got, data) || b.Close() != nil || stream.String() != "after" {
				t.Errorf("%s, %v: %d bytes, %v, left %d", name, zip, len(got), err, stream.Len())
			}
		}
	}
}

func TestBlobCloseDrains(t *testing.T) {
	t.Parallel()
	for _, zip := range []bool{false, true} {
		stream := blob(t, bytes.Repeat([]byte("0123456789"), 30_000), zip)
		b, err := NewBlobReader(stream)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 5)); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil || stream.String() != "after" {
			t.Errorf("gzip %v: %v, left %d bytes", zip, err, stream.Len())
		}
	}
	// What claims to be gzip and is not leaves the stream at the blob's end too.
	var stream bytes.Buffer
	if err := SendBlob(&stream, strings.NewReader("plain"), true); err != nil {
		t.Fatal(err)
	}
	stream.WriteString("after")
	if _, err := NewBlobReader(&stream); !errors.Is(err, gzip.ErrHeader) && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no gzip: %v", err)
	}
	if stream.String() != "after" {
		t.Errorf("left %q", stream.String())
	}
}

func TestBlobAborted(t *testing.T) {
	t.Parallel()
	// The second is what a cut-off download of the sender's looks like.
	for _, broken := range []error{errors.New("broken"), io.ErrUnexpectedEOF} {
		for _, zip := range []bool{false, true} {
			data := bytes.Repeat([]byte("0123456789"), 30_000)
			if zip {
				data = gzipped(t, data)
			}
			for _, sent := range []int{0, len(data) / 2} {
				var stream bytes.Buffer
				err := SendBlob(&stream, io.MultiReader(bytes.NewReader(data[:sent]), failing{broken}), zip)
				if !errors.Is(err, broken) {
					t.Errorf("sender: %v, want %v", err, broken)
				}
				stream.WriteString("after")
				b, err := NewBlobReader(&stream)
				if err == nil {
					_, err = io.Copy(io.Discard, b)
					if closeErr := b.Close(); !errors.Is(closeErr, ErrAborted) {
						t.Errorf("close: %v", closeErr)
					}
				}
				if !errors.Is(err, ErrAborted) || stream.String() != "after" {
					t.Errorf("gzip %v after %d bytes: %v, left %q", zip, sent, err, stream.String())
				}
			}
		}
	}
}

func TestBlobRefuses(t *testing.T) {
	t.Parallel()
	chunk := func(n uint32, body string) string {
		return string(binary.BigEndian.AppendUint32(nil, n)) + body
	}
	for name, tt := range map[string]struct{ stream, want string }{
		"nothing":         {"", "unexpected EOF"},
		"other head":      {"\x02" + chunk(0, ""), "0x02"},
		"text":            {"hello", "0x68"},
		"no chunk":        {"\x00", "unexpected EOF"},
		"half a length":   {"\x00\x00\x00", "unexpected EOF"},
		"half a chunk":    {"\x00" + chunk(5, "abc"), "unexpected EOF"},
		"no end":          {"\x00" + chunk(3, "abc"), "unexpected EOF"},
		"chunk too large": {"\x00" + chunk(maxChunk+1, "abc"), "more than"},
		"gzip cut off":    {"\x01" + chunk(10, string(gzipped(t, []byte("abc"))[:10])) + chunk(0, ""), "unexpected EOF"},
	} {
		b, err := NewBlobReader(strings.NewReader(tt.stream))
		if err == nil {
			_, err = io.Copy(io.Discard, b)
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

func TestSendBlobToNobody(t *testing.T) {
	t.Parallel()
	r, w := io.Pipe()
	gone := errors.New("gone")
	_ = r.CloseWithError(gone)
	if err := SendBlob(w, strings.NewReader("x"), false); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
}

// Any data arrives as it was sent, and no stream makes more of itself than it is.
func FuzzBlobReader(f *testing.F) {
	f.Add([]byte(nil), false)
	f.Add([]byte("\x00\x00\x00\x00\x03abc\x00\x00\x00\x00"), false)
	f.Add([]byte("\x00\xff\xff\xff\xff"), true)
	f.Add(append([]byte("\x01\x00\x00\x00\x1b"), gzipped(f, []byte("abc"))...), true)
	f.Fuzz(func(t *testing.T, data []byte, zip bool) {
		stream := blob(t, data, zip)
		b, err := NewBlobReader(stream)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(b); err != nil || !bytes.Equal(got, data) || stream.String() != "after" {
			t.Fatalf("got %q, %v; left %q", got, err, stream.String())
		}
		if b, err = NewBlobReader(bytes.NewReader(data)); err != nil {
			return
		}
		n, _ := io.Copy(io.Discard, io.LimitReader(b, 1<<20))
		if data[0] == 0 && n > int64(len(data)) {
			t.Errorf("%d bytes came of %d", n, len(data))
		}
		_ = b.Close()
	})
}
