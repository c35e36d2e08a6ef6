package models

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// usualQuant is taken of several where none is named: the smallest that most
// people find as good as the original.
const usualQuant = "Q4_K_M"

// ggufGroup is one model of GGUF files: one file, or all shards of one.
type ggufGroup struct {
	name  string // without the numbers of shards
	quant string
	files []string // sorted
}

// groupGGUF sorts GGUF files into models; projectors are left out.
func groupGGUF(files []string) []ggufGroup {
	groups := map[string]*ggufGroup{}
	for _, f := range files {
		if !isGGUF(f) || isProjector(f) {
			continue
		}
		name := wholeName(f)
		if groups[name] == nil {
			groups[name] = &ggufGroup{name: name, quant: quantOf(f)}
		}
		groups[name].files = append(groups[name].files, f)
	}
	var list []ggufGroup
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		slices.Sort(groups[name].files)
		list = append(list, *groups[name])
	}
	return list
}

// ids names each group: by its quantisation where that is unique, else by its file.
func ids(groups []ggufGroup) []string {
	count := map[string]int{}
	for _, g := range groups {
		count[g.quant]++
	}
	names := make([]string, len(groups))
	for i, g := range groups {
		if names[i] = g.quant; g.quant == "" || count[g.quant] > 1 {
			names[i] = g.name
		}
	}
	return names
}

// matchGGUF finds the group that a part names; nil if there is none or several.
func matchGGUF(groups []ggufGroup, part string) (found *ggufGroup, several bool) {
	for i, g := range groups {
		if g.name == part || slices.Contains(g.files, part) {
			return &groups[i], false
		}
	}
	for i, g := range groups {
		if !strings.EqualFold(g.quant, part) && !strings.EqualFold(strings.TrimSuffix(path.Base(g.name), ".gguf"), part) {
			continue
		}
		if found != nil {
			return nil, true
		}
		found = &groups[i]
	}
	return found, false
}

// choose picks the files of a repository that a reference means. An odd file does
// no harm where it is not wanted.
func choose(ref Ref, files []hubFile) ([]hubFile, error) {
	chosen, err := chooseAny(ref, files)
	if err != nil {
		return nil, err
	}
	for _, f := range chosen {
		if !f.valid() {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "the hub lists a file of %s that cannot be: %q", ref.Repo, f.Path)
		}
	}
	groups := groupGGUF(paths(files))
	for i, id := range ids(groups) {
		file := groups[i].files[0]
		if !validPart(id) && slices.ContainsFunc(chosen, func(f hubFile) bool { return f.Path == file }) {
			return nil, failure(operations.ReasonModelInvalid, ref.String(), nil, "model %q: the file %q has : or @ in its name, so nothing could name it afterwards", ref, file)
		}
	}
	return chosen, nil
}

func chooseAny(ref Ref, files []hubFile) ([]hubFile, error) {
	names := make([]string, len(files))
	sizes := map[string]int64{}
	for i, f := range files {
		names[i], sizes[f.Path] = f.Path, f.Size
	}
	groups := groupGGUF(names)
	if ref.Part != "" {
		if g, several := matchGGUF(groups, ref.Part); g != nil {
			return pick(files, g.files), nil
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
	if slices.ContainsFunc(names, isSafetensors) {
		return slices.DeleteFunc(slices.Clone(files), func(f hubFile) bool { return superfluous(f.Path) }), nil
	}
	switch g, several := matchGGUF(groups, usualQuant); {
	case len(groups) == 1:
		return pick(files, groups[0].files), nil
	case g != nil && !several:
		return pick(files, g.files), nil
	case len(groups) > 1:
		return nil, notFound(operations.ReasonModelAmbiguous, ref.String(), "model %q has several quantisations and no single %s; name one of them: %s", ref, usualQuant, describeGroups(groups, sizes, false))
	case len(files) == 0:
		return nil, notFound(operations.ReasonModelUnknown, ref.String(), "model %q: the repository is empty", ref)
	}
	return files, nil
}

func isSafetensors(name string) bool { return strings.HasSuffix(name, ".safetensors") }

// superfluous are the same weights in other formats, beside safetensors.
func superfluous(name string) bool {
	switch path.Ext(name) {
	case ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".tflite", ".ot", ".gguf", ".mlmodel", ".mlpackage":
		return true
	}
	first, _, nested := strings.Cut(name, "/")
	return nested && slices.Contains([]string{"original", "onnx", "openvino", "coreml", "metal", "gguf"}, first)
}

func pick(files []hubFile, names []string) []hubFile {
	var picked []hubFile
	for _, f := range files {
		if slices.Contains(names, f.Path) {
			picked = append(picked, f)
		}
	}
	return picked
}

func describeGroups(groups []ggufGroup, sizes map[string]int64, byFile bool) string {
	names := ids(groups)
	words := make([]string, len(groups))
	for i, g := range groups {
		var size int64
		for _, f := range g.files {
			size += sizes[f]
		}
		if byFile {
			names[i] = g.name
		}
		if !validPart(names[i]) {
			names[i] = strconv.Quote(names[i])
		}
		words[i] = fmt.Sprintf("%s (%s)", names[i], sizeText(size))
	}
	return strings.Join(words, ", ")
}
