package models

import (
	"os"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/models/hubtest"
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
