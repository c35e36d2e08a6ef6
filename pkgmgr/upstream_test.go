//go:build upstream

package pkgmgr_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// These tests resolve the built-in recipes with the real uv against the real package
// index. RBEE_TEST_UV is the uv program; else the one on the PATH is taken.
//
//	go test -tags upstream -run Upstream -v -timeout 30m ./pkgmgr

// realUV is the path of the real uv.
func realUV(t *testing.T) string {
	t.Helper()
	path := os.Getenv("RBEE_TEST_UV")
	if path == "" {
		path, _ = exec.LookPath("uv")
	}
	if path == "" {
		t.Fatal("no uv: set RBEE_TEST_UV to the program, or put it on the PATH")
	}
	return path
}

// serveTools publishes the real uv for this machine, and Pythons that are never run:
// uv resolves with the one of this machine.
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

// upstreamIndex is the index that is asked.
const upstreamIndex = "https://pypi.org/simple"

// upstreamFleet plans one worker on machines and returns the plan, the notes and the
// lock's entries.
func upstreamFleet(t *testing.T, worker pkgmgr.Worker, states []pkgmgr.State) (plan operations.Plan, notes []string, fleet *pkgmgr.Fleet) {
	t.Helper()
	s := origintest.New(t)
	serveTools(t, s)
	config := &pkgmgr.Config{}
	machines := fakehost.Fleet{}
	for i, state := range states {
		alias := fmt.Sprintf("m-%02d", i)
		config.Hives = append(config.Hives, pkgmgr.Hive{Alias: alias, Hostname: alias, HivePort: 8600, Workers: []pkgmgr.Worker{worker}, AutoStart: true})
		state.DevicesKnown = true
		machines[alias] = &fakehost.Machine{Initial: state}
	}
	cache, err := os.UserCacheDir() // uv's own cache saves minutes
	if err != nil {
		t.Fatal(err)
	}
	fleet = openFleet(t, config, machines, func(o *pkgmgr.Options) {
		o.CacheDir = filepath.Join(cache, "rbee-test-upstream")
		o.Origins = pkgmgr.Origins{GitHubAPI: s.API(), PythonIndex: upstreamIndex}
		o.Events = func(e operations.Event) {
			if e.Type == operations.EventNote {
				notes = append(notes, e.Message)
			}
		}
	})
	fleet.Read(t.Context(), pkgmgr.ReadOptions{Devices: true})
	return fleet.Plan(t.Context(), pkgmgr.PlanOptions{Fetch: true}), notes, fleet
}

func nvidia(glibc, driver, compute string) pkgmgr.State {
	return pkgmgr.State{
		Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: glibc},
		Commands: []string{"cc", "nvcc"},
		Devices:  []wire.Device{{Vendor: "nvidia", Name: "GPU", Driver: driver, Compute: compute, MemoryBytes: 80 << 30}},
	}
}

// TestUpstreamFloor resolves the newest vLLM and SGLang for fleets of several glibcs.
func TestUpstreamFloor(t *testing.T) {
	for _, typ := range []string{"vllm", "sglang"} {
		for _, glibc := range [][]string{{"2.28"}, {"2.31", "2.39"}, {"2.39"}} {
			t.Run(typ+" "+strings.Join(glibc, " "), func(t *testing.T) {
				var states []pkgmgr.State
				for _, g := range glibc {
					states = append(states, nvidia(g, "580.65", "9.0"))
				}
				plan, notes, _ := upstreamFleet(t, pkgmgr.Worker{Type: typ, Version: pkgmgr.Latest}, states)
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
					t.Error("nothing was planned")
				}
			})
		}
	}
}
