package suggest

import "testing"

func TestNearest(t *testing.T) {
	t.Parallel()
	candidates := []string{"alias", "hostname", "ssh_user", "ssh_port", "hive_port", "auto_start", "1"}
	for in, want := range map[string]string{
		"hostnme": "hostname", "host": "hostname", "HOSTNAME": "hostname", "user": "ssh_user", "ssh-port": "ssh_port",
		"autostart": "auto_start", "ailas": "alias", "zzz": "", "": "", "2": "", "xy": "",
	} {
		if got := Nearest(in, candidates); got != want {
			t.Errorf("Nearest(%q, %q) = %q, want %q", in, candidates, got, want)
		}
	}
}

func TestDistance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"", "abc", 3}, {"abc", "", 3}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"abcd", "badc", 2}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}
