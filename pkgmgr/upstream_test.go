//go:build upstream

package pkgmgr_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/machinestest"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// These tests resolve the built-in recipes with the real uv and the public package index.
// RBEE_TEST_UV is the path of uv; the default is the uv in PATH.
//
//	go test -tags upstream -run Upstream -v -timeout 30m ./pkgmgr

// realUV returns the path of the real uv.
func realUV(t *testing.T) string {
	t.Helper()
	path := os.Getenv("RBEE_TEST_UV")
	if path == "" {
		path, _ = exec.LookPath("uv")
	}
	if path == "" {
		t.Fatal("cannot find uv: set RBEE_TEST_UV to its path, or add uv to PATH")
	}
	return path
}

// serveTools publishes the real uv for this machine and placeholders for Python. The
// placeholders are never run, because uv resolves with the Python of this machine.
func serveTools(t *testing.T, s *origintest.Server) {
	t.Helper()
	program, err := os.ReadFile(realUV(t))
	if err != nil {
		t.Fatal(err)
	}
	packed := origintest.TarGz(map[string]string{"uv-x/uv": string(program)})
	uvs, pythons := map[string][]byte{}, map[string][]byte{}
	for _, cpu := range []string{"x86_64", "aarch64"} {
		for _, system := range []string{"unknown-linux-gnu", "unknown-linux-musl", "apple-darwin"} {
			uvs["uv-"+cpu+"-"+system+".tar.gz"] = packed
			pythons["cpython-3.12.12+20251120-"+cpu+"-"+system+"-install_only_stripped.tar.gz"] = []byte("not run")
		}
	}
	s.AddRelease("astral-sh/uv", origintest.Release{Tag: "0.13.9", Assets: uvs})
	s.AddRelease("astral-sh/python-build-standalone", origintest.Release{Tag: "20251120", Assets: pythons})
}

// upstreamIndex is the URL of the public package index.
const upstreamIndex = "https://pypi.org/simple"

// upstreamFleet plans one worker on machines, and returns the plan, the notes and the fleet.
func upstreamFleet(t *testing.T, worker config.Worker, states []wire.State) (changes *plan.Plan, notes []string, fleet *pkgmgr.Fleet) {
	t.Helper()
	s := origintest.New(t)
	serveTools(t, s)
	cfg := &config.Config{}
	machines := fakehost.Machines{}
	for i, state := range states {
		alias := fmt.Sprintf("m-%02d", i)
		cfg.Hives = append(cfg.Hives, config.Hive{Alias: alias, Hostname: alias, HivePort: 8600, Workers: []config.Worker{worker}, AutoStart: true})
		state.DevicesKnown = true
		machines[alias] = &fakehost.Machine{Initial: state}
	}
	cache, err := os.UserCacheDir() // uv's own cache saves minutes
	if err != nil {
		t.Fatal(err)
	}
	fleet = openFleet(t, cfg, machines, func(o *pkgmgr.Options) {
		o.CacheDir = filepath.Join(cache, "rbee-test-upstream")
		o.Origins = pkgmgr.Origins{GitHubAPI: s.API(), PythonIndex: upstreamIndex}
		o.Events = func(e operations.Event) {
			if e.Type == operations.EventNote {
				notes = append(notes, e.Message)
			}
		}
	})
	fleet.Read(t.Context(), pkgmgr.ReadOptions{Devices: true})
	return fleet.Plan(t.Context(), plan.Options{Fetch: true}), notes, fleet
}

// releaseCutoff returns the time one day after the upload of the first file of a version.
func releaseCutoff(t *testing.T, name, version string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, upstreamIndex+"/"+name+"/", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var page struct {
		Files []struct {
			Filename string    `json:"filename"`
			Uploaded time.Time `json:"upload-time"`
		} `json:"files"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&page); err != nil {
		t.Fatal(err)
	}
	var first time.Time
	for _, f := range page.Files {
		wheel := strings.HasPrefix(f.Filename, name+"-"+version+"-") && strings.HasSuffix(f.Filename, ".whl")
		if wheel && (first.IsZero() || f.Uploaded.Before(first)) {
			first = f.Uploaded
		}
	}
	return first.Add(24 * time.Hour).UTC().Format(time.RFC3339)
}

// lockedSource returns the source of a worker type in a lockfile.
func lockedSource(t *testing.T, lock *lockfile.Lock, typ string) lockfile.Source {
	t.Helper()
	for _, s := range lock.Sources() {
		if s.Type == typ {
			return s
		}
	}
	t.Fatalf("Sources() = %+v, want a source of %s", lock.Sources(), typ)
	return lockfile.Source{}
}

// engines lists the built-in recipes, except the server inside rbee. github lists the
// recipes that require the release API of GitHub.
var (
	engines = []string{"vllm", "sglang", "comfyui", "llama-cpp", "ollama"}
	github  = []string{"comfyui", "llama-cpp", "ollama"}
)

// TestUpstreamMachines resolves the engines for each machine of the decision table, and
// compares the packages with the output of `uv pip compile` for the same requirements,
// platform and date. Recipes that use other servers than the package index (the indexes of
// PyTorch and vLLM, releases on GitHub) require RBEE_TEST_NETWORK=1.
func TestUpstreamMachines(t *testing.T) {
	allServers := os.Getenv("RBEE_TEST_NETWORK") != ""
	machines := map[string]*wire.State{}
	for _, m := range machinestest.Machines() {
		machines[m.Name] = m.State()
	}
	for _, typ := range engines {
		for _, name := range slices.Sorted(maps.Keys(machines)) {
			t.Run(typ+"/"+name, func(t *testing.T) {
				s := origintest.New(t)
				serveTools(t, s)
				origins := pkgmgr.Origins{GitHubAPI: s.API(), PythonIndex: upstreamIndex}
				if slices.Contains(github, typ) {
					if !allServers {
						t.Skip("requires the release API of GitHub: RBEE_TEST_NETWORK is not set")
					}
					origins.GitHubAPI, origins.GitHubToken = "", os.Getenv("GITHUB_TOKEN")
				}
				lock := &lockfile.Lock{}
				plan := planOne(t, origins, lock, config.Worker{Type: typ, Version: version.Latest}, *machines[name])
				var step *operations.Step
				for i := range plan.Steps {
					if plan.Steps[i].Worker == typ {
						step = &plan.Steps[i]
					}
				}
				for _, b := range plan.Blocked {
					t.Logf("blocked: %s", b.Reason)
					if strings.Contains(b.Reason, "cannot resolve") && !allServers && otherHost(b.Detail) {
						t.Skip("requires another server than the package index: RBEE_TEST_NETWORK is not set")
					}
				}
				if step == nil {
					if len(plan.Blocked) == 0 {
						t.Fatalf("Plan() = %+v, want a step or a reason for %s", plan, typ)
					}
					return
				}
				t.Logf("%s %s, %d bytes: %s", step.Version, step.Variant, step.Bytes, step.VariantReason)
				compareWithUV(t, lock, typ, step)
			})
		}
	}
}

// otherHost reports whether uv failed because of a server that is not the package index.
func otherHost(output string) bool {
	for _, host := range []string{"download.pytorch.org", "wheels.vllm.ai"} {
		if strings.Contains(output, host) {
			return true
		}
	}
	return false
}

// planOne plans a worker on one machine.
func planOne(t *testing.T, origins pkgmgr.Origins, lock *lockfile.Lock, worker config.Worker, state wire.State) *plan.Plan {
	t.Helper()
	config := &config.Config{Hives: []config.Hive{{Alias: "m", Hostname: "m", HivePort: 8600, Workers: []config.Worker{worker}, AutoStart: true}}}
	cache, err := os.UserCacheDir() // uv's own cache saves minutes
	if err != nil {
		t.Fatal(err)
	}
	fleet := openFleet(t, config, fakehost.Machines{"m": &fakehost.Machine{Initial: state}}, func(o *pkgmgr.Options) {
		o.CacheDir, o.Origins, o.Lock = filepath.Join(cache, "rbee-test-upstream"), origins, lock
	})
	fleet.Read(t.Context(), pkgmgr.ReadOptions{Devices: true})
	return fleet.Plan(t.Context(), plan.Options{Fetch: true})
}

// compareWithUV resolves the locked version with uv alone, and compares the names and
// versions of the packages.
func compareWithUV(t *testing.T, lock *lockfile.Lock, typ string, step *operations.Step) {
	t.Helper()
	source := lockedSource(t, lock, typ)
	var got []string
	for _, s := range source.Steps {
		if s.Python == nil {
			continue
		}
		for _, w := range s.Python.Wheels {
			parts := strings.Split(w.Name, "-")
			got = append(got, strings.ToLower(strings.ReplaceAll(parts[0], "_", "-"))+"=="+parts[1])
			if !strings.HasPrefix(w.URL, "https://") || len(w.SHA256) != 64 || w.Size == 0 {
				t.Errorf("the lockfile has wheel %+v, want an https URL, a SHA-256 and a size", w)
			}
		}
	}
	if len(got) == 0 {
		return // an archive
	}
	cpu := map[string]string{"linux/amd64 (glibc)": "x86_64", "linux/arm64 (glibc)": "aarch64"}[source.Platform]
	if cpu == "" || source.Floor == nil || typ == "comfyui" || strings.Contains(step.Variant, "12.9") || step.Variant == "rocm" {
		return // uses extra indexes or a requirements file, which one uv command cannot resolve
	}
	_, minor, _ := strings.Cut(source.Floor.Glibc, ".")
	cmd := exec.Command(realUV(t), "pip", "compile", "--no-config", "--quiet", "--no-header", "--no-annotate", "--no-build", "--python", "cpython",
		"--python-version", "3.12", "--python-platform", cpu+"-manylinux_2_"+minor, "--exclude-newer", releaseCutoff(t, typ, step.Version), "--exclude-newer-package", typ+"=false", "-")
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(uv.Env(os.Environ()), "UV_CACHE_DIR="+filepath.Join(cache, "rbee-test-upstream-uv"))
	cmd.Stdin = strings.NewReader(typ + "==" + step.Version + "\n")
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Log(string(exit.Stderr))
		}
		t.Fatalf("uv pip compile: %v", err)
	}
	var want []string
	for line := range strings.FieldsSeq(string(out)) {
		if strings.Contains(line, "==") {
			want = append(want, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("the lockfile has packages %q\nwant the packages of uv %q", got, want)
	}
}

// nvidia returns a Linux machine with an NVIDIA GPU.
func nvidia(glibc, driver, compute string) wire.State {
	return wire.State{
		Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: glibc},
		Commands: []string{"cc", "nvcc"},
		Devices:  []gpu.Device{{Vendor: "nvidia", Name: "GPU", Driver: driver, ComputeCapability: compute, MemoryTotal: 80 << 30}},
	}
}

// TestUpstreamFloor resolves the newest vLLM and SGLang for fleets with several versions of
// glibc.
func TestUpstreamFloor(t *testing.T) {
	for _, typ := range []string{"vllm", "sglang"} {
		for _, glibc := range [][]string{{"2.28"}, {"2.31", "2.39"}, {"2.39"}} {
			t.Run(typ+" "+strings.Join(glibc, " "), func(t *testing.T) {
				var states []wire.State
				for _, g := range glibc {
					states = append(states, nvidia(g, "580.65", "9.0"))
				}
				plan, notes, _ := upstreamFleet(t, config.Worker{Type: typ, Version: version.Latest}, states)
				for _, s := range plan.Steps {
					if s.Worker == typ {
						t.Logf("%s %s %s, %d bytes", s.Hive, s.Version, s.Variant, s.Bytes)
					}
				}
				for _, b := range plan.Blocked {
					t.Logf("blocked %s: %s", b.Hive, b.Reason)
				}
				t.Logf("notes: %s", strings.Join(slices.DeleteFunc(notes, func(n string) bool { return !strings.HasPrefix(n, "warning") }), "\n"))
				if len(plan.Steps)+len(plan.Blocked) == 0 {
					t.Errorf("Plan() = %+v, want steps or blocked hives", plan)
				}
			})
		}
	}
}
