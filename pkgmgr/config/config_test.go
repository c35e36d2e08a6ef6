package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

func wantLines(t *testing.T, err error, want []string) {
	t.Helper()
	got := problemtest.Lines(t, err)
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestParseDocument(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hives.conf.example.toml", "hives.conf.example.yaml"} {
		c, err := Load(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if c.Path != filepath.Join("..", "..", "docs", name) {
			t.Errorf("%s: path %q", name, c.Path)
		}
		want := []Hive{
			{
				Alias: "gpu-server-1", Hostname: "192.168.1.100", SSHUser: "vince", SSHPort: 22, HivePort: 8600, AutoStart: true,
				Workers: []Worker{{Type: "vllm", Version: "latest"}, {Type: "llama-cpp", Version: "latest"}},
			},
			{
				Alias: "gpu-server-2", Hostname: "gpu2.example.com", SSHKey: "~/.ssh/id_fleet", HivePort: 8600,
				Labels: []string{"office", "image"}, Workers: []Worker{{Type: "comfyui", Version: "latest"}},
			},
			{Alias: "local", Hostname: "localhost", HivePort: 8600, AutoStart: true, Workers: []Worker{{Type: "echo", Version: "latest"}}},
		}
		sameHives(t, c.Hives, want)
		if p := c.Hives[0].Pos; p.Line == 0 || p.Column == 0 {
			t.Errorf("%s: the first hive has no place", name)
		}
	}
}

func TestParseEdges(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty.conf": "", "comment.conf": "# none yet\n", "empty.yaml": "", "comment.yaml": "# none yet\n", "none.yaml": "hive: []\n", "bom.conf": "\ufeff",
	} {
		if c, err := Parse(name, []byte(text)); err != nil || len(c.Hives) != 0 || c.Path != "" {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
	}
	for in, want := range map[string]string{
		"[::1]": "::1", "fe80::1%eth0": "fe80::1%eth0", "2001:db8::7": "2001:db8::7", "10.0.0.1": "10.0.0.1", "gpu_1": "gpu_1",
	} {
		c, err := Parse("c", []byte("[[hive]]\nalias='a'\nhostname='"+in+"'\n"))
		if err != nil || c.Hives[0].Hostname != want {
			t.Errorf("hostname %q: %+v, %v; want %q", in, c, err, want)
		}
	}
	c, err := Parse("c", []byte("[[hive]]\nalias='a'\nhostname='h'\n[[hive.workers]]\ntype='echo'\n"))
	if err != nil || len(c.Hives[0].Workers) != 1 || c.Hives[0].Workers[0].Pos != (Pos{4, 1}) {
		t.Errorf("a list of tables: %+v, %v", c, err)
	}
	c, err = Parse("c.yml", []byte("hive:\n- &a {alias: a, hostname: h, ssh_user: u, auto_start: TRUE}\n- <<: *a\n  alias: b\n  hostname: i\n"))
	if err != nil || len(c.Hives) != 2 || c.Hives[1].SSHUser != "u" || c.Hives[1].Alias != "b" {
		t.Errorf("merge keys: %+v, %v", c, err)
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "absent.conf")
	_, err := Load(path)
	if operations.CodeOf(err) != operations.CodeNotFound || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("absent: %v", err)
	}
	if _, err := Load(dir); operations.CodeOf(err) != operations.CodeFailed {
		t.Errorf("a directory: %v", err)
	}
	large := filepath.Join(dir, "large.conf")
	if err := os.WriteFile(large, []byte(strings.Repeat("#\n", strict.MaxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("a large file: %v", err)
	}
	bad := filepath.Join(dir, "bad.conf")
	if err := os.WriteFile(bad, []byte("x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(bad); err == nil || !strings.Contains(err.Error(), bad+":1:1: unknown key \"x\"") {
		t.Errorf("a bad file: %v", err)
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	c := &Config{Hives: []Hive{
		{Alias: "a", Labels: []string{"x", "y"}}, {Alias: "b", Labels: []string{"y"}}, {Alias: "gpu-1"},
	}}
	for _, tt := range []struct{ aliases, labels, want string }{
		{"", "", "a b gpu-1"}, {"b a b", "", "a b"}, {"", "y", "a b"}, {"", "x y", "a"}, {"b gpu-1", "y", "b"}, {"", "z", ""},
	} {
		hives, err := c.Select(strings.Fields(tt.aliases), strings.Fields(tt.labels))
		var got []string
		for _, h := range hives {
			got = append(got, h.Alias)
		}
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("Select(%q, %q) = %v, %v; want %s", tt.aliases, tt.labels, got, err, tt.want)
		}
	}
	_, err := c.Select([]string{"gpu1"}, nil)
	if operations.CodeOf(err) != operations.CodeNotFound || err.Error() != `hive gpu1: the config has no such hive; did you mean "gpu-1"?` {
		t.Errorf("unknown alias: %v", err)
	}
}

func ExampleParse() {
	c, err := Parse("hives.conf", []byte(`
[[hive]]
alias = "gpu-1"
hostname = "192.168.1.100"
workers = [{ type = "vllm" }]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	h := c.Hives[0]
	fmt.Println(h.Alias, h.Address(), h.HivePort, h.Workers[0].Type, h.Workers[0].Version)
	// Output: gpu-1 192.168.1.100 8600 vllm latest
}

func ExampleParse_problems() {
	_, err := Parse("hives.conf", []byte("[[hive]]\nalias = \"gpu-1\"\nhostnme = \"a\"\nssh_port = \"22\"\n"))
	fmt.Println(err)
	// Output:
	// hives.conf is not a valid config: 3 problems
	//   hives.conf:1:1: hive 1 has no hostname (such as "192.168.1.100")
	//   hives.conf:3:1: unknown key "hostnme" (did you mean "hostname"?)
	//   hives.conf:4:12: ssh_port is a string (expected an integer: 22 without quotes)
}
