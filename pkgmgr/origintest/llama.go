package origintest

import (
	"net/http"
	"slices"
	"strings"
)

// LlamaRepo is the repository of llama.cpp.
const LlamaRepo = "ggml-org/llama.cpp"

// llamaAssets are the file names of a build of llama.cpp, as of 2026-09-24. {t} is the tag of
// the build.
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

// LlamaAssets returns the files of a build of llama.cpp, by name. Archives for Linux contain
// program as llama-TAG/llama-server; other archives have arbitrary contents.
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

// AddLlamaBuild publishes a build of llama.cpp. The build is a prerelease, like the builds of
// llama.cpp since 2026-08-25, or a release if stable is true. AddLlamaBuild omits files whose
// names contain any of the strings in omit.
func (s *Server) AddLlamaBuild(tag string, stable bool, omit ...string) {
	assets := LlamaAssets(tag, "#!/bin/sh\necho "+tag+"\n")
	for name := range assets {
		if slices.ContainsFunc(omit, func(part string) bool { return strings.Contains(name, part) }) {
			delete(assets, name)
		}
	}
	s.AddRelease(LlamaRepo, Release{Tag: tag, Prerelease: !stable, Assets: assets})
}

// AddLlamaVersion publishes a version of llama.cpp: a release with one file, nightly-tag.txt.
// content is its content, the tag of a build and a newline; if it is empty, the release has no
// file.
func (s *Server) AddLlamaVersion(tag, content string) {
	r := Release{Tag: tag}
	if content != "" {
		r.Assets = map[string][]byte{"nightly-tag.txt": []byte(content)}
	}
	s.AddRelease(LlamaRepo, r)
}

// SetResponse sets the response to requests whose path contains part: status 200 with the given
// content type and body. [Server.ClearFaults] removes the response.
func (s *Server) SetResponse(part, contentType, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.responses = append(s.responses, fixedResponse{part, contentType, body})
}

// fixedResponse is a response set by [Server.SetResponse].
type fixedResponse struct{ part, contentType, body string }

// writeFixedResponse writes the fixed response to a request. It returns false if the request
// has none.
func (s *Server) writeFixedResponse(w http.ResponseWriter, r *http.Request) bool {
	for _, f := range s.responses {
		if strings.Contains(r.URL.Path, f.part) {
			w.Header().Set("Content-Type", f.contentType)
			_, _ = w.Write([]byte(f.body))
			return true
		}
	}
	return false
}

// Unchanged returns the number of responses of the release API with status 304 Not Modified.
func (s *Server) Unchanged() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unchanged
}

// MirrorGitHub makes the release API return URLs on https://github.com, and returns the base
// URL of a mirror of https://github.com.
func (s *Server) MirrorGitHub() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mirror = true
	return s.srv.URL + "/mirror"
}

// assetURL returns the URL of a file of a release.
func (s *Server) assetURL(repo, tag, name string) string {
	if s.mirror {
		return "https://github.com/" + repo + "/releases/download/" + tag + "/" + name
	}
	return s.srv.URL + "/download/" + repo + "/" + tag + "/" + name
}

// mirroredPath converts the path of a file on the mirror to its path on this server. It
// returns other paths unchanged.
func mirroredPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/mirror/"); ok {
		return "/download/" + strings.Replace(rest, "/releases/download/", "/", 1)
	}
	return path
}
