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

func TestDeleteKeepsSharedBlobs(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	shared := hubtest.GGUF(1, 2, 2, 64, 4096, 50_000)
	w.Repos["org/same"] = hubtest.Repo{"a-Q4_K_M.gguf": shared, "b-Q8_0.gguf": shared, "c-Q2_K.gguf": hubtest.Noise(1, 5000)}
	for _, m := range []string{"org/same:Q4_K_M", "org/same:Q8_0", "org/same:Q2_K"} {
		w.mustDownload(t, m)
	}
	size := int64(len(shared))
	r, err := w.Delete(t.Context(), "org/same:Q4_K_M")
	if err != nil || r.FreedBytes != 0 || r.KeptBytes != size {
		t.Errorf("Delete(Q4_K_M) = %+v, %v, want 0 bytes freed and %d kept", r, err, size)
	}
	w.checkFiles(t, "org/same", "b-Q8_0.gguf", "c-Q2_K.gguf")
	if r, err = w.Delete(t.Context(), "org/same:Q8_0"); err != nil || r.FreedBytes != size || r.KeptBytes != 0 {
		t.Errorf("Delete(Q8_0) = %+v, %v, want %d bytes freed", r, err, size)
	}
	w.checkFiles(t, "org/same", "c-Q2_K.gguf")
	if _, err := w.Delete(t.Context(), "org/same:Q8_0"); operations.CodeOf(err) != operations.CodeNotFound || !strings.Contains(err.Error(), "org/same:Q2_K") {
		t.Errorf("second Delete(Q8_0) = %v, want code %s and the other model", err, operations.CodeNotFound)
	}
	if r, err = w.Delete(t.Context(), "org/same:Q2_K"); err != nil || r.FreedBytes != 5000 {
		t.Errorf("Delete(Q2_K) = %+v, %v, want 5000 bytes freed", r, err)
	}
	if _, err := os.Stat(w.repo("org/same").dir); err == nil {
		t.Error("the repository exists after its last model was deleted, want it removed")
	}
}

func TestDeleteIncompleteModel(t *testing.T) {
	t.Parallel()
	w := newFixture(t)
	w.Fail(q4, hubtest.Fault{CutAfter: 300_000, Cuts: -1, IgnoreRange: true})
	if _, err := w.Download(t.Context(), mustParseRef(t, "org/gguf"), DownloadOptions{}); err == nil {
		t.Fatal("Download() = nil, want an error")
	}
	r, err := w.Delete(t.Context(), "org/gguf:Q4_K_M")
	if err != nil || r.FreedBytes == 0 {
		t.Errorf("Delete() = %+v, %v, want some bytes freed", r, err)
	}
	if _, err := os.Stat(w.repo("org/gguf").dir); err == nil {
		t.Error("the repository exists after its last model was deleted, want it removed")
	}
}

// TestDeleteKeepsHubDownload checks that deleting the last model of a repository keeps the
// repository while huggingface_hub is downloading a file into it. Until such a file is
// complete, only its blob and a lock exist.
func TestDeleteKeepsHubDownload(t *testing.T) {
	t.Parallel()
	hourAgo := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		modTime        time.Time // of the partial file
		locked         bool
		ofDeletedModel bool // the file belongs to the deleted model
		wantKept       bool
	}{
		"locked":                    {hourAgo, true, false, true},
		"recently changed":          {time.Now(), false, false, true},
		"abandoned":                 {hourAgo, false, false, false},
		"deleted model, locked":     {hourAgo, true, true, true},
		"deleted model, not locked": {time.Now(), false, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			w.mustDownload(t, "org/gguf")
			r, etag := w.repo("org/gguf"), hubtest.Sum(w.Repos["org/gguf"][q8])
			if c.ofDeletedModel {
				etag = hubtest.Sum(w.Repos["org/gguf"][q4])
			}
			if err := errors.Join(os.WriteFile(r.hubPartPath(etag), []byte("half"), 0o600), os.Chtimes(r.hubPartPath(etag), c.modTime, c.modTime)); err != nil {
				t.Fatal(err)
			}
			if c.locked {
				lock, err := os.Create(r.hubLockPath(etag))
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
				t.Errorf("List() = %+v, %v, want none", list, err)
			}
			if left := w.findFiles(t, hubtest.Sum(w.Repos["org/gguf"][q4])); len(left) > 0 {
				t.Errorf("blobs of the deleted model = %v, want none", left)
			}
			for _, path := range []string{r.hubPartPath(etag), r.snapshot(hubtest.Commit("org/gguf")), r.ref("main"), filepath.Join(r.dir, "blobs")} {
				if _, err := os.Stat(path); (err == nil) != c.wantKept {
					t.Errorf("Stat(%q) = %v, want the file kept: %t", path, err, c.wantKept)
				}
			}
			if _, err := os.Stat(r.hubLockPath(etag)); c.locked && err != nil {
				t.Errorf("Stat() of the lock file = %v, want nil", err)
			}
		})
	}
}
