package model

import (
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// Ref is a reference to a model: a repository of a hub, or the URL of a file.
type Ref struct {
	Repo     string // org/repo, or local/name; empty for a URL
	Part     string // quantization or file; empty for the default
	Revision string // branch, tag or commit; empty for main

	URL    string // with scheme https, http or file, without the checksum
	SHA256 string // of the file at URL, in lower-case hex; empty if unknown
}

var (
	repoPattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$`)
	revisionPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}$`)
	sha256Pattern   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseRef parses a reference: org/repo[:part][@revision], or a URL with the fragment
// #sha256= and the checksum of the file. The fragment is optional only for file: URLs. Errors
// have the type [*operations.Error] and the code CodeBadOperation.
func ParseRef(s string) (Ref, error) {
	bad := func(format string, args ...any) (Ref, error) {
		return Ref{}, &operations.Error{
			Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectModel.WithName(RedactRef(s)),
			Message: fmt.Sprintf("invalid model %q: ", RedactRef(s)) + fmt.Sprintf(format, args...),
		}
	}
	if scheme, _, ok := strings.Cut(s, ":"); ok && (scheme == "https" || scheme == "http" || scheme == "file") {
		return parseURL(s, scheme, bad)
	}
	var r Ref
	rest := s
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest, r.Revision = rest[:i], rest[i+1:]
		if !ValidRevision(r.Revision) {
			return bad("invalid revision %q", r.Revision)
		}
	}
	var hasPart bool
	r.Repo, r.Part, hasPart = strings.Cut(rest, ":")
	switch {
	case !repoPattern.MatchString(r.Repo) || strings.Contains(r.Repo, "..") || strings.Contains(r.Repo, "--"):
		return bad("want org/repo[:quantization][@revision], org/repo:file or a URL")
	case hasPart && !validPart(r.Part):
		return bad("invalid quantization or file %q", r.Part)
	}
	return r, nil
}

// ValidRevision reports whether s is a valid revision.
func ValidRevision(s string) bool {
	return revisionPattern.MatchString(s) && path.Clean(s) == s && !strings.Contains(s, "..") && !strings.HasSuffix(s, ".lock")
}

// validPath reports whether p is a clean relative path that stays inside its base directory.
func validPath(p string) bool {
	return p != "" && len(p) < 1024 && path.Clean(p) == p && filepath.IsLocal(p) && !strings.ContainsAny(p, "\\\x00\n\r")
}

// validPart reports whether p is a valid path without : and @, which are separators in
// references.
func validPart(p string) bool { return validPath(p) && !strings.ContainsAny(p, ":@") }

// parseURL parses a reference that is a URL. It calls bad to create errors.
func parseURL(s, scheme string, bad func(string, ...any) (Ref, error)) (Ref, error) {
	r := Ref{URL: s}
	if base, sum, ok := strings.Cut(s, "#"); ok {
		sum, ok = strings.CutPrefix(sum, "sha256=")
		if r.URL, r.SHA256 = base, strings.ToLower(sum); !ok || !sha256Pattern.MatchString(r.SHA256) {
			return bad("want sha256= and 64 hex digits after #")
		}
	}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil:
		return bad("want a URL")
	case u.User != nil:
		return bad("want a URL without user name and password")
	case scheme == "file" && (u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path)):
		return bad("want file: and an absolute path on the hive")
	case scheme != "file" && u.Host == "":
		return bad("want a URL with a host")
	case scheme != "file" && r.SHA256 == "":
		return bad("want the checksum of the file after the URL: #sha256= and 64 hex digits")
	}
	if name := path.Base(u.Path); !validPart(name) || strings.HasPrefix(name, ".") {
		return bad("want the URL of a file")
	}
	return r, nil
}

// RedactRef returns a reference without the parts of a URL that may be secret: user,
// password, query and fragment.
func RedactRef(s string) string {
	if !strings.Contains(s, "://") {
		return s
	}
	s, _, _ = strings.Cut(s, "#")
	s, _, _ = strings.Cut(s, "?")
	if u, err := url.Parse(s); err == nil {
		u.User = nil
		return u.String()
	}
	return "(invalid URL)"
}

// String returns the reference in the format of [ParseRef]. It omits the query of a URL,
// which may be secret.
func (r Ref) String() string {
	if r.URL != "" {
		s := RedactRef(r.URL)
		if r.SHA256 != "" {
			s += "#sha256=" + r.SHA256
		}
		return s
	}
	s := r.Repo
	if r.Part != "" {
		s += ":" + r.Part
	}
	if r.Revision != "" {
		s += "@" + r.Revision
	}
	return s
}

// RevisionOrMain returns the revision, or "main" if the reference has none.
func (r Ref) RevisionOrMain() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

// FileName returns the file name of r.URL, or an empty string if the URL is invalid.
func (r Ref) FileName() string {
	u, err := url.Parse(r.URL)
	if err != nil {
		return ""
	}
	return path.Base(u.Path)
}

var invalidNameChars = regexp.MustCompile(`[^A-Za-z0-9._]+`)

// LocalRepo returns the name of the repository in which a file from a URL is stored.
func (r Ref) LocalRepo() string {
	name := r.FileName()
	for _, ext := range []string{".gguf", ".safetensors"} {
		name = strings.TrimSuffix(name, ext)
	}
	name = strings.Trim(invalidNameChars.ReplaceAllString(name, "-"), "-.")
	for strings.Contains(name, "..") {
		name = strings.ReplaceAll(name, "..", ".")
	}
	if name == "" {
		name = "model"
	}
	return "local/" + name[:min(len(name), 90)]
}

// Quantizations in names of GGUF files, such as Q4_K_M, IQ2_XXS, BF16 and UD-Q4_K_XL (see
// https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md), and the
// numbers of shards.
var (
	quantPattern = regexp.MustCompile(`(?i)(?:^|[-._/])((?:UD-)?(?:I?Q[0-9](?:_[A-Z0-9]+)*|TQ[0-9]_[0-9]|BF16|F16|F32|FP16|MXFP4(?:_MOE)?))\.gguf$`)
	shardPattern = regexp.MustCompile(`-([0-9]{5})-of-([0-9]{5})\.gguf$`)
)

// quantOf returns the quantization in the name of a GGUF file, in upper case, or an empty
// string if the name does not contain one.
func quantOf(file string) string {
	if m := quantPattern.FindStringSubmatch(UnshardedName(file)); m != nil {
		return strings.ToUpper(m[1])
	}
	return ""
}

// UnshardedName returns the name of a GGUF file without its shard number.
func UnshardedName(file string) string { return shardPattern.ReplaceAllString(file, ".gguf") }

// IsGGUF reports whether a file has the name of a GGUF file.
func IsGGUF(file string) bool { return strings.HasSuffix(strings.ToLower(file), ".gguf") }

// isProjector reports whether a file is the projector of a multimodal model, which is not a
// model by itself.
func isProjector(file string) bool {
	return IsGGUF(file) && strings.HasPrefix(strings.ToLower(path.Base(file)), "mmproj")
}
