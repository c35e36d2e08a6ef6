package pkgmgr

import (
	"io"
	"testing"
)

// TestMailbox checks that writing does not wait for a reader, and that nothing is lost.
func TestMailbox(t *testing.T) {
	t.Parallel()
	m := newMailbox()
	for _, text := range []string{"one ", "two ", "three"} {
		if n, err := m.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", text, n, err)
		}
	}
	read := make(chan string)
	go func() {
		data, err := io.ReadAll(m)
		if err != nil {
			t.Errorf("ReadAll() = %v", err)
		}
		read <- string(data)
	}()
	m.close()
	if n, err := newMailbox().Write(make([]byte, maxMailbox+1)); err == nil {
		t.Errorf("Write() of more than the limit = %d, nil; want an error", n)
	}
	if got, want := <-read, "one two three"; got != want {
		t.Errorf("read %q, want %q", got, want)
	}
}
