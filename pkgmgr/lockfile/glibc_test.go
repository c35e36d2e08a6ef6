package lockfile

import (
	"fmt"
	"testing"
)

func TestInitialGlibc(t *testing.T) {
	t.Parallel()
	locked := func(oldest string) *GlibcFloor { return &GlibcFloor{Oldest: oldest, Glibc: "2.34"} }
	for _, tt := range []struct {
		name     string
		minimum  string
		machines []string
		complete bool
		locked   *GlibcFloor
		want     int
	}{
		{"oldest machine", "", []string{"2.39", "2.35", "2.36"}, true, nil, 35},
		{"oldest machine instead of the locked floor", "", []string{"2.39"}, true, locked("2.28"), 39},
		{"between two steps", "", []string{"2.30"}, true, nil, 28},
		{"older than the recipe allows", "2.28", []string{"2.17", "2.36"}, true, nil, 28},
		{"older than 2.28 without a minimum", "", []string{"2.17"}, true, nil, 17},
		{"newer than uv supports", "", []string{"2.99"}, true, nil, 40},
		{"unknown machines", "2.28", []string{"2.39"}, false, nil, 28},
		{"unknown machines, recipe minimum", "2.35", []string{"2.39"}, false, nil, 35},
		{"unknown machines, no minimum", "", nil, false, nil, 28},
		{"unknown machines, locked", "2.28", []string{"2.39"}, false, locked("2.35"), 35},
		{"unknown machines, locked, an older machine", "2.28", []string{"2.31"}, false, locked("2.35"), 31},
		{"unreadable glibc", "", []string{"", "unknown"}, false, nil, 28},
		{"no machine", "2.31", nil, true, nil, 31},
	} {
		if got := InitialGlibc(tt.minimum, tt.machines, tt.complete, tt.locked); got != tt.want {
			t.Errorf("%s: InitialGlibc() = %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestGlibcError(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{
		0: "vllm 0.33.0 needs glibc 2.31, this machine has 2.28",
		1: "p1 needs glibc 2.31, this machine has 2.28",
		3: "p1, p2, p3 need glibc 2.31, this machine has 2.28",
		5: "p1, p2, p3 and 2 more need glibc 2.31, this machine has 2.28",
	} {
		e := &GlibcError{Type: "vllm", Version: "0.33.0", Needs: "2.31", Has: "2.28"}
		for i := range n {
			e.Packages = append(e.Packages, fmt.Sprintf("p%d", i+1))
		}
		if got := e.Error(); got != want {
			t.Errorf("Error() with %d packages = %q, want %q", n, got, want)
		}
	}
}
