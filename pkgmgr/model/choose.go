package model

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

// DefaultQuant is taken of several where none is named: the smallest that most
// people find as good as the original.
const DefaultQuant = "Q4_K_M"

// GGUFGroup is one model of GGUF files: one file, or all shards of one.
type GGUFGroup struct {
	Name  string // without the numbers of shards
	Quant string
	Files []string // sorted
}

// GroupGGUF sorts GGUF files into models; projectors are left out.
func GroupGGUF(files []string) []GGUFGroup {
	groups := map[string]*GGUFGroup{}
	for _, f := range files {
		if !IsGGUF(f) || isProjector(f) {
			continue
		}
		name := UnshardedName(f)
		if groups[name] == nil {
			groups[name] = &GGUFGroup{Name: name, Quant: quantOf(f)}
		}
		groups[name].Files = append(groups[name].Files, f)
	}
	var list []GGUFGroup
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		slices.Sort(groups[name].Files)
		list = append(list, *groups[name])
	}
	return list
}

// GroupIDs names each group: by its quantisation where that is unique, else by its file.
func GroupIDs(groups []GGUFGroup) []string {
	count := map[string]int{}
	for _, g := range groups {
		count[g.Quant]++
	}
	names := make([]string, len(groups))
	for i, g := range groups {
		if names[i] = g.Quant; g.Quant == "" || count[g.Quant] > 1 {
			names[i] = g.Name
		}
	}
	return names
}

// MatchGGUF finds the group that a part names; nil if there is none or several.
func MatchGGUF(groups []GGUFGroup, part string) (found *GGUFGroup, several bool) {
	for i, g := range groups {
		if g.Name == part || slices.Contains(g.Files, part) {
			return &groups[i], false
		}
	}
	for i, g := range groups {
		if !strings.EqualFold(g.Quant, part) && !strings.EqualFold(strings.TrimSuffix(path.Base(g.Name), ".gguf"), part) {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = &groups[i]
	}
	return found, false
}

// Choose picks the files of a repository that a reference means. An odd file does
// no harm where it is not wanted.
func Choose(ref Ref, files []File) ([]File, error) {
	chosen, err := chooseAny(ref, files)
	if err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if !f.Valid() {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "the hub lists a file of %s that cannot be: %q", ref.Repo, f.Path)
		}
	}
	groups := GroupGGUF(Paths(files))
	for i, id := range GroupIDs(groups) {
		file := groups[i].Files[0]
		if !validPart(id) && slices.ContainsFunc(chosen, func(f File) bool { return f.Path == file }) {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "model %q: the file %q has : or @ in its name, so nothing could name it afterwards", ref, file)
		}
	}
	return chosen, nil
}

func chooseAny(ref Ref, files []File) ([]File, error) {
	names := make([]string, len(files))
	sizes := map[string]int64{}
	for i, f := range files {
		names[i], sizes[f.Path] = f.Path, f.Size
	}
	groups := GroupGGUF(names)
	if ref.Part != "" {
		if g, several := MatchGGUF(groups, ref.Part); g != nil {
			return pick(files, g.Files), nil
		} else if several {
			return nil, notFound(operations.ReasonModelAmbiguous, ref.String(), "model %q has several files of that name; name one of them: %s", ref, describeGroups(groups, sizes, true))
		}
		if slices.Contains(names, ref.Part) {
			return pick(files, []string{ref.Part}), nil
		}
		if len(groups) > 0 {
			return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no such quantisation or file; it has %s", ref, describeGroups(groups, sizes, false))
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !validPart(name) })
		return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no such file; it has %s", ref, strings.Join(names[:min(len(names), 20)], ", "))
	}
	if slices.ContainsFunc(names, IsSafetensors) {
		return slices.DeleteFunc(slices.Clone(files), func(f File) bool { return superfluous(f.Path) }), nil
	}
	switch g, several := MatchGGUF(groups, DefaultQuant); {
	case len(groups) == 1:
		return pick(files, groups[0].Files), nil
	case g != nil && !several:
		return pick(files, g.Files), nil
	case len(groups) > 1:
		return nil, notFound(operations.ReasonModelAmbiguous, ref.String(), "model %q has several quantisations and no single %s; name one of them: %s", ref, DefaultQuant, describeGroups(groups, sizes, false))
	case len(files) == 0:
		return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository is empty", ref)
	}
	return files, nil
}

// IsSafetensors reports whether a file holds weights as safetensors.
func IsSafetensors(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// superfluous are the same weights in other formats, beside safetensors.
func superfluous(name string) bool {
	switch path.Ext(name) {
	case ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".gguf", ".mlmodel", ".mlpackage":
		return true
	}
	first, _, nested := strings.Cut(name, "/")
	return nested && slices.Contains([]string{"original", "onnx", "openvino", "coreml", "metal", "gguf"}, first)
}

// Paths returns the paths of files.
func Paths(files []File) []string {
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = f.Path
	}
	return names
}

func pick(files []File, names []string) []File {
	var picked []File
	for _, f := range files {
		if slices.Contains(names, f.Path) {
			picked = append(picked, f)
		}
	}
	return picked
}

func describeGroups(groups []GGUFGroup, sizes map[string]int64, byFile bool) string {
	names := GroupIDs(groups)
	words := make([]string, len(groups))
	for i, g := range groups {
		var size int64
		for _, f := range g.Files {
			size += sizes[f]
		}
		if byFile {
			names[i] = g.Name
		}
		if !validPart(names[i]) {
			names[i] = strconv.Quote(names[i])
		}
		words[i] = fmt.Sprintf("%s (%s)", names[i], bytesize.Format(size))
	}
	return strings.Join(words, ", ")
}
