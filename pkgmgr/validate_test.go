package pkgmgr_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

const needy = `type: needy
sources:
  - version: "1"
    file: server
    os: linux
    arch: amd64
needs:
  gpu: %s
  gpu_memory: 16GiB
  disk: 2GiB
  commands: [git]
`

func TestValidate(t *testing.T) {
	t.Parallel()
	device := func(vendor string, gib uint64, problem string) gpu.Device {
		return gpu.Device{Vendor: gpu.Vendor(vendor), Name: "GPU", MemoryTotal: gib << 30, Error: problem}
	}
	for _, tt := range []struct {
		name     string
		gpu      string // GPU requirement of the recipe; empty for nvidia
		machine  wire.State
		edit     func(*config.Hive, *fakehost.Machine, *pkgmgr.Options)
		errors   []string
		warnings []string
		outcome  operations.Outcome // empty for OutcomeOK, or OutcomeInvalid if errors is not empty
	}{
		{name: "fits", machine: wire.State{Devices: []gpu.Device{device("nvidia", 8, ""), device("nvidia", 24, "")}}},
		{name: "unknown GPU memory", machine: wire.State{Devices: []gpu.Device{device("nvidia", 0, "")}}},
		{name: "any GPU", gpu: "any", machine: wire.State{Devices: []gpu.Device{device("amd", 0, "")}}},
		{name: "no GPU", errors: []string{"worker type 'needy' cannot run on this hive: no NVIDIA GPU found"}},
		{name: "no GPU at all", gpu: "any", errors: []string{"worker type 'needy' cannot run on this hive: no GPU found"}},
		{
			name: "GPU of another vendor", machine: wire.State{Devices: []gpu.Device{device("amd", 192, "")}},
			errors: []string{"no NVIDIA GPU found"},
		},
		{
			name: "small GPU", machine: wire.State{Devices: []gpu.Device{device("nvidia", 8, "")}},
			errors: []string{"the largest GPU has 8.0 GiB, want at least 16.0 GiB"},
		},
		{
			name: "broken driver", machine: wire.State{Devices: []gpu.Device{device("nvidia", 0, "driver/library version mismatch")}},
			errors: []string{"the driver of the NVIDIA GPU fails: driver/library version mismatch"},
		},
		{
			name:    "small disk",
			machine: wire.State{DiskFree: 1 << 30, Devices: []gpu.Device{device("nvidia", 24, "")}},
			errors:  []string{"insufficient disk space in /home/bee/.local/share/rbee: 1.0 GiB free, 2.0 GiB needed"},
		},
		{
			name: "small disk, installed already",
			machine: wire.State{
				DiskFree: 1 << 30, Devices: []gpu.Device{device("nvidia", 24, "")}, Workers: []wire.Worker{{Type: "needy", Version: "1"}},
			},
		},
		{
			name:    "unsupported platform",
			machine: wire.State{Platform: wire.Platform{OS: "linux", Arch: "arm64"}, Devices: []gpu.Device{device("nvidia", 24, "")}},
			errors:  []string{"worker type 'needy': worker type needy 1 does not support linux/arm64"},
		},
		{
			name: "unknown type with suggestion and position",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers = []config.Worker{{Type: "neady", Version: version.Latest, Pos: config.Pos{Line: 7, Column: 3}}}
			},
			errors: []string{"unknown worker type 'neady', did you mean 'needy'?"},
		},
		{
			name: "unknown version",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers = []config.Worker{{Type: "needy", Version: "9"}}
			},
			machine: wire.State{Devices: []gpu.Device{device("nvidia", 24, "")}},
			errors:  []string{`worker type needy has no version "9"; known: 1`},
		},
		{
			name: "known type that cannot be installed",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers = []config.Worker{{Type: "noted", Version: version.Latest}}
			},
			warnings: []string{"worker type 'noted': Build it yourself"},
		},
		{
			name: "not locked, requirements met",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers = []config.Worker{{Type: "llama-cpp", Version: version.Latest}}
			},
			machine: wire.State{Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}},
		},
		{
			name: "not locked, requirements not met",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers = []config.Worker{{Type: "vllm", Version: version.Latest}}
			},
			machine: wire.State{
				Platform: wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.27"},
				Devices:  []gpu.Device{device("nvidia", 24, "")},
			},
			errors: []string{
				"worker type 'vllm': worker type vllm cannot run on this machine: cuda-13: glibc 2.27 is older than 2.28; ",
			},
		},
		{
			name: "noexec and missing command",
			machine: wire.State{
				Devices: []gpu.Device{device("nvidia", 24, "")}, Noexec: "/home", Commands: []string{"cc"},
			},
			errors: []string{"/home is mounted noexec", "git is not in PATH"},
		},
		{
			name: "no commands",
			machine: wire.State{
				Devices: []gpu.Device{device("nvidia", 24, "")}, Commands: []string{},
			},
			errors: []string{"worker type 'needy' cannot run on this hive: git is not in PATH"},
		},
		{
			name: "missing SSH key",
			edit: func(h *config.Hive, _ *fakehost.Machine, _ *pkgmgr.Options) {
				h.Workers, h.SSHKey = nil, filepath.Join(t.TempDir(), "id_none")
			},
			warnings: []string{"SSH key not found, will prompt for password"},
		},
		{
			name: "unreachable",
			edit: func(_ *config.Hive, m *fakehost.Machine, _ *pkgmgr.Options) {
				m.Unreachable = &fakehost.ConnectError{Code: "auth", Message: "no key is accepted"}
			},
			errors: []string{"no key is accepted"}, outcome: operations.OutcomeUnreachable,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			gpu := tt.gpu
			if gpu == "" {
				gpu = "nvidia"
			}
			catalog, _ := recipes(t, map[string]string{"needy.yaml": strings.ReplaceAll(needy, "%s", gpu), "noted.yaml": "type: noted\nnote: Build it yourself\n", "server": "#!/bin/sh\n"})
			h := config.Hive{Alias: "a", Hostname: "a.example", HivePort: 8600, Workers: []config.Worker{{Type: "needy", Version: version.Latest}}}
			m := &fakehost.Machine{Initial: tt.machine}
			c := &config.Config{Path: "hives.conf", Hives: []config.Hive{h}}
			f := openFleet(t, c, fakehost.Machines{"a": m}, func(o *pkgmgr.Options) {
				o.Catalog = catalog
				if tt.edit != nil {
					tt.edit(&c.Hives[0], m, o)
				}
			})
			f.Read(t.Context(), pkgmgr.ReadOptions{Devices: f.NeedsDevices()})
			r := f.Validate(t.Context())
			var errs, warnings []string
			for _, e := range r.Errors {
				errs = append(errs, e.Error)
				if e.Hive != "a" || strings.Contains(e.Error, "neady") && (e.File != "hives.conf" || e.Line != 7 || e.Column != 3) {
					t.Errorf("Validate() returned error %+v, want hive a and the position in hives.conf", e)
				}
			}
			for _, w := range r.Warnings {
				warnings = append(warnings, w.Warning)
			}
			if !slices.EqualFunc(errs, tt.errors, strings.Contains) {
				t.Errorf("Validate() returned errors %q, want %q", errs, tt.errors)
			}
			if !slices.EqualFunc(warnings, tt.warnings, strings.Contains) {
				t.Errorf("Validate() returned warnings %q, want %q", warnings, tt.warnings)
			}
			status, outcome := operations.StatusValid, operations.OutcomeOK
			if len(tt.errors) > 0 {
				status, outcome = operations.StatusInvalid, operations.OutcomeInvalid
			}
			if tt.outcome != "" {
				outcome = tt.outcome
			}
			if r.Status != status || r.Outcome() != outcome || r.Hives != 1 || r.Workers != len(c.Hives[0].Workers) {
				t.Errorf("Validate() = %+v with outcome %s, want status %s and outcome %s", r, r.Outcome(), status, outcome)
			}
			if got := m.Calls(); got.Puts+got.Runs != 0 {
				t.Errorf("Validate() made calls %+v, want no Put and no Run", got)
			}
		})
	}
}

func TestNeedsDevices(t *testing.T) {
	t.Parallel()
	c, machines := echoFleet(2)
	if openFleet(t, c, machines, nil).NeedsDevices() {
		t.Error("NeedsDevices() = true for echo, want false")
	}
	c.Hives[1] = echoHive("gpu-01", "vllm")
	if !openFleet(t, c, machines, nil).NeedsDevices() {
		t.Error("NeedsDevices() = false for vllm, want true")
	}
}
