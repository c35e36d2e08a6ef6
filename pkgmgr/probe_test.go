package pkgmgr_test

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/gpu"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// shellHost runs scripts in a local shell with its own home directory.
type shellHost struct {
	pkgmgr.Host
	shell []string
	home  string
	tools string // PATH
	sys   string // replaces /sys
	pci   string // replaces /sys/bus/pci
	root  string // replaces / in the search for libraries
	noise string // output of the shell's startup files
}

func (h *shellHost) Script(ctx context.Context, script string, stdout, stderr io.Writer) error {
	if _, err := io.WriteString(stdout, h.noise); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, h.shell[0], append(h.shell[1:len(h.shell):len(h.shell)], "-s")...)
	cmd.Env = []string{"HOME=" + h.home, "PATH=" + h.tools}
	script = strings.ReplaceAll(script, "\nsys=/sys\n", "\nsys='"+h.sys+"'\n")
	script = strings.ReplaceAll(script, "\nroot=\n", "\nroot='"+h.root+"'\n")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(script), stdout, stderr
	return cmd.Run()
}

func (h *shellHost) Close() error { return nil }

// read reads the state of the machine with a fleet.
func (h *shellHost) read(t *testing.T, o pkgmgr.ReadOptions) (*wire.State, *operations.Error) {
	t.Helper()
	f, err := pkgmgr.Open(&config.Config{Hives: []config.Hive{config.NewHive("local", "local")}}, pkgmgr.Options{
		Connect: func(context.Context, config.Hive) (pkgmgr.Host, error) { return h, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	f.Read(t.Context(), o)
	return f.States()[0].State, f.States()[0].Err
}

func (h *shellHost) mustRead(t *testing.T, o pkgmgr.ReadOptions) *wire.State {
	t.Helper()
	s, err := h.read(t, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// rbee returns rbee's directory.
func (h *shellHost) rbee() string { return filepath.Join(h.home, ".local", "share", "rbee") }

// write writes a file of the machine.
func (h *shellHost) write(t *testing.T, mode os.FileMode, content string, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path) // it may be a symlink to the real tool
	if err := os.WriteFile(path, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
}

// newShellHost returns a machine whose home directory has the name home. PATH contains only
// tools that every machine has.
func newShellHost(t *testing.T, home string, shell ...string) *shellHost {
	t.Helper()
	dir := t.TempDir()
	h := &shellHost{shell: shell, home: filepath.Join(dir, home), tools: filepath.Join(dir, "tools"), sys: filepath.Join(dir, "sys"), pci: filepath.Join(dir, "sys", "bus", "pci"), root: filepath.Join(dir, "root")}
	for _, d := range []string{h.home, h.tools} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, tool := range []string{"cat", "df", "getconf", "id", "sed", "sh", "tail", "timeout", "tr", "uname"} {
		if path, err := exec.LookPath(tool); err == nil {
			if err := os.Symlink(path, filepath.Join(h.tools, tool)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return h
}

// oddName is a directory name that requires quoting.
const oddName = "a b\"c'd\\e$HOME`id`;f%s*ü"

// inEveryShell runs a test with each installed POSIX shell.
func inEveryShell(t *testing.T, test func(t *testing.T, shell []string)) {
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"bash"}, {"busybox", "sh"}} {
		path, err := exec.LookPath(shell[0])
		if err != nil {
			continue
		}
		shell := append([]string{path}, shell[1:]...)
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			test(t, shell)
		})
	}
}

func TestProbeBareMachine(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, oddName, shell...)
		h.noise = "Welcome!\nhave a \x01 nice day"
		s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true})
		host, _ := os.Hostname()
		if s.OS != runtime.GOOS || s.Arch != runtime.GOARCH || s.User == "" || s.Hostname != host || s.DiskFree == 0 {
			t.Errorf("Read() = %+v, want the platform, user, host name and free disk space of this machine", s)
		}
		if s.Schema != 0 || s.Rbee != nil || s.Broken != "" || len(s.Workers) != 0 {
			t.Errorf("Read() = %+v, want no rbee and no workers", s)
		}
		if s.Home != h.rbee() {
			t.Errorf("Read() returned home %q, want %q", s.Home, h.rbee())
		}
		if want := []string{filepath.Join(h.home, ".local"), filepath.Join(h.home, ".local", "share")}; !reflect.DeepEqual(s.MissingDirs, want) {
			t.Errorf("Read() returned missing directories %q, want %q", s.MissingDirs, want)
		}
		if runtime.GOOS == "linux" && s.Libc != "glibc" && s.Libc != "musl" {
			t.Errorf("Read() returned libc %q %q, want glibc or musl", s.Libc, s.LibcVersion)
		}
		if !s.DevicesKnown || len(s.Devices) != 0 && runtime.GOOS == "linux" {
			t.Errorf("Read() returned devices %+v, want an empty list", s.Devices)
		}
	})
}

func TestProbeRunsRbee(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, oddName, shell...)
		h.write(t, 0o755, "#!/bin/sh\ncat >/dev/null\necho noise >&2\n"+
			"printf '\\036{\"schema\":1,\"os\":\"linux\",\"arch\":\"amd64\",\"hostname\":\"%s\",\"rbee\":{\"version\":\"1.0\"},\"workers\":[{\"type\":\"b\"},{\"type\":\"../x\"},{\"type\":\"a\"}]}\\n' \"$*\"\n",
			h.rbee(), "bin", "rbee")
		for want, o := range map[string]pkgmgr.ReadOptions{
			"hive inspect":                  {},
			"hive inspect --deep":           {Deep: true},
			"hive inspect --devices":        {Devices: true},
			"hive inspect --devices --deep": {Devices: true, Deep: true},
		} {
			s := h.mustRead(t, o)
			if s.Hostname != want || s.Schema != 1 || s.Rbee.Version != "1.0" {
				t.Errorf("Read(%+v) = %+v, want it to run %q", o, s, want)
			}
			if want := []wire.Worker{{Type: "a"}, {Type: "b"}}; !reflect.DeepEqual(s.Workers, want) {
				t.Errorf("Read(%+v) returned workers %+v, want %+v", o, s.Workers, want)
			}
		}
	})
}

func TestProbeBrokenRbee(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, "home", shell...)
		for _, tt := range []struct {
			name    string
			mode    os.FileMode
			content string
			want    string
		}{
			{"failure with an error message", 0o755, "#!/bin/sh\nprintf 'no \"library\" \\\\ \\tx\\001\\ny\\n' >&2\nexit 3\n", `failed with status 3: no "library" \  x y`},
			{"failure with an incomplete record", 0o755, "#!/bin/sh\nprintf '\\036{\"half\":\\n'\nexit 4\n", `failed with status 4: {"half":`},
			{"not executable", 0o644, "not to be run", "failed with status 126: "},
			{"output without a record", 0o755, "#!/bin/sh\necho usage: rbee\n", "printed no record: usage: rbee"},
			{"no output", 0o755, "#!/bin/sh\n", "printed no record: "},
		} {
			h.write(t, tt.mode, tt.content, h.rbee(), "bin", "rbee")
			s := h.mustRead(t, pkgmgr.ReadOptions{})
			if s.Rbee == nil || s.Schema != 0 || !strings.Contains(s.Broken, tt.want) {
				t.Errorf("%s: Read() returned rbee %+v, broken %q, want %q in it", tt.name, s.Rbee, s.Broken, tt.want)
			}
			if len(s.MissingDirs) != 0 {
				t.Errorf("%s: Read() returned missing directories %q, want none", tt.name, s.MissingDirs)
			}
		}
	})
}

func TestProbeForeignWorkers(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, oddName, shell...)
		for _, name := range []string{"rbee-worker-vllm", "rbee-worker-llama-cpp", "rbee-worker-", "rbee-worker--x", "rbee-worker-A", "rbee-worker-a b", `rbee-worker-"`, "other"} {
			h.write(t, 0o755, "", h.rbee(), "workers", name)
		}
		if err := os.Symlink("/nowhere", filepath.Join(h.rbee(), "workers", "rbee-worker-lost")); err != nil {
			t.Fatal(err)
		}
		s := h.mustRead(t, pkgmgr.ReadOptions{})
		want := []wire.Worker{{Type: "llama-cpp", Unmanaged: true}, {Type: "lost", Unmanaged: true}, {Type: "vllm", Unmanaged: true}}
		if !reflect.DeepEqual(s.Workers, want) || s.DevicesKnown {
			t.Errorf("Read() = %+v, want workers %+v and unknown devices", s, want)
		}
	})
}

// nvidiaSMI returns a script that simulates nvidia-smi: it prints the rows with the requested
// columns, and "[N/A]" for missing values. Then it runs the command end.
func nvidiaSMI(end string, rows ...string) string {
	script := "#!/bin/sh\ncat >/dev/null\ncolumns=${1#--query-gpu=}\n"
	for _, row := range rows {
		script += "index= name= memory= driver= compute=\n" + row + `
out= rest=$columns,
while [ -n "$rest" ]; do
	case ${rest%%,*} in
	index) value=$index ;; name) value=$name ;; memory.total) value=$memory ;;
	driver_version) value=$driver ;; compute_cap) value=$compute ;; *) value= ;;
	esac
	out="$out, ${value:-[N/A]}" rest=${rest#*,}
done
printf '%s\n' "${out#, }"
`
	}
	return script + end + "\n"
}

func TestProbeDevices(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		const rtx = `index=0 memory=24564 driver=581.95 compute=8.9 name="NVIDIA GeForce RTX 4090"`
		rtxDevice := wire.Devices{{Vendor: "nvidia", Name: "NVIDIA GeForce RTX 4090", MemoryTotal: 24564 << 20, Driver: "581.95", ComputeCapability: "8.9"}}
		for _, tt := range []struct {
			name, tool, script string
			want               wire.Devices
		}{
			{"two GPUs", "nvidia-smi", nvidiaSMI("", `index=0 memory=24576 driver=580.65.06 compute=12.0 name='NVIDIA "Big", 2nd'`, `index=1 driver=580.65.06 name='NVIDIA GB10'`), wire.Devices{
				{Vendor: "nvidia", Name: `NVIDIA "Big", 2nd`, MemoryTotal: 24 << 30, Driver: "580.65.06", ComputeCapability: "12.0"},
				{Index: 1, Vendor: "nvidia", Name: "NVIDIA GB10", Driver: "580.65.06", Unified: true},
			}},
			{"old driver", "nvidia-smi", nvidiaSMI("", `case $columns in *compute_cap*) echo 'Field "compute_cap" is not a valid field to query.'; exit 2;; esac`+
				"\nindex=0 memory=12288 driver=470.82.01 name='Tesla K80'"),
				wire.Devices{{Vendor: "nvidia", Name: "Tesla K80", MemoryTotal: 12 << 30, Driver: "470.82.01"}}},
			{"driver error", "nvidia-smi", "#!/bin/sh\necho \"couldn't talk to the \\\"driver\\\"\"\nexit 9\n",
				wire.Devices{{Index: -1, Vendor: "nvidia", Error: `couldn't talk to the "driver"`}}},
			{"values with spaces", "nvidia-smi", nvidiaSMI("", `index=0 memory='[Not Supported]' driver=550.54 compute='[Unknown Error]' name='NVIDIA A100 80GB PCIe'`),
				wire.Devices{{Vendor: "nvidia", Name: "NVIDIA A100 80GB PCIe", Driver: "550.54", Unified: true}}},
			{"lost GPU", "nvidia-smi", nvidiaSMI("exit 15", rtx, `index=1 memory='[GPU is lost]' driver=581.95 name='NVIDIA L4'`),
				append(rtxDevice[:1:1], gpu.Device{Index: 1, Vendor: "nvidia", Name: "NVIDIA L4", Driver: "581.95", Error: `nvidia-smi reports "GPU is lost" for memory.total`})},
			{"corrupted infoROM", "nvidia-smi", nvidiaSMI("echo 'WARNING: infoROM is corrupted at gpu 0000:0B:00.0'\nexit 14", rtx), rtxDevice},
			{"warning before the rows", "nvidia-smi", nvidiaSMI("", "echo 'Warning: persistence mode is disabled'\n"+rtx), rtxDevice},
			{"warning on stderr", "nvidia-smi", nvidiaSMI("echo 'a library is old' >&2", rtx), rtxDevice},
			{"WSL", "root/usr/lib/wsl/lib/nvidia-smi", nvidiaSMI("", rtx), rtxDevice},
			{"container", "root/usr/local/nvidia/bin/nvidia-smi", nvidiaSMI("", rtx), rtxDevice},
		} {
			h := newShellHost(t, "home", shell...)
			dir, inRoot := strings.CutPrefix(tt.tool, "root/")
			if inRoot {
				h.write(t, 0o755, tt.script, h.root, dir)
			} else {
				h.write(t, 0o755, tt.script, h.tools, tt.tool)
			}
			h.write(t, 0o755, "", h.tools, "cc")
			s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true})
			if !s.DevicesKnown || !reflect.DeepEqual(s.Devices, tt.want) || !reflect.DeepEqual(s.Commands, []string{"cc"}) {
				t.Errorf("%s: Read() returned devices %+v, commands %q, want %+v and cc", tt.name, s.Devices, s.Commands, tt.want)
			}
		}
	})
}

// TestProbeArchitecture checks that the architecture of an AMD device is read from amd-smi,
// or from the kernel if amd-smi is not installed.
func TestProbeArchitecture(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, "home", shell...)
		for name, text := range map[string]string{"class": "0x030000", "vendor": "0x1002", "device": "0x744c"} {
			h.write(t, 0o644, text+"\n", h.pci, "devices", "0000:03:00.0", name)
		}
		h.write(t, 0o644, "", h.pci, "drivers", "amdgpu", "0000:03:00.0")
		h.write(t, 0o644, "simd_count 192\nvendor_id 4098\nlocation_id 768\ngfx_target_version 110000\n", h.sys, "class/kfd/kfd/topology/nodes/1/properties")
		want := wire.Devices{{Vendor: "amd", Name: "AMD GPU 0x744c", PCIBusID: "0000:03:00.0", Architecture: "gfx1100"}}
		if s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true}); !reflect.DeepEqual(s.Devices, want) {
			t.Errorf("the devices of Read() differ (-want +got):\n%s", cmp.Diff(want, s.Devices))
		}
		h.write(t, 0o755, "#!/bin/sh\ncase $1 in static) echo '[{\"gpu\": 0, \"asic\": {\"market_name\": \"Instinct MI300X\", \"target_graphics_version\": \"gfx942\"},"+
			" \"bus\": {\"bdf\": \"0000:03:00.0\"}}]';; *) exit 1;; esac\n", h.root, "opt/rocm/bin/amd-smi")
		want = wire.Devices{{Vendor: "amd", Name: "Instinct MI300X", PCIBusID: "0000:03:00.0", Architecture: "gfx942"}}
		if s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true}); !reflect.DeepEqual(s.Devices, want) {
			t.Errorf("the devices of Read() differ (-want +got):\n%s", cmp.Diff(want, s.Devices))
		}
	})
}

// TestProbeCards checks that cards are found without the tools of their vendors.
func TestProbeCards(t *testing.T) {
	t.Parallel()
	inEveryShell(t, func(t *testing.T, shell []string) {
		h := newShellHost(t, "home", shell...)
		for bus, files := range map[string][]string{ // class, vendor, device, driver
			"0000:00:02.0": {"0x030000", "0x8086", "0x9a49", "i915"}, // integrated
			"0000:01:00.0": {"0x030000", "0x1002", "0x744c", "amdgpu"},
			"0000:02:00.0": {"0x120000", "0x1002", "0x74a1", "amdgpu"},
			"0000:03:00.0": {"0x038000", "0x1002", "0x67df", "radeon"},
			"0000:04:00.0": {"0x030000", "0x8086", "0x56a0", "xe"},
			"0000:05:00.0": {"0x020000", "0x8086", "0x1572", "i40e"}, // a network card
			"0000:06:00.0": {"0x030000", "0x1a03", "0x2000", "ast"},  // a server's own display
		} {
			for i, name := range []string{"class", "vendor", "device"} {
				h.write(t, 0o644, files[i]+"\n", h.pci, "devices", bus, name)
			}
			h.write(t, 0o644, "", h.pci, "drivers", files[3], bus)
		}
		h.write(t, 0o644, "AMD \"Instinct\"\n", h.pci, "devices", "0000:02:00.0", "product_name")
		h.write(t, 0o644, "206141652992\n", h.pci, "devices", "0000:02:00.0", "mem_info_vram_total")
		others := wire.Devices{
			{Vendor: "amd", Name: "AMD GPU 0x744c", PCIBusID: "0000:01:00.0"},
			{Index: 1, Vendor: "amd", Name: `AMD "Instinct"`, PCIBusID: "0000:02:00.0", MemoryTotal: 206141652992},
			{Index: -1, Vendor: "amd", PCIBusID: "0000:03:00.0", Error: "the device does not use the amdgpu driver (the device is bound to the driver radeon)"},
			{Vendor: "intel", Name: "Intel GPU 0x56a0", PCIBusID: "0000:04:00.0", Driver: "xe"},
		}
		s := h.mustRead(t, pkgmgr.ReadOptions{Devices: true})
		if !s.DevicesKnown || !reflect.DeepEqual(s.Devices, others) {
			t.Errorf("the devices of Read() differ (-want +got):\n%s", cmp.Diff(others, s.Devices))
		}
		h.write(t, 0o644, "0x030200\n", h.pci, "devices", "0000:41:00.0", "class")
		h.write(t, 0o644, "0x10de\n", h.pci, "devices", "0000:41:00.0", "vendor")
		s = h.mustRead(t, pkgmgr.ReadOptions{Devices: true})
		if want := append(others[:4:4], gpu.Device{
			Index: -1, Vendor: "nvidia", PCIBusID: "0000:41:00.0", Error: "the NVIDIA driver is not installed: nvidia-smi not found (no driver is bound to the device)",
		}); !reflect.DeepEqual(s.Devices, want) {
			t.Errorf("the devices of Read() differ (-want +got):\n%s", cmp.Diff(want, s.Devices))
		}
		h.write(t, 0o755, nvidiaSMI("", "index=0 memory=24576 driver=580.65.06 compute=12.0 name=RTX"), h.tools, "nvidia-smi")
		s = h.mustRead(t, pkgmgr.ReadOptions{Devices: true})
		if len(s.Devices) != 5 || s.Devices[4].Name != "RTX" || !reflect.DeepEqual(s.Devices[:4], others) {
			t.Errorf("Read() returned devices %+v, want %+v and RTX", s.Devices, others)
		}
	})
}

// TestProbeDisk checks that a machine is read even if its disk is full or df fails.
func TestProbeDisk(t *testing.T) {
	t.Parallel()
	h := newShellHost(t, "home", "sh")
	row := "#!/bin/sh\necho 'Filesystem 1024-blocks Used Available Capacity Mounted'\necho '/dev/sda 100 90 "
	for content, want := range map[string]uint64{
		row + "7 90% /'\n": 7000, row + "0 100% /'\n": 0, row + "-5 105% /'\n": 0, "#!/bin/sh\nexit 1\n": 0, "#!/bin/sh\necho\n": 0,
	} {
		h.write(t, 0o755, content, h.tools, "df")
		if s := h.mustRead(t, pkgmgr.ReadOptions{}); s.DiskFree != want {
			t.Errorf("Read() with df %q returned %d free bytes, want %d", content, s.DiskFree, want)
		}
	}
}

func TestProbeInvalidOutput(t *testing.T) {
	t.Parallel()
	h := newShellHost(t, "new\nline\tand \x02", "sh")
	if s := h.mustRead(t, pkgmgr.ReadOptions{}); s.Home == "" || strings.ContainsAny(s.Home, "\n\t\x02") {
		t.Errorf("Read() returned home %q, want no control characters", s.Home)
	}
	for name, tt := range map[string]struct {
		host *shellHost
		want string
	}{
		"no output":      {&shellHost{shell: []string{"true"}}, "the output of the shell contains no record"},
		"other output":   {&shellHost{shell: []string{"true"}, noise: "This account is not available.\n"}, "the output of the shell contains no record"},
		"partial record": {&shellHost{shell: []string{"true"}, noise: "\x1e{\"schema\":1"}, "unexpected EOF"},
		"no JSON":        {&shellHost{shell: []string{"true"}, noise: "\x1e{schema}\n"}, "invalid JSON"},
		"failure":        {&shellHost{shell: []string{"false"}}, "exit status 1"},
		"large output":   {&shellHost{shell: []string{"true"}, noise: strings.Repeat("x", 64<<20+1)}, "exceeds 64 MiB"},
	} {
		s, err := tt.host.read(t, pkgmgr.ReadOptions{})
		if s != nil || err == nil || err.Code != operations.CodeUnreachable || !strings.Contains(err.Message, tt.want) {
			t.Errorf("%s: Read() = %+v, %v, want unreachable with %q in it", name, s, err, tt.want)
		}
	}
}
