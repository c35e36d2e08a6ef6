package origintest

import (
	"net/http"
	"slices"
	"strings"
)

// LlamaRepo is the repository of llama.cpp.
const LlamaRepo = "ggml-org/llama.cpp"

// llamaAssets are the names of the files of a build of llama.cpp, as of 2026-09-24.
// {t} stands for the build's tag.
var llamaAssets = []string{
	"cudart-llama-{t}-bin-ubuntu-cuda-12.8-x64.tar.gz", "cudart-llama-{t}-bin-ubuntu-cuda-13.4-arm64.tar.gz",
	"cudart-llama-{t}-bin-ubuntu-cuda-13.4-x64.tar.gz", "cudart-llama-bin-win-cuda-12.4-x64.zip", "cudart-llama-bin-win-cuda-13.4-x64.zip",
	"llama-{t}-bin-android-arm64.tar.gz", "llama-{t}-bin-macos-arm64.tar.gz", "llama-{t}-bin-macos-x64.tar.gz",
	"llama-{t}-bin-ubuntu-arm64.tar.gz", "llama-{t}-bin-ubuntu-cuda-12.8-x64.tar.gz", "llama-{t}-bin-ubuntu-cuda-13.4-arm64.tar.gz",
	"llama-{t}-bin-ubuntu-cuda-13.4-x64.tar.gz", "llama-{t}-bin-ubuntu-openvino-2026.4-x64.tar.gz", "llama-{t}-bin-ubuntu-rocm-10.0-x64.tar.gz",
	"llama-{t}-bin-ubuntu-s390x.tar.gz", "llama-{t}-bin-ubuntu-sycl-fp16-x64.tar.gz", "llama-{t}-bin-ubuntu-sycl-fp32-x64.tar.gz",
	"llama-{t}-bin-ubuntu-vulkan-arm64.tar.gz", "llama-{t}-bin-ubuntu-vulkan-x64.tar.gz", "llama-{t}-bin-ubuntu-x64.tar.gz",
	"llama-{t}-bin-win-cpu-x64.zip", "llama-{t}-bin-win-cuda-12.4-x64.zip", "llama-{t}-bin-win-cuda-13.4-x64.zip",
	"llama-{t}-bin-win-vulkan-x64.zip", "llama-{t}-ui.tar.gz", "llama-{t}-xcframework.zip",
}

// LlamaAssets returns the files of a build of llama.cpp by name. Archives for Linux
// contain program as llama-TAG/llama-server; the others have arbitrary contents.
func LlamaAssets(tag, program string) map[string][]byte {
	archive := TarGz(map[string]string{"llama-" + tag + "/llama-server": program})
	all := map[string][]byte{}
	for _, name := range llamaAssets {
		name = strings.ReplaceAll(name, "{t}", tag)
		all[name] = []byte(name)
		if strings.Contains(name, "ubuntu") {
			all[name] = archive
		}
	}
	return all
}

// AddLlamaBuild publishes a build of llama.cpp as it has been since 2026-08-25, as a
// prerelease; classic publishes it as before, as a release. Files whose names contain
// one of the parts in without are missing.
func (s *Server) AddLlamaBuild(tag string, classic bool, without ...string) {
	assets := LlamaAssets(tag, "#!/bin/sh\necho "+tag+"\n")
	for name := range assets {
		if slices.ContainsFunc(without, func(part string) bool { return strings.Contains(name, part) }) {
			delete(assets, name)
		}
	}
	s.AddRelease(LlamaRepo, Release{Tag: tag, Prerelease: !classic, Assets: assets})
}

// AddLlamaVersion publishes a version of llama.cpp, a release whose only file contains
// content, which is the tag of a build and a newline. Without content, it has no file.
func (s *Server) AddLlamaVersion(tag, content string) {
	r := Release{Tag: tag}
	if content != "" {
		r.Assets = map[string][]byte{"nightly-tag.txt": []byte(content)}
	}
	s.AddRelease(LlamaRepo, r)
}

// Answer answers requests whose path contains a part with status 200, a content type
// and a body, until [Server.Mend] is called.
func (s *Server) Answer(part, contentType, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, fixedAnswer{part, contentType, body})
}

// fixedAnswer is an answer that does not depend on what is published.
type fixedAnswer struct{ part, contentType, body string }

// fixed sends the fixed answer for a request; false if there is none.
func (s *Server) fixed(w http.ResponseWriter, r *http.Request) bool {
	for _, a := range s.answers {
		if strings.Contains(r.URL.Path, a.part) {
			w.Header().Set("Content-Type", a.contentType)
			_, _ = w.Write([]byte(a.body))
			return true
		}
	}
	return false
}

// Unchanged returns the number of requests to the release API that were answered with
// 304 Not Modified.
func (s *Server) Unchanged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unchanged
}

// MirrorGitHub makes the release API give addresses on https://github.com, and returns
// the base address of a mirror of that.
func (s *Server) MirrorGitHub() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror = true
	return s.srv.URL + "/mirror"
}

// assetURL returns the address of a file of a release.
func (s *Server) assetURL(repo, tag, name string) string {
	if s.mirror {
		return "https://github.com/" + repo + "/releases/download/" + tag + "/" + name
	}
	return s.srv.URL + "/download/" + repo + "/" + tag + "/" + name
}

// mirroredPath returns the path of a file of a release for its path on the mirror;
// other paths are returned as they are.
func mirroredPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/mirror/"); ok {
		return "/download/" + strings.Replace(rest, "/releases/download/", "/", 1)
	}
	return path
}
