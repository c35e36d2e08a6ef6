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

// Ref says which model is meant: one of a hub's repositories, or a file at an
// address.
type Ref struct {
	Repo     string // org/repo, or local/name; empty for an address
	Part     string // a quantisation or a file; empty for the whole or the usual part
	Revision string // a branch, tag or commit; empty for main

	URL    string // https:, http: or file:, without its checksum
	SHA256 string // of the file at URL, in lower-case hex; empty if not known
}

var (
	repoPattern     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95}$`)
	revisionPattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}$`)
	sha256Pattern   = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// ParseRef reads a reference: org/repo[:part][@revision], or an address with
// #sha256= and its checksum, which https: and http: must have. The error is an
// [*operations.Error] with CodeBadOperation.
func ParseRef(s string) (Ref, error) {
	bad := func(format string, args ...any) (Ref, error) {
		return Ref{}, &operations.Error{
			Code: operations.CodeBadOperation, Reason: operations.ReasonInvalidOperation, Subject: operations.SubjectModel.Named(RedactRef(s)),
			Message: fmt.Sprintf("model %q: ", RedactRef(s)) + fmt.Sprintf(format, args...),
		}
	}
	if scheme, _, ok := strings.Cut(s, ":"); ok && (scheme == "https" || scheme == "http" || scheme == "file") {
		return parseAddress(s, scheme, bad)
	}
	var r Ref
	rest := s
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		rest, r.Revision = rest[:i], rest[i+1:]
		if !ValidRevision(r.Revision) {
			return bad("%q is no revision", r.Revision)
		}
	}
	var hasPart bool
	r.Repo, r.Part, hasPart = strings.Cut(rest, ":")
	switch {
	case !repoPattern.MatchString(r.Repo) || strings.Contains(r.Repo, "..") || strings.Contains(r.Repo, "--"):
		return bad("want org/repo, with :quantisation or :file and @revision if needed, or an address")
	case hasPart && !validPart(r.Part):
		return bad("%q is neither a quantisation nor a file", r.Part)
	}
	return r, nil
}

// ValidRevision reports whether a string can be a revision.
func ValidRevision(s string) bool {
	return revisionPattern.MatchString(s) && path.Clean(s) == s && !strings.Contains(s, "..") && !strings.HasSuffix(s, ".lock")
}

// validPath takes paths that stay inside of a directory, however they are joined.
func validPath(p string) bool {
	return p != "" && len(p) < 1024 && path.Clean(p) == p && filepath.IsLocal(p) && !strings.ContainsAny(p, "\\\x00\n\r")
}

// validPart takes the paths that a reference can name: it has : and @ for itself.
func validPart(p string) bool { return validPath(p) && !strings.ContainsAny(p, ":@") }

func parseAddress(s, scheme string, bad func(string, ...any) (Ref, error)) (Ref, error) {
	r := Ref{URL: s}
	if at, sum, ok := strings.Cut(s, "#"); ok {
		sum, ok = strings.CutPrefix(sum, "sha256=")
		if r.URL, r.SHA256 = at, strings.ToLower(sum); !ok || !sha256Pattern.MatchString(r.SHA256) {
			return bad("after # stands sha256= and 64 hex digits")
		}
	}
	u, err := url.Parse(r.URL)
	switch {
	case err != nil:
		return bad("it is no address")
	case u.User != nil:
		return bad("an address must not hold a user name or a password")
	case scheme == "file" && (u.Host != "" && u.Host != "localhost" || !path.IsAbs(u.Path)):
		return bad("want file: and an absolute path on the hive")
	case scheme != "file" && u.Host == "":
		return bad("it names no host")
	case scheme != "file" && r.SHA256 == "":
		return bad("an address needs its checksum: #sha256= and 64 hex digits")
	}
	if name := path.Base(u.Path); !validPart(name) || strings.HasPrefix(name, ".") {
		return bad("it names no file")
	}
	return r, nil
}

// RedactRef hides what may be secret in an address.
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
	return "an address"
}

// String is the reference as [ParseRef] reads it; of an address without its query,
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

// RevisionOrMain returns the revision, which is main if none is named.
func (r Ref) RevisionOrMain() string {
	if r.Revision == "" {
		return "main"
	}
	return r.Revision
}

// FileName returns the name of the file at an address.
func (r Ref) FileName() string {
	u, err := url.Parse(r.URL)
	if err != nil {
		return ""
	}
	return path.Base(u.Path)
}

var notInNames = regexp.MustCompile(`[^A-Za-z0-9._]+`)

// LocalRepo returns the repository under which a file from an address is kept.
func (r Ref) LocalRepo() string {
	name := r.FileName()
	for _, ext := range []string{".gguf", ".safetensors"} {
		name = strings.TrimSuffix(name, ext)
	}
	name = strings.Trim(notInNames.ReplaceAllString(name, "-"), "-.")
	for strings.Contains(name, "..") {
		name = strings.ReplaceAll(name, "..", ".")
	}
	if name == "" {
		name = "model"
	}
	return "local/" + name[:min(len(name), 90)]
}

// Quantisations in names of GGUF files, such as Q4_K_M, IQ2_XXS, BF16 and
// UD-Q4_K_XL (https://github.com/ggml-org/llama.cpp/blob/master/tools/quantize/README.md).
var (
	quantPattern = regexp.MustCompile(`(?i)(?:^|[-._/])((?:UD-)?(?:I?Q[0-9](?:_[A-Z0-9]+)*|TQ[0-9]_[0-9]|BF16|F16|F32|FP16|MXFP4(?:_MOE)?))\.gguf$`)
	shardPattern = regexp.MustCompile(`-([0-9]{5})-of-([0-9]{5})\.gguf$`)
)

// quantOf is the quantisation that a GGUF file's name tells, in upper case; empty
// if it tells none.
func quantOf(file string) string {
	if m := quantPattern.FindStringSubmatch(UnshardedName(file)); m != nil {
		return strings.ToUpper(m[1])
	}
	return ""
}

// UnshardedName returns the name of a file without the number of its shard.
func UnshardedName(file string) string { return shardPattern.ReplaceAllString(file, ".gguf") }

// IsGGUF reports whether a file has the name of a GGUF file.
func IsGGUF(file string) bool { return strings.HasSuffix(strings.ToLower(file), ".gguf") }

// isProjector recognizes the part of a multimodal model that goes with another
// file and is no model of its own.
func isProjector(file string) bool {
	return IsGGUF(file) && strings.HasPrefix(strings.ToLower(path.Base(file)), "mmproj")
}
