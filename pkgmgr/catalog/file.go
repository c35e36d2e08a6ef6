package catalog

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// recipeFile is the syntax of a recipe file.
type recipeFile struct {
	Type        strict.Value[string]                 `key:"type,required" like:"vllm"`
	Description strict.Value[string]                 `key:"description"`
	API         strict.Value[string]                 `key:"api" like:"openai"`
	Formats     strict.Value[[]strict.Value[string]] `key:"formats" like:"[gguf]"`
	Versions    strict.Value[versionsEntry]          `key:"versions"`
	Latest      strict.Value[string]                 `key:"latest" like:"\"1.2\""`
	Note        strict.Value[string]                 `key:"note"`
	Sources     strict.Value[[]sourceEntry]          `key:"sources"`
	Start       strict.Value[startEntry]             `key:"start"`
	Ready       strict.Value[readyEntry]             `key:"ready"`
	Verify      strict.Value[verifyEntry]            `key:"verify"`
	Needs       strict.Value[needsEntry]             `key:"needs"`
	Memory      strict.Value[memoryEntry]            `key:"memory"`
	Grace       strict.Value[span]                   `key:"grace" like:"30s"`
}

type versionsEntry struct {
	GitHub  strict.Value[string] `key:"github" like:"owner/name"`
	Tag     strict.Value[string] `key:"tag" like:"\"v{version}\""`
	Package strict.Value[string] `key:"package" like:"vllm"`

	Prereleases strict.Value[bool]         `key:"prereleases" like:"true"`
	Match       strict.Value[string]       `key:"match" like:"\"b[0-9]*\""`
	Pointer     strict.Value[pointerEntry] `key:"pointer"`
}

type pointerEntry struct {
	Tag   strict.Value[string] `key:"tag,required" like:"\"v{version}\""`
	Asset strict.Value[string] `key:"asset,required" like:"nightly-tag.txt"`
}

type memoryEntry struct {
	Fixed    strict.Value[size]  `key:"fixed" like:"8GiB"`
	Overhead strict.Value[size]  `key:"overhead" like:"1GiB"`
	Share    strict.Value[share] `key:"share" like:"90%"`
	Context  strict.Value[int64] `key:"context" like:"8192"`
}

type sourceEntry struct {
	Pos     strict.Pos
	Name    strict.Value[string]      `key:"name" like:"cuda-13"`
	Version strict.Value[string]      `key:"version" like:"\"1.2\""`
	OS      strict.Value[string]      `key:"os" like:"linux"`
	Arch    strict.Value[string]      `key:"arch" like:"amd64"`
	Libc    strict.Value[string]      `key:"libc" like:"glibc"`
	Glibc   strict.Value[string]      `key:"glibc" like:"\"2.28\""`
	GPU     strict.Value[string]      `key:"gpu" like:"nvidia"`
	Driver  strict.Value[string]      `key:"driver" like:"\"580\""`
	Compute strict.Value[string]      `key:"compute" like:"\"7.5\""`
	Steps   strict.Value[[]stepEntry] `key:"steps"`

	ComputeMax strict.Value[string]                 `key:"compute_max" like:"\"12.0\""`
	Native     strict.Value[[]strict.Value[string]] `key:"native" like:"[\"8.6\", \"8.9\"]"`
	PTXDriver  strict.Value[string]                 `key:"ptx_driver" like:"\"570\""`
	ROCm       strict.Value[string]                 `key:"rocm" like:"\"10\""`
	Libraries  strict.Value[[]strict.Value[string]] `key:"libraries" like:"[libvulkan.so.1]"`

	Architectures strict.Value[[]strict.Value[string]] `key:"architectures" like:"[gfx942, gfx1100]"`

	// Builtin and artifactEntry are the short form of a source with one step.
	Builtin strict.Value[string] `key:"builtin" like:"echo"`
	artifactEntry

	Entry strict.Value[string]                          `key:"entry" like:"bin/server"`
	Args  strict.Value[[]strict.Value[string]]          `key:"args" like:"[--cpu]"`
	Env   strict.Value[map[string]strict.Value[string]] `key:"env" like:"{ NAME: value }"`

	Verify strict.Value[verifyEntry] `key:"verify"`
}

type stepEntry struct {
	Pos     strict.Pos
	Builtin strict.Value[string]      `key:"builtin" like:"echo"`
	File    strict.Value[originEntry] `key:"file"`
	Archive strict.Value[originEntry] `key:"archive"`
	Python  strict.Value[pythonEntry] `key:"python"`
}

// artifactEntry is the origin of a file or an archive.
type artifactEntry struct {
	File   strict.Value[string] `key:"file" like:"worker-{os}-{arch}.tar.gz"`
	URL    strict.Value[string] `key:"url" like:"https://example.com/worker-{version}.tar.gz"`
	SHA256 strict.Value[string] `key:"sha256"`
	Size   strict.Value[size]   `key:"size" like:"512MiB"`
	Format strict.Value[string] `key:"format" like:"tar.gz"`
	Strip  strict.Value[int64]  `key:"strip" like:"1"`
}

type originEntry struct {
	Pos strict.Pos
	artifactEntry
	Asset strict.Value[string] `key:"asset" like:"worker-{version}-*-x64.tar.gz"`
	Code  strict.Value[bool]   `key:"source_code" like:"true"`
	Into  strict.Value[string] `key:"into" like:"lib"`
}

type pythonEntry struct {
	Version      strict.Value[string]                 `key:"version,required" like:"\"3.12\""`
	Packages     strict.Value[[]strict.Value[string]] `key:"packages" like:"[\"vllm=={version}\"]"`
	Requirements strict.Value[string]                 `key:"requirements" like:"requirements.txt"`
	Torch        strict.Value[string]                 `key:"torch" like:"cu128"`
	Prerelease   strict.Value[bool]                   `key:"prerelease" like:"true"`
	Indexes      strict.Value[[]indexEntry]           `key:"indexes"`
	Into         strict.Value[string]                 `key:"into" like:"venv"`
	Overrides    strict.Value[[]strict.Value[string]] `key:"overrides" like:"[\"torch==2.9.0\"]"`
	Constraints  strict.Value[[]strict.Value[string]] `key:"constraints" like:"[\"numpy<3\"]"`
	ExcludeNewer strict.Value[string]                 `key:"exclude_newer" like:"\"2025-10-31\""`
}

type startEntry struct {
	Args    strict.Value[[]strict.Value[string]]          `key:"args" like:"[--port, \"{port}\"]"`
	Env     strict.Value[map[string]strict.Value[string]] `key:"env" like:"{ NAME: value }"`
	Links   strict.Value[map[string]strict.Value[string]] `key:"links" like:"{ models/x.gguf: \"{model_path}\" }"`
	Prepare strict.Value[[]prepareEntry]                  `key:"prepare"`
	Serves  strict.Value[string]                          `key:"serves" like:"\"{model_sha256}\""`
}

type prepareEntry struct {
	Pos  strict.Pos
	Path strict.Value[string] `key:"path,required" like:"/api/load"`
	Body strict.Value[string] `key:"body" like:"'{\"model\": \"{model}\"}'"`
}

type readyEntry struct {
	Path   strict.Value[string] `key:"path,required" like:"/health"`
	Status strict.Value[int64]  `key:"status" like:"200"`
	Stall  strict.Value[span]   `key:"stall" like:"5m"`
}

type needsEntry struct {
	GPU       strict.Value[string]                 `key:"gpu" like:"nvidia"`
	GPUMemory strict.Value[size]                   `key:"gpu_memory" like:"24GiB"`
	Driver    strict.Value[string]                 `key:"driver" like:"\"535\""`
	Compute   strict.Value[string]                 `key:"compute" like:"\"7.5\""`
	Glibc     strict.Value[string]                 `key:"glibc" like:"\"2.28\""`
	Commands  strict.Value[[]strict.Value[string]] `key:"commands" like:"[cc]"`
	Disk      strict.Value[size]                   `key:"disk" like:"20GiB"`
	OS        strict.Value[[]strict.Value[string]] `key:"os" like:"[linux]"`
	Arch      strict.Value[[]strict.Value[string]] `key:"arch" like:"[amd64]"`
}

// span is a duration such as 30s or 5m.
type span time.Duration

// DecodeNode implements [strict.Decoder].
func (s *span) DecodeNode(n *strict.Node) error {
	if n.Kind != strict.String {
		return fmt.Errorf("invalid duration: %s, want a string", n.Kind)
	}
	d, err := time.ParseDuration(n.Text)
	if err != nil || d <= 0 {
		return fmt.Errorf("invalid duration %q: want more than 0", n.Text)
	}
	*s = span(d)
	return nil
}

// share is a fraction, written as a percentage such as 90%.
type share float64

// DecodeNode implements [strict.Decoder].
func (s *share) DecodeNode(n *strict.Node) error {
	number, ok := strings.CutSuffix(n.Text, "%")
	v, err := strconv.ParseFloat(number, 64)
	if n.Kind != strict.String || !ok || err != nil || v <= 0 || v > 100 {
		return fmt.Errorf("invalid percentage %s", cmp.Or(n.Text, n.Kind.String()))
	}
	*s = share(v / 100)
	return nil
}

// size is a number of bytes, written as an integer or with a unit: 512, "1.5 GiB".
type size int64

var errSize = errors.New("invalid size")

// DecodeNode implements [strict.Decoder].
func (s *size) DecodeNode(n *strict.Node) error {
	switch {
	case n.Kind == strict.Int && n.Int >= 0:
		*s = size(n.Int)
		return nil
	case n.Kind == strict.String:
		v, err := parseSize(n.Text)
		if err != nil {
			return fmt.Errorf("invalid size %q", n.Text)
		}
		*s = size(v)
		return nil
	case n.Kind == strict.Int:
		return fmt.Errorf("invalid size %d", n.Int)
	default:
		return fmt.Errorf("invalid size: %s", n.Kind)
	}
}

var sizeRegexp = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([KMGT]i?)?B?$`)

// parseSize parses a number of bytes with an optional unit: B, KB, MB, GB, TB (powers of
// 1000), KiB, MiB, GiB or TiB (powers of 1024).
func parseSize(s string) (int64, error) {
	m := sizeRegexp.FindStringSubmatch(s)
	if m == nil {
		return 0, errSize
	}
	v, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, errSize
	}
	if m[2] != "" {
		base := 1000.0
		if strings.HasSuffix(m[2], "i") {
			base = 1024
		}
		v *= math.Pow(base, float64(strings.Index("KMGT", m[2][:1])+1))
	}
	if v >= math.MaxInt64 {
		return 0, errSize
	}
	return int64(v), nil
}
