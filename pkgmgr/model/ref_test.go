package model

import (
	"bytes"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
)

func TestParseRef(t *testing.T) {
	t.Parallel()
	sum := strings.Repeat("ab", 32)
	for in, want := range map[string]Ref{
		"org/repo":                                        {Repo: "org/repo"},
		"org/repo:Q4_K_M":                                 {Repo: "org/repo", Part: "Q4_K_M"},
		"org/repo:dir/file.gguf@v1.0":                     {Repo: "org/repo", Part: "dir/file.gguf", Revision: "v1.0"},
		"Qwen/Qwen3-8B@refs/pr/1":                         {Repo: "Qwen/Qwen3-8B", Revision: "refs/pr/1"},
		"https://h/m.gguf#sha256=" + sum:                  {URL: "https://h/m.gguf", SHA256: sum},
		"file:/a/m.gguf":                                  {URL: "file:/a/m.gguf"},
		"file:///a/m.gguf#sha256=" + strings.ToUpper(sum): {URL: "file:///a/m.gguf", SHA256: sum},
	} {
		if got, err := ParseRef(in); err != nil || got != want {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{
		"", "parrot", "/", "a/b/c", "org/", "/repo", "org/../x", "../etc/passwd", "org/re--po", "org/repo:", "org/repo:../x", "org/repo:/x",
		"org/repo@", "org/repo@../x", "org/repo@a b", "org/repo:a\\b", "https://h/m.gguf", "https://h/#sha256=" + sum, "https://u:hunter2@h/m#sha256=" + sum,
		"https:///m#sha256=" + sum, "file:m.gguf", "file://other/m.gguf", "file:/", "https://h/m.gguf#sha256=12", "https://h/m.gguf#md5=" + sum, "ftp://h/m",
	} {
		got, err := ParseRef(in)
		if operations.CodeOf(err) != operations.CodeBadOperation {
			t.Errorf("ParseRef(%q) = %+v, %v, want an error with code %s", in, got, err, operations.CodeBadOperation)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("ParseRef(%q) = %v, want an error without the password", in, err)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	for _, s := range []string{"org/repo:Q4_K_M@main", "https://h/m.gguf?x=1#sha256=" + strings.Repeat("a", 64), "file:/a/b", "a/b:c/d@e/f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseRef(s)
		if err != nil {
			if operations.CodeOf(err) != operations.CodeBadOperation {
				t.Errorf("ParseRef(%q) = %v, want an error with code %s", s, err, operations.CodeBadOperation)
			}
			return
		}
		if r.URL != "" {
			if name := r.LocalRepo(); !repoPattern.MatchString(name) || strings.Contains(name, "..") || strings.Contains(name, "--") {
				t.Errorf("ParseRef(%q).LocalRepo() = %q, want a valid repository name", s, name)
			}
			return
		}
		if again, err := ParseRef(r.String()); err != nil || again != r {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v", r.String(), again, err, r)
		}
	})
}

func TestQuantOf(t *testing.T) {
	t.Parallel()
	for file, want := range map[string]string{
		"bee-Q4_K_M.gguf": "Q4_K_M", "bee.q8_0.gguf": "Q8_0", "Q4_K_M/bee-Q4_K_M-00001-of-00003.gguf": "Q4_K_M", "bee-IQ2_XXS.gguf": "IQ2_XXS",
		"bee-UD-Q4_K_XL.gguf": "UD-Q4_K_XL", "bee-bf16.gguf": "BF16", "bee-F16.gguf": "F16", "gpt-oss-20b-mxfp4.gguf": "MXFP4", "bee.gguf": "", "bee-4bit.gguf": "",
	} {
		if got := quantOf(file); got != want {
			t.Errorf("quantOf(%q) = %q, want %q", file, got, want)
		}
	}
}

func TestParseGGUF(t *testing.T) {
	t.Parallel()
	file := hubtest.GGUF(1, 32, 8, 128, 131072, 10)
	got, err := parseGGUF(bytes.NewReader(file))
	want := ggufInfo{Architecture: "llama", Layers: 32, Embedding: 1024, Heads: 8, KVHeads: 8, Context: 131072}
	if err != nil || got != want {
		t.Errorf("parseGGUF() = %+v, %v, want %+v", got, err, want)
	}
	for n := range 400 {
		if _, err := parseGGUF(bytes.NewReader(file[:n])); n < 300 && err == nil {
			t.Errorf("parseGGUF() of the first %d bytes = nil, want an error", n)
		}
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "other format": []byte("PK\x03\x04............"), "version 1": []byte("GGUF\x01\x00\x00\x00"),
		"many keys": append([]byte("GGUF\x03\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), bytes.Repeat([]byte{0xff}, 8)...),
	} {
		if _, err := parseGGUF(bytes.NewReader(bad)); err == nil {
			t.Errorf("%s: parseGGUF() = nil, want an error", name)
		}
	}
}

func FuzzGGUF(f *testing.F) {
	f.Add(hubtest.GGUF(1, 32, 8, 128, 131072, 10))
	f.Add([]byte("GGUF\x03\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) { _, _ = parseGGUF(bytes.NewReader(data)) })
}
