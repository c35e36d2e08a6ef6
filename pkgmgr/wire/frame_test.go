package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// repeatReader is an endless stream of one byte.
type repeatReader byte

func (r repeatReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(r)
	}
	return len(p), nil
}

func record(text string) string { return string(rune(recordSeparator)) + text + "\n" }

func TestRecordsRoundTrip(t *testing.T) {
	t.Parallel()
	sent := []Message{
		{Need: &Need{Index: 3}},
		{Step: &StepStatus{Index: 1, Done: true, Note: "a\x1eb\nc"}}, // escaped by JSON
		{Result: &Result{Errors: []string{"", "ü"}, State: &State{Home: "/h", Settings: &Settings{Alias: "a", HivePort: 1}}}},
		{Step: &StepStatus{Note: strings.Repeat("long ", 20_000)}}, // larger than the buffer of a Reader
	}
	var stream bytes.Buffer
	w := NewWriter(&stream)
	for _, m := range sent {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	r := NewReader(&stream)
	for i, want := range sent {
		var got Message
		if err := r.Read(&got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("Read() of record %d = %+v, %v, want %+v", i, got, err, want)
		}
	}
	if err := r.Read(new(Message)); !errors.Is(err, io.EOF) {
		t.Errorf("Read() after the last record = %v, want %v", err, io.EOF)
	}
	if err := w.Write(make(chan int)); err == nil || stream.Len() != 0 {
		t.Errorf("Write(chan) = %v and wrote %d bytes, want an error and 0 bytes", err, stream.Len())
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	partial := `{"need":{"in`
	for name, tt := range map[string]struct {
		stream string
		want   []int // indexes of the records that are read
		err    error
	}{
		"empty stream":            {"", nil, io.EOF},
		"only noise":              {"Last login: today\n\n{\"index\":9}\n", nil, io.EOF},
		"noise before":            {"motd\r\n" + strings.Repeat("=", 10_000) + record(`{"index":1}`), []int{1}, io.EOF},
		"noise between":           {record(`{"index":1}`) + "warning: x\n" + record(`{"index":2}`) + "bye", []int{1, 2}, io.EOF},
		"interrupted record":      {"\x1e" + partial + record(`{"index":2}`), []int{2}, io.EOF},
		"two interrupted records": {"\x1e" + partial + "\x1e" + partial + record(`{"index":2}`), []int{2}, io.EOF},
		"long interrupted record": {"\x1e" + strings.Repeat("x", 10_000) + record(`{"index":2}`), []int{2}, io.EOF},
		"repeated separator":      {"\x1e" + record(`{"index":1}`), []int{1}, io.EOF},
		"end in a record":         {record(`{"index":1}`) + "\x1e" + partial, []int{1}, io.ErrUnexpectedEOF},
		"end after separator":     {"\x1e", nil, io.ErrUnexpectedEOF},
		"end before newline":      {"\x1e" + `{"index":1}`, nil, io.ErrUnexpectedEOF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []int
			r := NewReader(strings.NewReader(tt.stream))
			for {
				var n Need
				err := r.Read(&n)
				if err == nil {
					got = append(got, n.Index)
					continue
				}
				if !errors.Is(err, tt.err) || !reflect.DeepEqual(got, tt.want) {
					t.Errorf("indexes of the records before an error of Read() = %v, error = %v, want %v, %v", got, err, tt.want, tt.err)
				}
				return
			}
		})
	}
}

func TestReaderErrors(t *testing.T) {
	t.Parallel()
	r := NewReader(strings.NewReader(record("text") + record(`{"index":1}`)))
	var n Need
	if err := r.Read(&n); err == nil || !strings.Contains(err.Error(), "invalid JSON") {
		t.Errorf("Read() of invalid JSON = %v, want an error with %q", err, "invalid JSON")
	}
	if err := r.Read(&n); err != nil || n.Index != 1 {
		t.Errorf("Read() after invalid JSON = %+v, %v, want index 1", n, err)
	}
	r = NewReader(io.MultiReader(strings.NewReader("\x1e"), repeatReader('x')))
	if err := r.Read(&n); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("Read() of an endless record = %v, want an error with %q", err, "larger than")
	}
	readErr := errors.New("broken")
	r = NewReader(io.MultiReader(strings.NewReader("\x1e{"), errorReader{readErr}))
	if err := r.Read(&n); !errors.Is(err, readErr) {
		t.Errorf("Read() from a failing reader = %v, want %v", err, readErr)
	}
}

func TestRequest(t *testing.T) {
	t.Parallel()
	want := &Request{Schema: Schema, Owner: "a\nb", LockWait: 5, Steps: []Step{{Action: ActionStart}, {
		Action: ActionInstallWorker,
		Worker: &WorkerInstall{Type: "w", Steps: []InstallStep{{Kind: StepArchive, Format: FormatZip, Artifact: &Artifact{Size: 7}}}},
	}}}
	var stream bytes.Buffer
	if err := WriteRequest(&stream, want); err != nil {
		t.Fatal(err)
	}
	stream.WriteString("after")
	got, err := ReadRequest(&stream)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("ReadRequest() returned error %v and a request that differs (-want +got):\n%s", err, cmp.Diff(want, got))
	}
	if stream.String() != "after" {
		t.Errorf("stream after ReadRequest() = %q, want %q", stream.String(), "after")
	}
	for text, want := range map[string]string{"": "unexpected EOF", `{"schema":1}`: "unexpected EOF", "no\n": "invalid", "[]\n": "array"} {
		if _, err := ReadRequest(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ReadRequest(%q) = %v, want an error with %q", text, err, want)
		}
	}
	if _, err := ReadRequest(repeatReader('x')); err == nil || !strings.Contains(err.Error(), "larger than") {
		t.Errorf("ReadRequest() of an endless line = %v, want an error with %q", err, "larger than")
	}
}

// FuzzReader checks that a Reader finds a record after arbitrary other bytes.
func FuzzReader(f *testing.F) {
	f.Add([]byte("Welcome!\n"))
	f.Add([]byte(record(`{"index":1}`)))
	f.Add([]byte("\x1e{\"index\":"))
	f.Add([]byte("\x1e\x1e\n\x1e[]\n"))
	f.Fuzz(func(t *testing.T, before []byte) {
		stream := bytes.NewBuffer(before)
		if err := NewWriter(stream).Write(Need{Index: 4711}); err != nil {
			t.Fatal(err)
		}
		r := NewReader(stream)
		var last Need
		for reads := 0; ; reads++ {
			var n Need
			err := r.Read(&n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				last = n
			}
			if reads > len(before)+1 {
				t.Fatalf("Read() does not return %v after %d calls; the last error is %v", io.EOF, reads, err)
			}
		}
		if last.Index != 4711 {
			t.Errorf("last record = %+v, want index 4711", last)
		}
	})
}
