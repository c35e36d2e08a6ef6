package machine

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestParseCPUInfo(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"cpuinfo_amd64.txt": "AMD EPYC 9354 32-Core Processor",
		"cpuinfo_grace.txt": "ARM Neoverse-V2",
		"cpuinfo_pi.txt":    "Raspberry Pi 5 Model B Rev 1.0",
		"cpuinfo_power.txt": "POWER9, altivec supported",
	} {
		if got := parseCPUInfo(testdata(t, name)); got != want {
			t.Errorf("parseCPUInfo(%s) = %q, want %q", name, got, want)
		}
	}
	for text, want := range map[string]string{
		"":                                     "",
		"no colon\n":                           "",
		"model name\t: \nmodel name\t:  a   b": "a b",
		"CPU implementer : 0x61\nCPU part : 0x022\n": "ARM implementer 0x61 part 0x022",
		"CPU implementer : 0x61\nCPU part : 0xd4f\n": "ARM implementer 0x61 part 0xd4f", // the part number of another implementer
		"CPU implementer : 0x41\n":                   "",
	} {
		if got := parseCPUInfo([]byte(text)); got != want {
			t.Errorf("parseCPUInfo(%q) = %q, want %q", text, got, want)
		}
	}
}

func TestParseMeminfo(t *testing.T) {
	t.Parallel()
	for name, want := range map[string][2]uint64{
		"meminfo.txt":     {24684084 << 10, 24294472 << 10},
		"meminfo_old.txt": {8061408 << 10, (1000000 + 200000 + 3000000) << 10},
	} {
		total, available := parseMeminfo(testdata(t, name))
		if total != want[0] || available != want[1] {
			t.Errorf("parseMeminfo(%s) = %d, %d, want %d, %d", name, total, available, want[0], want[1])
		}
	}
	for _, text := range []string{"", "MemTotal: many kB", "MemTotal: 99999999999999999999 kB", "MemTotal: 5", "MemAvailable: 7 kB"} {
		if total, available := parseMeminfo([]byte(text)); total != 0 || available != 0 {
			t.Errorf("parseMeminfo(%q) = %d, %d, want 0, 0", text, total, available)
		}
	}
}

// FuzzParse checks that the parsers return consistent values for any input.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		f.Fatalf("Glob(testdata/*.txt) = %v, %v, want at least 6 files", files, err)
	}
	for _, name := range files {
		f.Add(testdata(f, filepath.Base(name)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if total, available := parseMeminfo(data); available > total || total > 1<<60 {
			t.Errorf("parseMeminfo(%q) = %d, %d, want available <= total <= 1<<60", data, total, available)
		}
		if name := parseCPUInfo(data); strings.Contains(name, "\n") {
			t.Errorf("parseCPUInfo(%q) = %q, want one line", data, name)
		}
	})
}
