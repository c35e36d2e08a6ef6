package bytesize_test

import (
	"math"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

func TestFormat(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{
		-1: "0 B", 0: "0 B", 9: "9 B", 1023: "1023 B", 1024: "1.0 KiB", 64 << 10: "64.0 KiB", 3_210_000: "3.1 MiB", 1_047_700: "1023.1 KiB", 15_600_000: "14.9 MiB", 15_000_000_000: "14.0 GiB",
		999:     "999 B",
		1 << 20: "1.0 MiB", 1<<30 - 1: "1024.0 MiB", 1 << 30: "1.0 GiB", 32_641_751_450: "30.4 GiB", 512 << 30: "512.0 GiB",
		1 << 40: "1.0 TiB", math.MaxInt64: "8.0 EiB",
	} {
		if got := bytesize.Format(n); got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
	if got, want := bytesize.Format(uint64(math.MaxUint64)), "16.0 EiB"; got != want {
		t.Errorf("Format(MaxUint64) = %q, want %q", got, want)
	}
}

func TestFormatOf(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		part, total uint64
		want        string
	}{
		{0, 0, "0/0 B"}, {7, 512, "7/512 B"}, {0, 80 << 30, "0.0/80.0 GiB"}, {400 << 20, 80 << 30, "0.4/80.0 GiB"},
		{100 << 30, 80 << 30, "100.0/80.0 GiB"}, {100 << 20, 512 << 20, "100.0/512.0 MiB"}, {1 << 63, math.MaxUint64, "8.0/16.0 EiB"},
	} {
		if got := bytesize.FormatOf(c.part, c.total); got != c.want {
			t.Errorf("FormatOf(%d, %d) = %q, want %q", c.part, c.total, got, c.want)
		}
	}
}
