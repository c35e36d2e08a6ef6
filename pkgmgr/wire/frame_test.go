package wire

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
)

// endless is a stream of one byte.
type endless byte

func (e endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(e)
	}
	return len(p), nil
}

func record(text string) string { return string(rune(recordSeparator)) + text + "\n" }

func TestRecordsRoundTrip(t *testing.T) {
	t.Parallel()
	sent := []Message{
		{Need: &Need{Index: 3}},
		{Step: &StepNote{Index: 1, Done: true, Note: "a\x1eb\nc"}}, // escaped by JSON
		{Result: &Result{Errors: []string{"", "ü"}, State: &State{Home: "/h", Settings: &Settings{Alias: "a", HivePort: 1}}}},
		{Step: &StepNote{Note: strings.Repeat("long ", 20_000)}}, // more than a reader's buffer
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
			t.Fatalf("record %d: %+v, %v", i, got, err)
		}
	}
	if err := r.Read(new(Message)); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want EOF", err)
	}
	if w.Write(make(chan int)) == nil || stream.Len() != 0 {
		t.Error("what is no JSON was written")
	}
}

func TestReader(t *testing.T) {
	t.Parallel()
	cut := `{"need":{"in` // the beginning of a record
	for name, tt := range map[string]struct {
		stream string
		want   []int // the numbers that come
		err    error
	}{
		"nothing":             {"", nil, io.EOF},
		"only noise":          {"Last login: today\n\n{\"index\":9}\n", nil, io.EOF},
		"noise before":        {"motd\r\n" + strings.Repeat("=", 10_000) + record(`{"index":1}`), []int{1}, io.EOF},
		"noise between":       {record(`{"index":1}`) + "warning: x\n" + record(`{"index":2}`) + "bye", []int{1, 2}, io.EOF},
		"cut off by another":  {"\x1e" + cut + record(`{"index":2}`), []int{2}, io.EOF},
		"cut off twice":       {"\x1e" + cut + "\x1e" + cut + record(`{"index":2}`), []int{2}, io.EOF},
		"long one cut off":    {"\x1e" + strings.Repeat("x", 10_000) + record(`{"index":2}`), []int{2}, io.EOF},
		"separator twice":     {"\x1e" + record(`{"index":1}`), []int{1}, io.EOF},
		"end in a record":     {record(`{"index":1}`) + "\x1e" + cut, []int{1}, io.ErrUnexpectedEOF},
		"end after separator": {"\x1e", nil, io.ErrUnexpectedEOF},
		"end before newline":  {"\x1e" + `{"index":1}`, nil, io.ErrUnexpectedEOF},
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
					t.Errorf("got %v, %v; want %v, %v", got, err, tt.want, tt.err)
				}
				return
			}
		})
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	r := NewReader(strings.NewReader(record("no JSON") + record(`{"index":1}`)))
	var n Need
	if err := r.Read(&n); err == nil || !strings.Contains(err.Error(), "no JSON") {
		t.Errorf("no JSON: %v", err)
	}
	if err := r.Read(&n); err != nil || n.Index != 1 {
		t.Errorf("after it: %+v, %v", n, err)
	}
	r = NewReader(io.MultiReader(strings.NewReader("\x1e"), endless('x')))
	if err := r.Read(&n); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("endless: %v", err)
	}
	broken := errors.New("broken")
	r = NewReader(io.MultiReader(strings.NewReader("\x1e{"), failing{broken}))
	if err := r.Read(&n); !errors.Is(err, broken) {
		t.Errorf("broken: %v", err)
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
		t.Errorf("got %+v, %v", got, err)
	}
	if stream.String() != "after" {
		t.Errorf("left %q", stream.String())
	}
	for text, want := range map[string]string{"": "unexpected EOF", `{"schema":1}`: "unexpected EOF", "no\n": "invalid", "[]\n": "array"} {
		if _, err := ReadRequest(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
	if _, err := ReadRequest(endless('x')); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("endless: %v", err)
	}
}

// Whatever was on the stream before, the record after it is read.
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
		for tries := 0; ; tries++ {
			var n Need
			err := r.Read(&n)
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				last = n
			}
			if tries > len(before)+1 {
				t.Fatalf("it does not end: %v", err)
			}
		}
		if last.Index != 4711 {
			t.Errorf("the last record was lost: %+v", last)
		}
	})
}
