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

// DefaultQuant is the quantization to use if a reference does not name one and the
// repository has several. It is the smallest one with generally good quality.
const DefaultQuant = "Q4_K_M"

// GGUFGroup is a model in GGUF format: one file, or all shards of a file.
type GGUFGroup struct {
	Name  string   // of the file, without the shard number
	Quant string   // quantization in upper case; empty if unknown
	Files []string // sorted
}

// GroupGGUF groups the GGUF files among files into models, sorted by name. It ignores
// projectors.
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

// GroupIDs returns the ID of each group: its quantization if that is unique, and its name
// otherwise.
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

// MatchGGUF returns the group that part identifies by a file, a name or a quantization. It
// returns nil if no group or more than one group matches; several is true in the second case.
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

// Choose returns the files of a repository that ref refers to. It returns an error if any of
// them is invalid; the other files of the repository may be invalid.
func Choose(ref Ref, files []File) ([]File, error) {
	chosen, err := chooseAny(ref, files)
	if err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if !f.Valid() {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "the hub lists an invalid file of %s: %q", ref.Repo, f.Path)
		}
	}
	groups := GroupGGUF(Paths(files))
	for i, id := range GroupIDs(groups) {
		file := groups[i].Files[0]
		if !validPart(id) && slices.ContainsFunc(chosen, func(f File) bool { return f.Path == file }) {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "cannot use model %q: the name of its file %q contains : or @", ref, file)
		}
	}
	return chosen, nil
}

// chooseAny works like [Choose] but does not check that the files are valid.
func chooseAny(ref Ref, files []File) ([]File, error) {
	names := make([]string, len(files))
	sizes := map[string]int64{}
	for i, f := range files {
		names[i], sizes[f.Path] = f.Path, f.Size
	}
	groups := GroupGGUF(names)
	if ref.Part != "" {
		if g, several := MatchGGUF(groups, ref.Part); g != nil {
			return selectFiles(files, g.Files), nil
		} else if several {
			return nil, notFound(operations.ReasonModelAmbiguous, ref.String(), "model %q matches several files; specify a file: %s", ref, describeGroups(groups, sizes, true))
		}
		if slices.Contains(names, ref.Part) {
			return selectFiles(files, []string{ref.Part}), nil
		}
		if len(groups) > 0 {
			return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no such quantization or file; available: %s", ref, describeGroups(groups, sizes, false))
		}
		names = slices.DeleteFunc(names, func(name string) bool { return !validPart(name) })
		return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository has no such file; available: %s", ref, strings.Join(names[:min(len(names), 20)], ", "))
	}
	if slices.ContainsFunc(names, IsSafetensors) {
		return slices.DeleteFunc(slices.Clone(files), func(f File) bool { return isRedundant(f.Path) }), nil
	}
	switch g, several := MatchGGUF(groups, DefaultQuant); {
	case len(groups) == 1:
		return selectFiles(files, groups[0].Files), nil
	case g != nil && !several:
		return selectFiles(files, g.Files), nil
	case len(groups) > 1:
		return nil, notFound(operations.ReasonModelAmbiguous, ref.String(), "model %q has several quantizations; specify a quantization: %s", ref, describeGroups(groups, sizes, false))
	case len(files) == 0:
		return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository is empty", ref)
	}
	return files, nil
}

// IsSafetensors reports whether a file has the name of a safetensors file.
func IsSafetensors(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// isRedundant reports whether a file of a repository with safetensors has the same weights in
// another format.
func isRedundant(name string) bool {
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

// selectFiles returns the files with the given paths.
func selectFiles(files []File, paths []string) []File {
	var selected []File
	for _, f := range files {
		if slices.Contains(paths, f.Path) {
			selected = append(selected, f)
		}
	}
	return selected
}

// describeGroups returns a list of the IDs of groups, or of their names if byName is true,
// with their sizes.
func describeGroups(groups []GGUFGroup, sizes map[string]int64, byName bool) string {
	names := GroupIDs(groups)
	items := make([]string, len(groups))
	for i, g := range groups {
		var size int64
		for _, f := range g.Files {
			size += sizes[f]
		}
		if byName {
			names[i] = g.Name
		}
		if !validPart(names[i]) {
			names[i] = strconv.Quote(names[i])
		}
		items[i] = fmt.Sprintf("%s (%s)", names[i], bytesize.Format(size))
	}
	return strings.Join(items, ", ")
}
