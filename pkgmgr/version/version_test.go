package version

import (
	"strings"
	"testing"
)

func TestVersions(t *testing.T) {
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
				t.Errorf("%s and %s: %d", sorted[i], sorted[j], got)
			}
		}
	}
	if Compare("b999", "b1000") != -1 || Compare("1.2", "1.2.0") != 0 || Compare("V1", "1") != 0 {
		t.Error("numbers do not count as numbers")
	}
	all := []string{"0.9.0", "0.10.0", "0.11.0rc1", "0.10.2", "0.8.9"}
	for wish, want := range map[string]string{
		"latest": "0.10.2", ">=0.8, <0.10": "0.9.0", "0.10.*": "0.10.2", "!=0.10.2": "0.10.0", "0.8.9": "0.8.9", ">0.10.2": "0.11.0rc1", ">2": "", "<=0.8.9": "0.8.9",
	} {
		if got := Newest(wish, all); got != want {
			t.Errorf("%s is %q, want %q", wish, got, want)
		}
		if !ValidConstraint(wish) {
			t.Errorf("%s is not valid", wish)
		}
	}
	for _, bad := range []string{"", ">=", "1,,2", ">= 1; rm", "1 2", "latest,1", "$(x)", strings.Repeat("1", 200)} {
		if ValidConstraint(bad) {
			t.Errorf("%q is valid", bad)
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
			t.Errorf("%q and %q are in no order", text, version)
		}
		if Compare(version, version) != 0 {
			t.Errorf("%q is not itself", version)
		}
	})
}
