package gpu

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// probe runs the script of [ProbeScript] on a fake machine whose tools are in the directory
// dir, or in PATH if dir is empty.
func (m machine) probe(t *testing.T, sys, dir string, shell ...string) []byte {
	t.Helper()
	root := t.TempDir()
	bin := filepath.Join(root, "bin")
	tools := bin
	if dir != "" {
		tools = filepath.Join(root, dir)
	}
	if err := errors.Join(os.MkdirAll(bin, 0o755), os.MkdirAll(tools, 0o755)); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	programs := []string{"cat", "sh", "timeout", "tr", "uname"}
	if m.goos == "darwin" {
		write(filepath.Join(bin, "uname"), "#!/bin/sh\necho Darwin\n")
		programs = programs[:4]
	}
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("this machine has no %s", name)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	scripts := map[string]string{}
	lines := slices.SortedFunc(maps.Keys(m.answers), func(a, b string) int { return cmp.Compare(len(b), len(a)) })
	for i, line := range lines {
		tool, args, _ := strings.Cut(line, " ")
		out := filepath.Join(root, fmt.Sprintf("answer%d", i))
		write(out, m.answers[line].out)
		scripts[tool] += fmt.Sprintf("case \"$*\" in '%s'*) cat '%s'; exit %d;; esac\n", args, out, m.answers[line].code)
	}
	for tool, text := range scripts {
		write(filepath.Join(tools, tool), "#!/bin/sh\n"+text+"exit 127\n")
	}
	script := strings.Replace(ProbeScript(), "\nroot=\n", "\nroot='"+root+"'\n", 1)
	script = strings.Replace(script, "\nsys=/sys\n", "\nsys='"+sys+"'\n", 1)
	cmd := exec.CommandContext(t.Context(), shell[0], append(shell[1:len(shell):len(shell)], "-s")...)
	cmd.Stdin, cmd.Env = strings.NewReader(script), []string{"PATH=" + bin}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("the probe returned %v, want nil: %s", err, &stderr)
	}
	return out
}

// shells returns the POSIX shells of this machine.
func shells(t *testing.T) (list [][]string) {
	t.Helper()
	for _, shell := range [][]string{{"sh"}, {"dash"}, {"bash"}, {"busybox", "sh"}} {
		if path, err := exec.LookPath(shell[0]); err == nil {
			list = append(list, append([]string{path}, shell[1:]...))
		}
	}
	return list
}

// TestProbeAgreesWithDetector checks that the probe and a detector find the same devices, with
// the tools in any directory.
func TestProbeAgreesWithDetector(t *testing.T) {
	t.Parallel()
	for _, tt := range detectCases(t) {
		for _, shell := range shells(t) {
			for _, dir := range []string{"", "/usr/lib/wsl/lib"} {
				if dir != "" && filepath.Base(shell[0]) != "sh" {
					continue
				}
				t.Run(tt.name+" "+filepath.Base(shell[0])+dir, func(t *testing.T) {
					t.Parallel()
					d := tt.detector(t)
					want, err := d.Devices(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					out := tt.probe(t, d.Sys, dir, shell...)
					got, err := Parse(append([]byte("Welcome!\n"), out...))
					if err != nil || toJSON(got) != toJSON(want) {
						t.Errorf("Parse() = %s, %v, want %s\n%s", toJSON(got), err, toJSON(want), out)
					}
				})
			}
		}
	}
}

// TestProbeFiles checks that the probe records all of the kernel's files that a detector
// reads: memory, compute nodes and drivers.
func TestProbeFiles(t *testing.T) {
	t.Parallel()
	m := machine{cards: []fakeCard{
		{bus: "0000:03:00.0", vendor: "0x1002", class: "0x038000", driver: "amdgpu", files: map[string]string{
			"device": "0x1586\n", "mem_info_vram_total": "536870912\n", "mem_info_vram_used": "1\n", "mem_info_gtt_total": "128849018880\n",
			"mem_info_gtt_used": "2\n", "product_name": "AMD  \"Radeon\", 8060S\n", "unique_id": "9246aa"}},
		{bus: "0000:04:00.0", vendor: "0x8086", class: "0x030000", driver: "xe", files: map[string]string{
			"tile0/physical_vram_size_bytes": "0x300000000\n", "tile1/physical_vram_size_bytes": "1\n"}},
		{bus: "0000:05:00.0", vendor: "0x8086", class: "0x030000", driver: "i915", files: map[string]string{"drm/card3/lmem_total_bytes": "16225243136\n"}},
	}}
	d := m.detector(t)
	d.Proc = t.TempDir()
	nodes := filepath.Join(d.Sys, "class/kfd/kfd/topology/nodes/1")
	if err := os.MkdirAll(nodes, 0o755); err != nil {
		t.Fatal(err)
	}
	properties := "simd_count 80\nvendor_id 4098\nlocation_id 768\ngfx_target_version 110501\n"
	if err := os.WriteFile(filepath.Join(nodes, "properties"), []byte(properties), 0o644); err != nil {
		t.Fatal(err)
	}
	want, err := d.Devices(t.Context())
	if err != nil || len(want) != 3 || want[0].Architecture != "gfx1151" || want[0].MemoryTotal != 536870912+128849018880 {
		t.Fatalf("Devices() = %s, %v, want 3 devices, the first a gfx1151 with carve-out and GTT", toJSON(want), err)
	}
	for _, shell := range shells(t) {
		got, err := Parse(m.probe(t, d.Sys, "", shell...))
		if err != nil || toJSON(got) != toJSON(want) {
			t.Errorf("%s: Parse() = %s, %v, want %s", shell, toJSON(got), err, toJSON(want))
		}
	}
}

// TestProbeOldDriver checks that the probe repeats the query without the fields that
// nvidia-smi does not support.
func TestProbeOldDriver(t *testing.T) {
	t.Parallel()
	fields := func(missing ...string) string {
		list := slices.DeleteFunc(nvidiaFields(), func(f string) bool { return slices.Contains(missing, f) })
		return "nvidia-smi " + nvidiaQuery(list)[0]
	}
	reject := func(field string) answer {
		return answer{out: `Field "` + field + `" is not a valid field to query.`, code: 2}
	}
	m := machine{answers: map[string]answer{
		fields(): reject("compute_cap"), fields("compute_cap"): reject("mig.mode.current"),
		fields("compute_cap", "mig.mode.current"): {out: "0, GPU-1, Tesla K80, 00000000:05:00.0, 11441, 0, 11441, 450.51.06, 0, 33, 26.20\n"},
	}}
	for _, shell := range shells(t) {
		got, err := Parse(m.probe(t, t.TempDir(), "", shell...))
		if err != nil || len(got) != 1 || got[0].Name != "Tesla K80" || got[0].MemoryTotal != 11441*mib || got[0].Driver != "450.51.06" {
			t.Errorf("%s: Parse() = %s, %v, want the Tesla K80", shell, toJSON(got), err)
		}
	}
}

// TestProbeHangingTool checks that the probe stops a tool that ignores SIGTERM, with each
// implementation of timeout(1) on this machine.
func TestProbeHangingTool(t *testing.T) {
	t.Parallel()
	for _, shell := range shells(t) {
		t.Run(filepath.Base(shell[0]), func(t *testing.T) {
			t.Parallel()
			bin := t.TempDir()
			write := func(name, text string) {
				if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			write("nvidia-smi", "trap '' TERM\nexec sleep 60\n")
			if filepath.Base(shell[0]) == "busybox" {
				write("timeout", "exec '"+shell[0]+"' timeout \"$@\"\n")
			}
			script := strings.Replace(ProbeScript(), "\ntool_limit=10\n", "\ntool_limit=1\n", 1)
			cmd := exec.CommandContext(t.Context(), shell[0], append(shell[1:len(shell):len(shell)], "-s")...)
			cmd.Stdin, cmd.Env = strings.NewReader(script), []string{"PATH=" + bin + ":" + os.Getenv("PATH")}
			start := time.Now()
			out, err := cmd.Output()
			if took := time.Since(start); err != nil || took > 20*time.Second {
				t.Fatalf("the probe returned %v after %s, want nil after about 2s", err, took)
			}
			devices, err := Parse(out)
			got := ""
			for _, d := range devices {
				got += d.Error
			}
			if want := "nvidia-smi did not finish within 10s and was killed"; err != nil || !strings.Contains(got, want) {
				t.Errorf("Parse() = %s, %v, want the error %q\n%s", toJSON(devices), err, want, out)
			}
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	query := "nvidia-smi " + strings.Join(nvidiaQuery(nvidiaFields()), " ")
	section := func(head string, body ...string) string {
		return "\x1c" + head + "\n" + strings.Join(body, "\n") + "\n"
	}
	for _, tt := range []struct {
		name, out string
		want      string // name or error of the only device
		err       error
	}{
		{"no output", "", "", ErrNoProbe},
		{"other output", "This account is not available.\n", "", ErrNoProbe},
		{"incomplete", section("os Linux") + section("run 0 "+query), "", ErrNoProbe},
		{"invalid status", section("run x nvidia-smi") + section("end"), "", ErrNoProbe},
		{"no device", section("os Linux") + section("end"), "", nil},
		{"warning on stderr", section("os Linux") + section("run 0 "+query, "0, GPU-1, RTX, 00000000:05:00.0, 1, 0, 1, 580, 9.0, [N/A], 0, 33, 26.20") + section("err", "a warning") + section("end"), "RTX", nil},
		{"error on stderr", section("os Linux") + section("run 12 "+query) + section("err", "libnvidia-ml.so is missing") + section("end"), "libnvidia-ml.so is missing", nil},
		{"time limit", section("os Linux") + section("run 124 "+query) + section("end"), "nvidia-smi did not finish within 10s and was killed", nil},
		{"time limit, SIGKILL", section("os Linux") + section("run 137 "+query) + section("end"), "nvidia-smi did not finish within 10s and was killed", nil},
		{"not executable", section("os Linux") + section("run 126 "+query) + section("err", "Permission denied") + section("end"), "Permission denied", nil},
	} {
		devices, err := Parse([]byte(tt.out))
		got := ""
		if len(devices) > 0 {
			got = devices[0].Name + devices[0].Error
		}
		if !errors.Is(err, tt.err) || got != tt.want || len(devices) > 1 {
			t.Errorf("%s: Parse() = %s, %v, want %q, %v", tt.name, toJSON(devices), err, tt.want, tt.err)
		}
	}
}

// FuzzParseRecording checks that no output of a machine makes Parse panic.
func FuzzParseRecording(f *testing.F) {
	f.Add("\x1cos Linux\n\x1cfile bus/pci/devices/0000:03:00.0/vendor\n0x1002\n\x1cfile bus/pci/devices/0000:03:00.0/class\n0x038000\n\x1cend\n")
	f.Add("\x1cos Darwin\n\x1crun 0 system_profiler SPDisplaysDataType -json\n{}\n\x1cend\n")
	f.Add("\x1crun 1 amd-smi static --asic --bus --driver --vram --json\n[{}]\x1cerr\nx\n\x1cend\n")
	f.Fuzz(func(t *testing.T, out string) {
		devices, err := Parse([]byte(out))
		if err == nil && devices == nil {
			t.Errorf("Parse(%q) = nil, nil, want a list or an error", out)
		}
	})
}
