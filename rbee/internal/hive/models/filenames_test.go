package models

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

// TestSpecialFileNames checks that a model can have files with special characters in their
// names, and that such files do not affect other models.
func TestSpecialFileNames(t *testing.T) {
	t.Parallel()
	gguf := hubtest.GGUF(1, 1, 1, 1, 1, 10)
	for name, c := range map[string]struct {
		files     []string
		model, id string
		err       string
	}{
		"files of no model":         {[]string{"bee-Q4_K_M.gguf", "logo@2x.png", "a:b.txt", "a\\b", "../x"}, "org/odd", "org/odd:Q4_K_M", ""},
		"files of the model":        {[]string{"bee.safetensors", "logo@2x.png", "a:b.txt"}, "org/odd", "org/odd", ""},
		"invalid file of the model": {[]string{"bee.safetensors", "a\\b"}, "org/odd", "", `invalid file of org/odd: "a\\b"`},
		"selected by quantization":  {[]string{"bee@2:1-Q4_K_M.gguf", "bee-Q8_0.gguf"}, "org/odd", "org/odd:Q4_K_M", ""},
		"cannot be selected":        {[]string{"bee@2:1.gguf"}, "org/odd", "", `"bee@2:1.gguf" contains : or @`},
		"ambiguous quantization":    {[]string{"bee@2-Q4_K_M.gguf", "bee-Q4_K_M.gguf"}, "org/odd:Q4_K_M", "", `bee-Q4_K_M.gguf (`},
		"selected by file name":     {[]string{"bee@2-Q4_K_M.gguf", "bee-Q4_K_M.gguf"}, "org/odd:bee-Q4_K_M.gguf", "org/odd:Q4_K_M", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t)
			w.Repos["org/odd"] = hubtest.Repo{}
			for _, f := range c.files {
				w.Repos["org/odd"][f] = gguf
			}
			r, err := w.Download(t.Context(), mustParseRef(t, c.model), DownloadOptions{})
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) {
					t.Errorf("Download(%q) = %v, want %q in it", c.model, err, c.err)
				}
				return
			}
			if err != nil || r.Model.ID != c.id {
				t.Fatalf("Download(%q) = %+v, %v, want %s", c.model, r, err, c.id)
			}
			for _, f := range r.Model.Files {
				w.checkFiles(t, "org/odd", f.Path)
			}
			if found, err := w.Find(t.Context(), mustParseRef(t, r.Model.ID)); err != nil || found.ID != r.Model.ID {
				t.Errorf("Find(%q) = %+v, %v, want the same ID", r.Model.ID, found, err)
			}
			if _, err := w.Delete(t.Context(), r.Model.ID); err != nil {
				t.Errorf("Delete(%q) = %v, want nil", r.Model.ID, err)
			}
		})
	}
	for _, typed := range []string{"org/odd:a:b.gguf", "org/odd:a@b@main", "file:/a/b:c.gguf"} {
		if _, err := model.ParseRef(typed); operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("ParseRef(%q) = %v, want code %s", typed, err, operations.CodeBadOperation)
		}
	}
}
