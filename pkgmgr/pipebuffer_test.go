package pkgmgr

import (
	"io"
	"testing"
)

// TestPipeBuffer checks that Write does not wait for a reader, and that no output is lost.
func TestPipeBuffer(t *testing.T) {
	t.Parallel()
	b := newPipeBuffer()
	for _, text := range []string{"one ", "two ", "three"} {
		if n, err := b.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("Write(%q) = %d, %v, want %d", text, n, err, len(text))
		}
	}
	read := make(chan string)
	go func() {
		data, err := io.ReadAll(b)
		if err != nil {
			t.Errorf("ReadAll() = %v", err)
		}
		read <- string(data)
	}()
	b.close()
	if n, err := newPipeBuffer().Write(make([]byte, maxPipeBuffer+1)); err == nil {
		t.Errorf("Write() of more than the limit = %d, nil; want an error", n)
	}
	if got, want := <-read, "one two three"; got != want {
		t.Errorf("ReadAll() = %q, want %q", got, want)
	}
}
