package sshconfig_test

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

// mustLoad loads the files and fails the test on an error.
func mustLoad(t *testing.T, o sshconfig.Options) *sshconfig.Config {
	t.Helper()
	c, err := sshconfig.Load(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// resolve loads the files and resolves the target.
func resolve(o sshconfig.Options, target sshconfig.Target) (sshconfig.Settings, error) {
	c, err := sshconfig.Load(o)
	if err != nil {
		return sshconfig.Settings{}, err
	}
	return c.Resolve(target)
}

func TestResolve(t *testing.T) {
	t.Parallel()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		target sshconfig.Target
		want   func(r *sshconfig.Settings) // modifies the defaults of host "h"
	}{
		"empty config":     {"", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {}},
		"first value wins": {"Host h\nPort 1\nPort 2\nHost *\nPort 3\nUser u\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port, r.User = 1, "u" }},
		"target wins":      {"User u\nPort 3\n", sshconfig.Target{Host: "h", User: "me2", Port: 9}, func(r *sshconfig.Settings) { r.Port, r.User = 9, "me2" }},
		"negation":         {"Host !h *\nPort 7\nHost h !x\nPort 8\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 8 }},
		"wildcards":        {"Host a*\nPort 1\nHost h?\nPort 2\nHost ?\nPort 3\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 3 }},
		"case, tabs, equals": {"HOST\th\n\tpOrT = 5 # comment\nuser=\"a b\"\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {
			r.Port, r.User = 5, "a b"
		}},
		"missing newline, CRLF": {"Host h\r\nPort 5\r\nUser x", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port, r.User = 5, "x" }},
		"hostname tokens":       {"HostName %h.example.COM\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.HostName = "h.example.com" }},
		"hash in a word":        {"User a#b\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.User = "a#b" }},
		"hash in quotes":        {"User \"a #b\" # c\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.User = "a #b" }},
		"identity files": {"User u\nIdentityFile ~/k1\nIdentityFile %d/k2-%h-%r-%n-%p\nHost *\nIdentityFile \"/k 3\"\nIdentityFile ~/k1\nIdentitiesOnly yes\n", sshconfig.Target{Host: "h"},
			func(r *sshconfig.Settings) {
				r.User, r.IdentitiesOnly = "u", true
				r.IdentityFiles = []string{"$HOME/k1", "$HOME/k2-h-u-h-22", "/k 3"}
			}},
		"identity none": {"IdentityFile none\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.IdentityFiles = nil }},
		"key file":      {"IdentityFile ~/k\n", sshconfig.Target{Host: "h", KeyFile: "~/mine"}, func(r *sshconfig.Settings) { r.IdentityFiles, r.KeyFile = []string{"$HOME/k"}, "$HOME/mine" }},
		"certificate":   {"CertificateFile ~/c.pub\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.CertificateFiles = []string{"$HOME/c.pub"} }},
		"known hosts": {"UserKnownHostsFile ~/a \"/b c\"\nGlobalKnownHostsFile /g\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {
			r.KnownHosts = []string{"$HOME/a", "/b c", "/g"}
		}},
		"known hosts none": {"UserKnownHostsFile none\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {
			r.KnownHosts = append([]string{"/dev/null"}, r.KnownHosts[2:]...)
		}},
		"strict yes": {"StrictHostKeyChecking yes\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.StrictHostKeys = "yes" }},
		"strict no":  {"StrictHostKeyChecking no\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.StrictHostKeys = "accept-new" }},
		"time values": {"ConnectTimeout 1m30\nServerAliveInterval 5\nServerAliveCountMax 7\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {
			r.ConnectTimeout, r.KeepAlive, r.KeepAliveCountMax = 90*time.Second, 5*time.Second, 7
		}},
		"HostKeyAlias, HashKnownHosts": {"HostKeyAlias x\nHashKnownHosts yes\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.HostKeyAlias, r.HashKnownHosts = "x", true }},
		"proxy command": {"ProxyCommand nc -q0 %h %p %r %% # comment\nProxyJump j\n", sshconfig.Target{Host: "h", User: "u"}, func(r *sshconfig.Settings) {
			r.User, r.ProxyCommand = "u", "nc -q0 h 22 u %"
		}},
		"proxy none":    {"Host h\nProxyCommand none\nProxyJump none\nHost *\nProxyJump j\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) {}},
		"ipv6":          {"", sshconfig.Target{Host: "[2001:DB8::1]"}, func(r *sshconfig.Settings) { r.Alias, r.HostName = "2001:DB8::1", "2001:db8::1" }},
		"match host":    {"HostName real\nMatch host real\nPort 5\nMatch originalhost h\nUser x\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.HostName, r.Port, r.User = "real", 5, "x" }},
		"match negated": {"Match !host h\nPort 5\nMatch host !h,*\nPort 6\nMatch host *,!x\nPort 7\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 7 }},
		"match user":    {"Match user root localuser " + me.Username + "\nPort 5\n", sshconfig.Target{Host: "h", User: "root"}, func(r *sshconfig.Settings) { r.User, r.Port = "root", 5 }},
		"match all":     {"Match all\nPort 5\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 5 }},
		"match exec":    {"Match host h exec \"test %h = h\"\nPort 5\nMatch exec false\nUser no\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 5 }},
		"match tag":     {"Tag work\nMatch tagged w*\nPort 5\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 5 }},
		"match final":   {"Match final\nPort 5\nUser f\nHost h\nUser u\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port, r.User = 5, "u" }},
		"match unsupported": {"Match canonical\nPort 1\nMatch !canonical\nPort 2\nMatch localnetwork 10.0.0.0/8\nPort 3\nMatch from-the-future x\nPort 4\nMatch\nPort 6\nHost *\nPort 5\n",
			sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.Port = 5 }},
		"IdentityAgent": {"IdentityAgent ~/sock\n", sshconfig.Target{Host: "h"}, func(r *sshconfig.Settings) { r.IdentityAgent = "$HOME/sock" }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			home := t.TempDir()
			want := sshconfig.Settings{
				Alias: "h", HostName: "h", User: me.Username, Port: 22, StrictHostKeys: "ask", KeepAliveCountMax: 3,
				IdentityFiles: []string{"$HOME/.ssh/id_rsa", "$HOME/.ssh/id_ecdsa", "$HOME/.ssh/id_ed25519"},
				KnownHosts: []string{"$HOME/.ssh/known_hosts", "$HOME/.ssh/known_hosts2",
					"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
			}
			c.want(&want)
			want.KeyFile, want.IdentityAgent = strings.Replace(want.KeyFile, "$HOME", home, 1), strings.Replace(want.IdentityAgent, "$HOME", home, 1)
			for _, list := range [][]string{want.IdentityFiles, want.CertificateFiles, want.KnownHosts} {
				for i := range list {
					list[i] = strings.Replace(list[i], "$HOME", home, 1)
				}
			}
			file := filepath.Join(home, "config")
			config := c.config
			if !strings.Contains(config, "IdentityAgent") {
				config += "\nHost *\nIdentityAgent none\n"
			}
			if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := resolve(sshconfig.Options{Home: home, Files: []string{file}}, c.target)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("Resolve(%+v) with config %q differs (-want +got):\n%s", c.target, config, diff)
			}
		})
	}
}

func TestResolveErrors(t *testing.T) {
	t.Parallel()
	for config, want := range map[string]string{
		"Port 0\n":                          "Port",
		"Port 70000\n":                      "Port",
		"ConnectTimeout soon\n":             "ConnectTimeout",
		"ServerAliveCountMax x\n":           "ServerAliveCountMax",
		"IdentityFile ~/%Q\n":               "%Q",
		"IdentityFile ~/x%\n":               "single %",
		"IdentityFile ${NO_SUCH_VAR_X}/k\n": "NO_SUCH_VAR_X",
		"ProxyJump a:b:c,\n":                "ProxyJump",
		"ProxyJump host:99999\n":            "ProxyJump",
		"ProxyCommand nc %Z\n":              "%Z",
		"Include loop\n":                    "nested Include",
	} {
		home := t.TempDir()
		if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(home, ".ssh", "loop"), []byte("Include loop\n"), 0o600)
		file := filepath.Join(home, "config")
		os.WriteFile(file, []byte(config), 0o600)
		_, err := resolve(sshconfig.Options{Home: home, Files: []string{file}}, sshconfig.Target{Host: "h"})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Resolve() with config %q returned error %v, want an error containing %q", config, err, want)
		}
	}
}

func TestInclude(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	for name, text := range map[string]string{
		".ssh/config":          "Include conf.d/*.conf ~/more\nHost outer\n  Include inner\nHost *\n  Port 99\n",
		".ssh/conf.d/a.conf":   "Host gpu-2 gpu-1\nPort 1\n",
		".ssh/conf.d/b.conf":   "Host gpu-1 gpu-*\nPort 2\nHost cpu-1\nPort 3\n",
		".ssh/conf.d/c.ignore": "Host gpu-1\nPort 4\n",
		"more":                 "Host gpu-3 !gpu-4\nUser three\n",
		".ssh/inner":           "Port 5\nHost other\nPort 6\n",
	} {
		path := filepath.Join(home, name)
		os.MkdirAll(filepath.Dir(path), 0o700)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := mustLoad(t, sshconfig.Options{Home: home})
	for host, port := range map[string]int{"gpu-1": 1, "gpu-9": 2, "cpu-1": 3, "outer": 5, "other": 99, "x": 99} {
		r, err := c.Resolve(sshconfig.Target{Host: host})
		if err != nil || r.Port != port {
			t.Errorf("Resolve(%s) has port %d, error %v, want port %d", host, r.Port, err, port)
		}
	}
	for pattern, want := range map[string][]string{
		"gpu-*": {"gpu-1", "gpu-2", "gpu-3"}, "gpu-?": {"gpu-1", "gpu-2", "gpu-3"}, "*": {"cpu-1", "gpu-1", "gpu-2", "gpu-3", "other", "outer"},
		"cpu-1": {"cpu-1"}, "x*": nil,
	} {
		if got := c.Hosts(pattern); !slices.Equal(got, want) {
			t.Errorf("Hosts(%q) = %q, want %q", pattern, got, want)
		}
	}
}

func TestResolveJump(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	os.MkdirAll(filepath.Join(home, ".ssh"), 0o700)
	config := `
Host a
  HostName a.example
  User ua
Host b
  Port 2222
  ProxyJump a
Host c
  ProxyJump x@[::1]:77,b
Host loop1
  ProxyJump loop2
Host loop2
  ProxyJump loop1
Host v6
  ProxyJump fe80::1
Host *
  User u
  ProxyJump b
`
	os.WriteFile(filepath.Join(home, ".ssh/config"), []byte(config), 0o600)
	c := mustLoad(t, sshconfig.Options{Home: home})
	for host, want := range map[string]string{
		"b": "ua@a.example:22", "z": "ua@a.example:22 u@b:2222", "a": "u@b:2222", "c": "ua@a.example:22 u@b:2222 x@[::1]:77 u@b:2222",
		"loop1": "u@loop2:22", "v6": "ua@a.example:22 u@b:2222 u@[fe80::1]:22",
	} {
		r, err := c.Resolve(sshconfig.Target{Host: host})
		if err != nil {
			t.Errorf("Resolve(%s) = %v, want no error", host, err)
			continue
		}
		var route []string
		for _, hop := range r.Jump {
			route = append(route, hop.Address())
		}
		if got := strings.Join(route, " "); got != want {
			t.Errorf("Resolve(%s) has jump hosts %q, want %q", host, got, want)
		}
	}
}

// TestResolveMatchesSSH compares the results with the output of ssh -G.
func TestResolveMatchesSSH(t *testing.T) {
	t.Parallel()
	ssh, err := exec.LookPath("ssh")
	if err != nil {
		t.Skip("ssh is not installed")
	}
	home := t.TempDir()
	file := filepath.Join(home, "config")
	config := `
Host a b*
  HostName %h.example
  Port 2201
Host b? !bb
  Port 2202
Match host *.example user deploy
  Port 2203
Match originalhost c,d*
  User "cd"
  HostName=other # with a comment
Match exec "test %h = other"
  Port 2204
Match host x* !user root
  User x
Host "quoted name" e
  User q
Host *
  User deploy
  Port 2205
`
	os.WriteFile(file, []byte(config), 0o600)
	c := mustLoad(t, sshconfig.Options{Home: home, Files: []string{file}})
	for _, host := range []string{"a", "b", "b1", "bb", "bcd", "c", "d", "ddd", "x1", "xroot", "e", "f"} {
		text, err := exec.Command(ssh, "-G", "-F", file, host).Output()
		if err != nil {
			t.Fatalf("ssh -G: %v", err)
		}
		values := map[string]string{}
		for line := range strings.Lines(string(text)) {
			k, v, _ := strings.Cut(strings.TrimSpace(line), " ")
			if values[k] == "" {
				values[k] = v
			}
		}
		r, err := c.Resolve(sshconfig.Target{Host: host})
		if err != nil {
			t.Fatal(err)
		}
		want := sshconfig.Target{Host: values["hostname"], User: values["user"]}.String() + ":" + values["port"]
		if got := r.Address(); got != want {
			t.Errorf("Resolve(%s) = %s, want %s, the result of ssh -G", host, got, want)
		}
	}
}

func FuzzResolve(f *testing.F) {
	for _, seed := range []string{
		"Host a\nPort 1\n", "Match host x exec true\n", "Include *\n", "Host \"a\n", "=\n", "Host=h\n#c\n", "Match !all\nPort x", "IdentityFile %\n",
		"ProxyJump a,b@c:1\n", "User ${HOME}\n", "\x00", "Host h\tx\n\tPort\t3", "a=b=c", "\r\r\n", "UserKnownHostsFile ~x/y ''\n", "ConnectTimeout 99999999999w\n",
	} {
		f.Add(seed, "h")
	}
	f.Fuzz(func(t *testing.T, config, host string) {
		if strings.Contains(strings.ToLower(config), "exec") || strings.Contains(strings.ToLower(config), "include") {
			return // do not run commands or read files of this machine
		}
		home := t.TempDir()
		file := filepath.Join(home, "config")
		if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := sshconfig.Load(sshconfig.Options{Home: home, Files: []string{file}})
		if err != nil {
			return
		}
		c.Hosts("*")
		r, err := c.Resolve(sshconfig.Target{Host: host})
		if err == nil && (r.Port < 1 || r.Port > 65535 || r.ConnectTimeout < 0 || r.KeepAlive < 0) {
			t.Errorf("Resolve(%q) with config %q = %+v, want a valid port and no negative times", host, config, r)
		}
	})
}
