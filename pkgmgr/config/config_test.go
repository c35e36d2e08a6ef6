package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/problemtest"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

func checkProblems(t *testing.T, err error, want []string) {
	t.Helper()
	got := problemtest.Lines(t, err)
	if diff := cmp.Diff(strings.Join(want, "\n"), strings.Join(got, "\n")); diff != "" {
		t.Errorf("the problems of Parse() differ (-want +got):\n%s", diff)
	}
}

func TestLoadExamples(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"hives.conf.example.toml", "hives.conf.example.yaml"} {
		c, err := Load(filepath.Join("..", "..", "docs", name))
		if err != nil {
			t.Fatal(err)
		}
		if c.Path != filepath.Join("..", "..", "docs", name) {
			t.Errorf("Load(%s).Path = %q, want the path of the file", name, c.Path)
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
		compareHives(t, c.Hives, want)
		if p := c.Hives[0].Pos; p.Line == 0 || p.Column == 0 {
			t.Errorf("Load(%s).Hives[0].Pos = %v, want a position", name, p)
		}
	}
}

func TestParseSpecialForms(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"empty.conf": "", "comment.conf": "# none yet\n", "empty.yaml": "", "comment.yaml": "# none yet\n", "none.yaml": "hive: []\n", "bom.conf": "\ufeff",
	} {
		if c, err := Parse(name, []byte(text)); err != nil || len(c.Hives) != 0 || c.Path != "" {
			t.Errorf("Parse(%s, %q) = %+v, %v, want an empty config", name, text, c, err)
		}
	}
	for in, want := range map[string]string{
		"[::1]": "::1", "fe80::1%eth0": "fe80::1%eth0", "2001:db8::7": "2001:db8::7", "10.0.0.1": "10.0.0.1", "gpu_1": "gpu_1",
	} {
		c, err := Parse("c", []byte("[[hive]]\nalias='a'\nhostname='"+in+"'\n"))
		if err != nil || c.Hives[0].Hostname != want {
			t.Errorf("Parse(hostname %q) = %+v, %v, want hostname %q", in, c, err, want)
		}
	}
	c, err := Parse("c", []byte("[[hive]]\nalias='a'\nhostname='h'\n[[hive.workers]]\ntype='echo'\n"))
	if err != nil || len(c.Hives[0].Workers) != 1 || c.Hives[0].Workers[0].Pos != (Pos{4, 1}) {
		t.Errorf("Parse(list of tables) = %+v, %v, want one worker on line 4", c, err)
	}
	c, err = Parse("c.yml", []byte("hive:\n- &a {alias: a, hostname: h, ssh_user: u, auto_start: TRUE}\n- <<: *a\n  alias: b\n  hostname: i\n"))
	if err != nil || len(c.Hives) != 2 || c.Hives[1].SSHUser != "u" || c.Hives[1].Alias != "b" {
		t.Errorf("Parse(merge keys) = %+v, %v, want hives a and b with ssh_user u", c, err)
	}
}

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "absent.conf")
	_, err := Load(path)
	if operations.CodeOf(err) != operations.CodeNotFound || !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("Load(missing file) = %v, want code not_found with the path", err)
	}
	if _, err := Load(dir); operations.CodeOf(err) != operations.CodeFailed {
		t.Errorf("Load(directory) = %v, want code failed", err)
	}
	large := filepath.Join(dir, "large.conf")
	if err := os.WriteFile(large, []byte(strings.Repeat("#\n", strict.MaxFile)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(large); err == nil || !strings.Contains(err.Error(), "4 MiB") {
		t.Errorf("Load(large file) = %v, want an error with the limit of 4 MiB", err)
	}
	bad := filepath.Join(dir, "bad.conf")
	if err := os.WriteFile(bad, []byte("x = 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(bad); err == nil || !strings.Contains(err.Error(), bad+":1:1: unknown key \"x\"") {
		t.Errorf("Load(invalid file) = %v, want the problem with its position", err)
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
	if operations.CodeOf(err) != operations.CodeNotFound || err.Error() != `hive gpu1: unknown hive; did you mean "gpu-1"?` {
		t.Errorf(`Select("gpu1") = %v, want code not_found and the nearest alias`, err)
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
	// invalid config hives.conf: 3 problems
	//   hives.conf:1:1: hive 1 has no hostname (for example "192.168.1.100")
	//   hives.conf:3:1: unknown key "hostnme" (did you mean "hostname"?)
	//   hives.conf:4:12: ssh_port is a string (want an integer without quotes: 22)
}
