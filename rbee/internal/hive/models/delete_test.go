package models

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

func TestDeleteKeepsWhatIsShared(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	same := hubtest.GGUF(1, 2, 2, 64, 4096, 50_000)
	w.Repos["org/same"] = hubtest.Repo{"a-Q4_K_M.gguf": same, "b-Q8_0.gguf": same, "c-Q2_K.gguf": hubtest.Noise(1, 5000)}
	for _, m := range []string{"org/same:Q4_K_M", "org/same:Q8_0", "org/same:Q2_K"} {
		w.fetch(t, m)
	}
	size := int64(len(same))
	r, err := w.Delete(t.Context(), "org/same:Q4_K_M")
	if err != nil || r.Freed != 0 || r.Kept != size {
		t.Errorf("%+v, %v", r, err)
	}
	w.holds(t, "org/same", "b-Q8_0.gguf", "c-Q2_K.gguf")
	if r, err = w.Delete(t.Context(), "org/same:Q8_0"); err != nil || r.Freed != size || r.Kept != 0 {
		t.Errorf("%+v, %v", r, err)
	}
	w.holds(t, "org/same", "c-Q2_K.gguf")
	if _, err := w.Delete(t.Context(), "org/same:Q8_0"); operations.CodeOf(err) != operations.CodeNotFound || !strings.Contains(err.Error(), "org/same:Q2_K") {
		t.Errorf("%v", err)
	}
	if r, err = w.Delete(t.Context(), "org/same:Q2_K"); err != nil || r.Freed != 5000 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(w.repo("org/same").dir); err == nil {
		t.Error("the repository stays")
	}
}

func TestDeleteHalfAModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.Fail(q4, hubtest.Fault{CutAfter: 300_000, Cuts: -1, IgnoreRange: true})
	if _, err := w.Download(t.Context(), ref(t, "org/gguf"), DownloadOptions{}); err == nil {
		t.Fatal("it is whole")
	}
	r, err := w.Delete(t.Context(), "org/gguf:Q4_K_M")
	if err != nil || r.Freed == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := os.Stat(w.repo("org/gguf").dir); err == nil {
		t.Error("the repository stays")
	}
}

// TestDeleteLeavesAnothersDownload holds that the last model of a repository goes,
// and the repository stays, while huggingface_hub fetches something there: it has
// no more than the blob, and a lock, until that is whole.
func TestDeleteLeavesAnothersDownload(t *testing.T) {
	t.Parallel()
	long := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		changed time.Time
		held    bool
		doomed  bool // it is of the model that is deleted
		stays   bool
	}{
		"locked":                      {long, true, false, true},
		"just written":                {time.Now(), false, false, true},
		"left over":                   {long, false, false, false},
		"of the model and locked":     {long, true, true, true},
		"of the model and not locked": {time.Now(), false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.fetch(t, "org/gguf")
			r, etag := w.repo("org/gguf"), hubtest.Sum(w.Repos["org/gguf"][q8])
			if c.doomed {
				etag = hubtest.Sum(w.Repos["org/gguf"][q4])
			}
			if err := errors.Join(os.WriteFile(r.theirs(etag), []byte("half"), 0o600), os.Chtimes(r.theirs(etag), c.changed, c.changed)); err != nil {
				t.Fatal(err)
			}
			if c.held {
				lock, err := os.Create(r.theirLock(etag))
				if err != nil {
					t.Fatal(err)
				}
				defer lock.Close()
				if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := w.Delete(t.Context(), "org/gguf"); err != nil {
				t.Fatal(err)
			}
			if list, err := w.List(t.Context()); err != nil || len(list) > 0 {
				t.Errorf("listed are %+v, %v", list, err)
			}
			if left := w.left(t, hubtest.Sum(w.Repos["org/gguf"][q4])); len(left) > 0 {
				t.Errorf("left %v", left)
			}
			for _, path := range []string{r.theirs(etag), r.snapshot(hubtest.Commit("org/gguf")), r.ref("main"), filepath.Join(r.dir, "blobs")} {
				if _, err := os.Stat(path); (err == nil) != c.stays {
					t.Errorf("%s: %v", path, err)
				}
			}
			if _, err := os.Stat(r.theirLock(etag)); c.held && err != nil {
				t.Error(err)
			}
		})
	}
}
