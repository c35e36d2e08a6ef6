package cli

import (
	"context"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr"
)

// planned is the plan that a command line makes on a Linux machine with user 1000.
func planned(t *testing.T, m machine, env []string, args ...string) servicePlan {
	t.Helper()
	a := newApp(Process{Env: append([]string{"HOME=/home/bee"}, env...), Stdout: io.Discard, Stderr: io.Discard})
	parser, err := newParser(&a.grammar, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"serve", "--install"}, args...)); err != nil {
		t.Fatal(args, err)
	}
	paths, err := pkgmgr.DefaultPaths(a.p.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	return a.grammar.Serve.plan(a, paths, m)
}

var linux = machine{"linux", 1000}

// TestServiceKeepsEveryFlag goes over all flags that serve takes, its own and those of
// every command.
func TestServiceKeepsEveryFlag(t *testing.T) {
	t.Parallel()
	none := []string{"help", "install", "uninstall", "queen", "json", "no-color"} // a service has no terminal and no result
	a := newApp(Process{})
	parser, err := newParser(&a.grammar, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"addr": "127.0.0.1:1", "idle": "3m0s", "timeout": "7s"}
	here, err := filepath.Abs("x")
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, node := range parser.Model.Leaves(false) {
		if node.Path() != "serve" {
			continue
		}
		for _, group := range node.AllFlags(false) {
			for _, flag := range group {
				if slices.Contains(none, flag.Name) {
					continue
				}
				seen++
				given, want := []string{"--" + flag.Name}, "--"+flag.Name
				if !flag.IsBool() {
					value := values[flag.Name]
					switch {
					case value != "":
						want += " " + value
					case strings.Contains(flag.PlaceHolder, "FILE") || flag.PlaceHolder == "DIR":
						value, want = "x", want+" "+here
					default:
						value, want = "x", want+" x"
					}
					given = append(given, value)
				}
				if got := strings.Join(planned(t, linux, nil, given...).args, " "); !strings.Contains(got, want) {
					t.Errorf("%s becomes %q", strings.Join(given, " "), got)
				}
			}
		}
	}
	if seen < 14 {
		t.Errorf("only %d flags were seen", seen)
	}
	if got := planned(t, linux, []string{"RBEE_CONFIG=/etc/h.conf"}).args; !slices.Contains(got, "/etc/h.conf") {
		t.Errorf("RBEE_CONFIG is lost: %q", got)
	}
}

func TestServiceEnvironment(t *testing.T) {
	t.Parallel()
	mac := machine{"darwin", 501}
	for name, test := range map[string]struct {
		machine machine
		env     string
		carried string
		caution string // part of the one there is; empty: none
	}{
		"paths":                          {linux, "XDG_STATE_HOME=/x RBEE_HOME=/r HTTPS_PROXY=http://proxy:3128", "HTTPS_PROXY RBEE_HOME XDG_STATE_HOME", ""},
		"mirrors":                        {linux, "UV_INDEX_URL=https://i/simple PIP_INDEX_URL=https://p RBEE_RELEASE_URL=https://r GITHUB_API_URL=https://g GITHUB_DOWNLOAD_URL=https://d", "GITHUB_API_URL GITHUB_DOWNLOAD_URL PIP_INDEX_URL RBEE_RELEASE_URL UV_INDEX_URL", ""},
		"not the queen's":                {linux, "EDITOR=vi RBEE_API_KEY=rbee_1 HF_TOKEN=hf_1 RBEE_QUEEN=http://q", "", ""},
		"a token":                        {linux, "GITHUB_TOKEN=ghp_secret", "", "systemctl --user edit rbee-queen"},
		"a token, mac":                   {mac, "GITHUB_TOKEN=ghp_secret", "", "launchctl setenv GITHUB_TOKEN"},
		"a password":                     {linux, "PIP_INDEX_URL=https://me:secret@index/simple", "", "PIP_INDEX_URL holds a password"},
		"a broken one":                   {linux, "HTTP_PROXY=http://me:secret%@proxy", "", "HTTP_PROXY holds a password"},
		"agent, runtime":                 {linux, "SSH_AUTH_SOCK=/run/user/1000/keyring/ssh", "SSH_AUTH_SOCK", ""},
		"agent, home":                    {linux, "SSH_AUTH_SOCK=/home/bee/.1password/agent.sock", "SSH_AUTH_SOCK", ""},
		"agent, forwarded":               {linux, "SSH_AUTH_SOCK=/tmp/ssh-XYZ/agent.12", "", "ends with this login"},
		"agent, forwarded by a new sshd": {linux, "SSH_AUTH_SOCK=/home/bee/.ssh/agent/s.XYZ.sshd.12", "", "ends with this login"},
		"agent, another user's":          {linux, "SSH_AUTH_SOCK=/run/user/10001/ssh", "", "ends with this login"},
		"agent, launchd":                 {mac, "SSH_AUTH_SOCK=/private/tmp/com.apple.launchd.xyz/Listeners", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planned(t, test.machine, strings.Fields(test.env))
			if got := strings.Join(slices.Sorted(maps.Keys(p.env)), " "); got != test.carried {
				t.Errorf("carried %q, want %q", got, test.carried)
			}
			var told strings.Builder
			for _, c := range p.cautions {
				told.WriteString(c.text + "\n" + c.hint + "\n")
			}
			if len(p.cautions) > 1 || !strings.Contains(told.String(), test.caution) || test.caution == "" && told.Len() > 0 {
				t.Errorf("told %q, want %q", &told, test.caution)
			}
			if text := p.service("/rbee", pkgmgr.Paths{}).Unit() + told.String(); strings.Contains(text, "secret") && !strings.Contains(text, "is a secret") {
				t.Errorf("a secret is told: %s", text)
			}
		})
	}
}

func TestServiceUnit(t *testing.T) {
	t.Parallel()
	p := servicePlan{
		args: []string{"serve", "--config", `/a b/50%/$x"y\z`}, env: map[string]string{"B": "2\n[Service]", "A": "100% $HOME"},
	}
	lines := strings.Split(p.service("/opt/r bee/rbee", pkgmgr.Paths{}).Unit(), "\n")
	for _, want := range []string{
		`ExecStart="/opt/r bee/rbee" "serve" "--config" "/a b/50%%/$$x\"y\\z"`,
		`Environment="A=100%% $HOME"`, `Environment="B=2\n[Service]"`, "Restart=on-failure", "TimeoutStopSec=45", "WantedBy=default.target",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("no line %s in\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

func TestServeIsNoClient(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	code := Run(context.Background(), Process{
		Args: []string{"serve", "--queen", "http://127.0.0.1:1"}, Env: []string{"HOME=" + t.TempDir()},
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr,
	})
	if code != exitUsage || !strings.Contains(stderr.String(), "--queen is for a queen that runs elsewhere") {
		t.Errorf("%d, %s", code, &stderr)
	}
}
