package artifact

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// TestCacheCreateRetries checks that create tries again after a failure, but only
// maxCreateAttempts times.
func TestCacheCreateRetries(t *testing.T) {
	t.Parallel()
	for failures, want := range map[int]int{0: 1, 1: 2, maxCreateAttempts - 1: maxCreateAttempts, 99: maxCreateAttempts} {
		c, attempts := &Cache{}, 0
		for range 9 {
			err := c.create(t.Context(), "x", "y", func() error {
				if attempts++; attempts <= failures {
					return errors.New("no")
				}
				return nil
			})
			if (err == nil) != (attempts > failures) {
				t.Errorf("%d failures: create() = %v after %d attempts, want an error: %t", failures, err, attempts, attempts <= failures)
			}
		}
		if attempts != want {
			t.Errorf("%d failures: create() made %d attempts, want %d", failures, attempts, want)
		}
	}
}

func TestCacheReplacesDamagedCompressedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "engine")
	if err := os.WriteFile(file, []byte(strings.Repeat("honey ", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, _, err := fetch.HashFile(file)
	if err != nil {
		t.Fatal(err)
	}
	compressed := filepath.Join(dir, sum+".gz")
	open := func() []byte {
		f, gzipped, err := (&Cache{dir: dir}).Open(t.Context(), wire.Artifact{SHA256: sum}, file, true)
		if err != nil || !gzipped {
			t.Fatalf("Open() = gzipped %t, %v, want true and no error", gzipped, err)
		}
		defer f.Close()
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := open()
	for name, damage := range map[string]func([]byte) []byte{
		"flipped bit": func(d []byte) []byte { d[len(d)/2] ^= 1; return d },
		"truncated":   func(d []byte) []byte { return d[:len(d)-9] },
		"empty":       func([]byte) []byte { return nil },
	} {
		if err := os.WriteFile(compressed, damage(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := open(); !bytes.Equal(got, good) {
			t.Errorf("%s: Open() returns a file of %d bytes, want the original %d bytes", name, len(got), len(good))
		}
	}
}
