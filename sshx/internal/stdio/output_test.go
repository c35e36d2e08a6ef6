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
		t.Errorf("String() = %q, want %q", short.String(), "a\nb\n")
	}
	var long Tail
	for range 3000 {
		long.Write([]byte("line\n"))
	}
	long.Write([]byte("end \xff"))
	if s := long.String(); len(s) > TailSize+3 || !strings.HasPrefix(s, "line\n") || !strings.HasSuffix(s, "line\nend \uFFFD") {
		t.Errorf("String() has %d bytes, %q … %q, want at most %d bytes of complete lines and the valid end", len(s), s[:10], s[len(s)-10:], TailSize+3)
	}
	var huge Tail
	huge.Write(bytes.Repeat([]byte("x"), 10*TailSize))
	if len(huge.String()) != TailSize {
		t.Errorf("String() has %d bytes, want %d", len(huge.String()), TailSize)
	}
}

// FuzzMarkFilter writes preamble, mark and output in pieces of different sizes.
func FuzzMarkFilter(f *testing.F) {
	f.Add("preamble", "output", 1)
	f.Add("", "", 3)
	f.Add("\n"+StartMark, "\n"+StartMark+"\n", 7)
	f.Add(strings.Repeat("n", 5000), "x\x00y", 1000)
	f.Fuzz(func(t *testing.T, preamble, output string, size int) {
		if size < 1 || strings.Contains(preamble+"\n", "\n"+StartMark+"\n") || strings.HasPrefix(preamble, StartMark) {
			return
		}
		var got bytes.Buffer
		filter := NewMarkFilter(&got)
		for piece := range slices.Chunk([]byte(preamble+"\n"+StartMark+"\n"+output), size) {
			if n, err := filter.Write(slices.Clone(piece)); n != len(piece) || err != nil {
				t.Fatalf("Write(%q) = %d, %v, want %d, nil", piece, n, err, len(piece))
			}
		}
		if !filter.Seen() || got.String() != output {
			t.Errorf("filter of preamble %q and output %q passed on %q (mark seen: %t), want %q", preamble, output, got.String(), filter.Seen(), output)
		}
	})
}
