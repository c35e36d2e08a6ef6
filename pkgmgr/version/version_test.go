package version

import (
	"strings"
	"testing"
)

// TestCompareAndNewest checks the order of versions and the constraints that use it.
func TestCompareAndNewest(t *testing.T) {
	t.Parallel()
	sorted := []string{
		"0.6.0.dev1", "0.6.0a1", "0.6.0b2", "0.6.0rc1", "0.6.0", "0.6.0.post1", "0.6.1", "v0.6.2", "0.6.10", "0.7", "1.0-beta.2", "1.0.0", "1.0.1", "b999", "b1000",
	}
	for i := range sorted {
		for j := range sorted {
			want := 0
			switch {
			case i < j:
				want = -1
			case i > j:
				want = 1
			}
			if got := Compare(sorted[i], sorted[j]); got != want && !strings.HasPrefix(sorted[max(i, j)], "b") {
				t.Errorf("Compare(%q, %q) = %d, want %d", sorted[i], sorted[j], got, want)
			}
		}
	}
	for _, tt := range []struct {
		a, b string
		want int
	}{{"b999", "b1000", -1}, {"1.2", "1.2.0", 0}, {"V1", "1", 0}} {
		if got := Compare(tt.a, tt.b); got != tt.want {
			t.Errorf("Compare(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
	all := []string{"0.9.0", "0.10.0", "0.11.0rc1", "0.10.2", "0.8.9"}
	for constraint, want := range map[string]string{
		"latest": "0.10.2", ">=0.8, <0.10": "0.9.0", "0.10.*": "0.10.2", "!=0.10.2": "0.10.0", "0.8.9": "0.8.9", ">0.10.2": "0.11.0rc1", ">2": "", "<=0.8.9": "0.8.9",
	} {
		if got := Newest(constraint, all); got != want {
			t.Errorf("Newest(%q) = %q, want %q", constraint, got, want)
		}
		if !ValidConstraint(constraint) {
			t.Errorf("ValidConstraint(%q) = false, want true", constraint)
		}
	}
	for _, bad := range []string{"", ">=", "1,,2", ">= 1; rm", "1 2", "latest,1", "$(x)", strings.Repeat("1", 200)} {
		if ValidConstraint(bad) {
			t.Errorf("ValidConstraint(%q) = true, want false", bad)
		}
	}
}

func FuzzParseRange(f *testing.F) {
	f.Add(">=1.2, <2", "1.3")
	f.Add("0.*", "v0.1rc1")
	f.Fuzz(func(t *testing.T, text, version string) {
		r, err := ParseRange(text)
		if err == nil {
			r.Has(version)
		}
		if Compare(text, version) != -Compare(version, text) {
			t.Errorf("Compare(%q, %q) = %d, want the negative of the swapped comparison, %d", text, version, Compare(text, version), Compare(version, text))
		}
		if Compare(version, version) != 0 {
			t.Errorf("Compare(%q, %q) = %d, want 0", version, version, Compare(version, version))
		}
	})
}
