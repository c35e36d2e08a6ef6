package config

import (
	"slices"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   []string
	}{
		{"valid", func(*Config) {}, nil},
		{"no hives", func(c *Config) { c.Hives = nil }, nil},
		{"zero value", func(c *Config) { c.Hives[0] = Hive{} }, []string{
			`0:0 invalid alias "" (want letters, digits, dot, dash and underscore, at most 63 characters)`,
			`0:0 invalid hostname "" (want a host name, an IP address or localhost)`,
			"0:0 invalid hive_port 0 (want 1 to 65535; NewHive sets 8600)",
		}},
		{"duplicate hive", func(c *Config) { c.Hives = append(c.Hives, c.Hives[0]) }, []string{
			`0:0 a: duplicate alias "a" (each hive has a unique alias)`,
			`0:0 a: duplicate address a.example, also used by hive "a" (a hive is one account on one machine)`,
		}},
		{"workers", func(c *Config) {
			c.Hives[0].Workers = []Worker{{"vllm", "latest", Pos{}}, {"vllm", "../x", Pos{}}}
		}, []string{
			`0:0 a: invalid version "../x" (want latest, a version such as 1.2, or a range such as ">=1.2, <2")`,
			`0:0 a: duplicate worker "vllm" (a hive has one version of each worker)`,
		}},
		{"names", func(c *Config) {
			c.Hives[0].SSHUser, c.Hives[0].SSHPort, c.Hives[0].SSHKey, c.Hives[0].Labels = "a b", 70000, "x\n", []string{"l l"}
		}, []string{
			`0:0 a: invalid ssh_user "a b" (want letters, digits, dot, dash, underscore and @, at most 64 characters)`,
			"0:0 a: invalid ssh_port 70000 (want 1 to 65535, or 0 for the port in ssh_config)",
			`0:0 a: invalid ssh_key "x\n" (want the path of a private key)`,
			`0:0 a: invalid label "l l" (want letters, digits and . _ : / = -, at most 63 characters)`,
		}},
	} {
		c := &Config{Hives: []Hive{NewHive("a", "a.example")}}
		tt.change(c)
		err := c.Validate()
		if err == nil || tt.want == nil {
			if err != nil || tt.want != nil {
				t.Errorf("%s: Validate() = %v, want %q", tt.name, err, tt.want)
			}
			continue
		}
		if got := problemtest.Lines(t, err); !slices.Equal(got, tt.want) {
			t.Errorf("%s: Validate() =\n%q, want\n%q", tt.name, got, tt.want)
		}
	}
}

// TestParsedConfigIsValid checks that Parse and Validate agree.
func TestParsedConfigIsValid(t *testing.T) {
	t.Parallel()
	c, err := Parse("hives.conf", []byte("[[hive]]\nalias = \"a\"\nhostname = \"[fe80::1%eth0]\"\nworkers = [{ type = \"vllm\", version = \">=1, <2\" }]\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate() of a parsed config = %v, want nil", err)
	}
	if got, want := c.Hives[0].HivePort, NewHive("", "").HivePort; got != want {
		t.Errorf("HivePort = %d, want %d as from NewHive", got, want)
	}
}
