package stdio

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestTail(t *testing.T) {
	t.Parallel()
	var short Tail
	short.Write([]byte("a\nb\n"))
	if short.String() != "a\nb\n" {
		t.Errorf("%q", short.String())
	}
	var long Tail
	for range 3000 {
		long.Write([]byte("line\n"))
	}
	long.Write([]byte("end \xff"))
	if s := long.String(); len(s) > TailSize+3 || !strings.HasPrefix(s, "line\n") || !strings.HasSuffix(s, "line\nend \uFFFD") {
		t.Errorf("%d bytes, %q … %q", len(s), s[:10], s[len(s)-10:])
	}
	var huge Tail
	huge.Write(bytes.Repeat([]byte("x"), 10*TailSize))
	if len(huge.String()) != TailSize {
		t.Errorf("%d bytes", len(huge.String()))
	}
}

// FuzzMarkFilter cuts noise, mark and output into pieces of any size.
func FuzzMarkFilter(f *testing.F) {
	f.Add("noise", "output", 1)
	f.Add("", "", 3)
	f.Add("\n"+StartMark, "\n"+StartMark+"\n", 7)
	f.Add(strings.Repeat("n", 5000), "x\x00y", 1000)
	f.Fuzz(func(t *testing.T, noise, output string, size int) {
		if size < 1 || strings.Contains(noise+"\n", "\n"+StartMark+"\n") || strings.HasPrefix(noise, StartMark) {
			return
		}
		var got bytes.Buffer
		a := NewMarkFilter(&got)
		for piece := range slices.Chunk([]byte(noise+"\n"+StartMark+"\n"+output), size) {
			if n, err := a.Write(slices.Clone(piece)); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
		if !a.Seen() || got.String() != output {
			t.Errorf("got %q, want %q", got.String(), output)
		}
	})
}
