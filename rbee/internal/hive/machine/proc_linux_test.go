package machine

import (
	"os"
	"path/filepath"
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
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for text, want := range map[string]string{
		"":                                     "",
		"no colon\n":                           "",
		"model name\t: \nmodel name\t:  a   b": "a b",
		"CPU implementer : 0x61\nCPU part : 0x022\n": "ARM implementer 0x61 part 0x022",
		"CPU implementer : 0x61\nCPU part : 0xd4f\n": "ARM implementer 0x61 part 0xd4f", // another maker's number
		"CPU implementer : 0x41\n":                   "",
	} {
		if got := parseCPUInfo([]byte(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
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
			t.Errorf("%s: %d of %d, want %d of %d", name, available, total, want[1], want[0])
		}
	}
	for _, text := range []string{"", "MemTotal: many kB", "MemTotal: 99999999999999999999 kB", "MemTotal: 5", "MemAvailable: 7 kB"} {
		if total, available := parseMeminfo([]byte(text)); total != 0 || available != 0 {
			t.Errorf("%q: %d of %d", text, available, total)
		}
	}
}

// Nothing that a kernel could print may bring the parsers down or make no sense.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 6 {
		f.Fatalf("testdata: %v, %v", files, err)
	}
	for _, name := range files {
		f.Add(testdata(f, filepath.Base(name)))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if total, available := parseMeminfo(data); available > total || total > 1<<60 {
			t.Errorf("%d of %d", available, total)
		}
		for _, r := range parseCPUInfo(data) {
			if r == '\n' {
				t.Error("a name of several lines")
			}
		}
	})
}
