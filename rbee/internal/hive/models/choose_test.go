package models

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

// TestOddNames holds that a file with an odd name is fetched where it is wanted
// and can be kept, and does no harm where it is not.
func TestOddNames(t *testing.T) {
	t.Parallel()
	gguf := hubtest.GGUF(1, 1, 1, 1, 1, 10)
	for name, c := range map[string]struct {
		files     []string
		model, id string
		err       string
	}{
		"beside it":            {[]string{"bee-Q4_K_M.gguf", "logo@2x.png", "a:b.txt", "a\\b", "../x"}, "org/odd", "org/odd:Q4_K_M", ""},
		"with it":              {[]string{"bee.safetensors", "logo@2x.png", "a:b.txt"}, "org/odd", "org/odd", ""},
		"with what cannot be":  {[]string{"bee.safetensors", "a\\b"}, "org/odd", "", `invalid file of org/odd: "a\\b"`},
		"named by its quant":   {[]string{"bee@2:1-Q4_K_M.gguf", "bee-Q8_0.gguf"}, "org/odd", "org/odd:Q4_K_M", ""},
		"not to be named":      {[]string{"bee@2:1.gguf"}, "org/odd", "", `"bee@2:1.gguf" has a : or @`},
		"two of a quant":       {[]string{"bee@2-Q4_K_M.gguf", "bee-Q4_K_M.gguf"}, "org/odd:Q4_K_M", "", `bee-Q4_K_M.gguf (`},
		"the other of a quant": {[]string{"bee@2-Q4_K_M.gguf", "bee-Q4_K_M.gguf"}, "org/odd:bee-Q4_K_M.gguf", "org/odd:Q4_K_M", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.Repos["org/odd"] = hubtest.Repo{}
			for _, f := range c.files {
				w.Repos["org/odd"][f] = gguf
			}
			r, err := w.Download(t.Context(), ref(t, c.model), DownloadOptions{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("%v has no %q", err, c.err)
				}
				return
			}
			if err != nil || r.Model.ID != c.id {
				t.Fatalf("%+v, %v", r, err)
			}
			for _, f := range r.Model.Files {
				w.holds(t, "org/odd", f.Path)
			}
			if found, err := w.Find(t.Context(), ref(t, r.Model.ID)); err != nil || found.ID != r.Model.ID {
				t.Errorf("%+v, %v", found, err)
			}
			if _, err := w.Delete(t.Context(), r.Model.ID); err != nil {
				t.Error(err)
			}
		})
	}
	for _, typed := range []string{"org/odd:a:b.gguf", "org/odd:a@b@main", "file:/a/b:c.gguf"} {
		if _, err := model.ParseRef(typed); operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("%s: %v", typed, err)
		}
	}
}
