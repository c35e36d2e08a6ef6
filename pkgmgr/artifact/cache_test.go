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

// TestMakingIsTriedAgain holds that what fails once does not fail for all who want it,
// and that it is not tried for ever.
func TestMakingIsTriedAgain(t *testing.T) {
	t.Parallel()
	for fails, want := range map[int]int{0: 1, 1: 2, makeTries - 1: makeTries, 99: makeTries} {
		a, made := &Cache{}, 0
		for range 9 {
			err := a.once(t.Context(), "x", "y", func() error {
				if made++; made <= fails {
					return errors.New("no")
				}
				return nil
			})
			if (err == nil) != (made > fails) {
				t.Errorf("%d: %v after %d", fails, err, made)
			}
		}
		if made != want {
			t.Errorf("%d: made %d times, want %d", fails, made, want)
		}
	}
}

// TestDamagedPack holds that a compressed file of the cache is checked before it is
// sent.
func TestDamagedPack(t *testing.T) {
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
	packed := filepath.Join(dir, sum+".gz")
	open := func() []byte {
		f, gzipped, err := (&Cache{dir: dir}).Open(t.Context(), wire.Artifact{SHA256: sum}, file, true)
		if err != nil || !gzipped {
			t.Fatal(gzipped, err)
		}
		defer f.Close()
		data, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	good := open()
	for _, damage := range []func([]byte) []byte{
		func(d []byte) []byte { d[len(d)/2] ^= 1; return d },
		func(d []byte) []byte { return d[:len(d)-9] },
		func([]byte) []byte { return nil },
	} {
		if err := os.WriteFile(packed, damage(bytes.Clone(good)), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := open(); !bytes.Equal(got, good) {
			t.Errorf("%d bytes are sent, want %d", len(got), len(good))
		}
	}
}
