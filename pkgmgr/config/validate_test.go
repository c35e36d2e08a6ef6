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
			`0:0 "" is not a valid alias (expected letters, digits, dot, dash and underscore, at most 63)`,
			`0:0 "" is not a valid hostname (expected a host name, an IP address or localhost)`,
			"0:0 hive_port 0 is not a port (expected 1 to 65535; NewHive sets 8600)",
		}},
		{"twice", func(c *Config) { c.Hives = append(c.Hives, c.Hives[0]) }, []string{
			`0:0 a: alias "a" is there twice (every hive has an alias of its own)`,
			`0:0 a: a.example is the same machine as hive "a" (one account on one machine is one hive)`,
		}},
		{"workers", func(c *Config) {
			c.Hives[0].Workers = []Worker{{"vllm", "latest", Pos{}}, {"vllm", "../x", Pos{}}}
		}, []string{
			`0:0 a: "../x" is not a valid version (expected latest, a version such as 1.2, or a range such as ">=1.2, <2")`,
			`0:0 a: worker "vllm" is there twice (a hive has one version of a worker)`,
		}},
		{"names", func(c *Config) {
			c.Hives[0].SSHUser, c.Hives[0].SSHPort, c.Hives[0].SSHKey, c.Hives[0].Labels = "a b", 70000, "x\n", []string{"l l"}
		}, []string{
			`0:0 a: "a b" is not a valid ssh_user (expected letters, digits, dot, dash, underscore and @, at most 64)`,
			"0:0 a: ssh_port 70000 is not a port (expected 1 to 65535, or 0 for that of ssh_config)",
			`0:0 a: "x\n" is not a valid ssh_key (expected the path of a private key)`,
			`0:0 a: "l l" is not a valid label (expected letters, digits and . _ : / = -, at most 63)`,
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
		t.Errorf("HivePort = %d, want %d, that of NewHive", got, want)
	}
}
