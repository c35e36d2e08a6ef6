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

// planOf returns the plan of a command line.
func planOf(t *testing.T, m machine, env []string, args ...string) servicePlan {
	t.Helper()
	a := newApp(Process{Env: append([]string{"HOME=/home/bee"}, env...), Stdout: io.Discard, Stderr: io.Discard})
	parser, err := newParser(&a.grammar, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parser.Parse(append([]string{"serve", "--install"}, args...)); err != nil {
		t.Fatalf("Parse(%q) = %v, want nil", args, err)
	}
	paths, err := pkgmgr.DefaultPaths(a.p.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	return a.grammar.Serve.plan(a, paths, m)
}

var linux = machine{"linux", 1000}

// TestServiceKeepsAllFlags checks all flags of serve, including the global ones.
func TestServiceKeepsAllFlags(t *testing.T) {
	t.Parallel()
	ignored := []string{"help", "install", "uninstall", "queen", "json", "no-color"} // they have no effect on a service
	a := newApp(Process{})
	parser, err := newParser(&a.grammar, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]string{"addr": "127.0.0.1:1", "idle": "3m0s", "timeout": "7s"}
	absolute, err := filepath.Abs("x")
	if err != nil {
		t.Fatal(err)
	}
	flags := 0
	for _, node := range parser.Model.Leaves(false) {
		if node.Path() != "serve" {
			continue
		}
		for _, group := range node.AllFlags(false) {
			for _, flag := range group {
				if slices.Contains(ignored, flag.Name) {
					continue
				}
				flags++
				given, want := []string{"--" + flag.Name}, "--"+flag.Name
				if !flag.IsBool() {
					value := values[flag.Name]
					switch {
					case value != "":
						want += " " + value
					case strings.Contains(flag.PlaceHolder, "FILE") || flag.PlaceHolder == "DIR":
						value, want = "x", want+" "+absolute
					default:
						value, want = "x", want+" x"
					}
					given = append(given, value)
				}
				if got := strings.Join(planOf(t, linux, nil, given...).args, " "); !strings.Contains(got, want) {
					t.Errorf("plan of %s has arguments %q, want %q in them", strings.Join(given, " "), got, want)
				}
			}
		}
	}
	if flags < 14 {
		t.Errorf("checked %d flags, want at least 14", flags)
	}
	if got := planOf(t, linux, []string{"RBEE_CONFIG=/etc/h.conf"}).args; !slices.Contains(got, "/etc/h.conf") {
		t.Errorf("plan with RBEE_CONFIG has arguments %q, want the config", got)
	}
}

func TestServiceEnvironment(t *testing.T) {
	t.Parallel()
	mac := machine{"darwin", 501}
	for name, test := range map[string]struct {
		machine machine
		env     string
		copied  string // names of the copied variables
		warning string // part of the only warning; empty: no warning
	}{
		"paths":                           {linux, "XDG_STATE_HOME=/x RBEE_HOME=/r HTTPS_PROXY=http://proxy:3128", "HTTPS_PROXY RBEE_HOME XDG_STATE_HOME", ""},
		"mirrors":                         {linux, "UV_INDEX_URL=https://i/simple PIP_INDEX_URL=https://p RBEE_RELEASE_URL=https://r GITHUB_API_URL=https://g GITHUB_DOWNLOAD_URL=https://d", "GITHUB_API_URL GITHUB_DOWNLOAD_URL PIP_INDEX_URL RBEE_RELEASE_URL UV_INDEX_URL", ""},
		"other variables":                 {linux, "EDITOR=vi RBEE_API_KEY=rbee_1 HF_TOKEN=hf_1 RBEE_QUEEN=http://q", "", ""},
		"token":                           {linux, "GITHUB_TOKEN=ghp_secret", "", "systemctl --user edit rbee-queen"},
		"token, macOS":                    {mac, "GITHUB_TOKEN=ghp_secret", "", "launchctl setenv GITHUB_TOKEN"},
		"password":                        {linux, "PIP_INDEX_URL=https://me:secret@index/simple", "", "PIP_INDEX_URL contains a password"},
		"invalid URL":                     {linux, "HTTP_PROXY=http://me:secret%@proxy", "", "HTTP_PROXY contains a password"},
		"agent, runtime":                  {linux, "SSH_AUTH_SOCK=/run/user/1000/keyring/ssh", "SSH_AUTH_SOCK", ""},
		"agent, home":                     {linux, "SSH_AUTH_SOCK=/home/bee/.1password/agent.sock", "SSH_AUTH_SOCK", ""},
		"agent, forwarded":                {linux, "SSH_AUTH_SOCK=/tmp/ssh-XYZ/agent.12", "", "ends with this login"},
		"agent, forwarded by recent sshd": {linux, "SSH_AUTH_SOCK=/home/bee/.ssh/agent/s.XYZ.sshd.12", "", "ends with this login"},
		"agent, other user":               {linux, "SSH_AUTH_SOCK=/run/user/10001/ssh", "", "ends with this login"},
		"agent, launchd":                  {mac, "SSH_AUTH_SOCK=/private/tmp/com.apple.launchd.xyz/Listeners", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := planOf(t, test.machine, strings.Fields(test.env))
			if got := strings.Join(slices.Sorted(maps.Keys(p.env)), " "); got != test.copied {
				t.Errorf("plan copies %q, want %q", got, test.copied)
			}
			var warnings strings.Builder
			for _, w := range p.warnings {
				warnings.WriteString(w.text + "\n" + w.hint + "\n")
			}
			if len(p.warnings) > 1 || !strings.Contains(warnings.String(), test.warning) || test.warning == "" && warnings.Len() > 0 {
				t.Errorf("plan warns %q, want %q", &warnings, test.warning)
			}
			if text := p.service("/rbee", pkgmgr.Paths{}).Unit() + warnings.String(); strings.Contains(text, "secret") && !strings.Contains(text, "is a secret") {
				t.Errorf("Unit() and warnings = %s, want no secret", text)
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
			t.Errorf("Unit() =\n%s\nwant the line %s", strings.Join(lines, "\n"), want)
		}
	}
}

func TestServeRejectsQueenFlag(t *testing.T) {
	t.Parallel()
	var stderr strings.Builder
	code := Run(context.Background(), Process{
		Args: []string{"serve", "--queen", "http://127.0.0.1:1"}, Env: []string{"HOME=" + t.TempDir()},
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: &stderr,
	})
	if code != exitUsage || !strings.Contains(stderr.String(), "serve and --queen cannot be combined") {
		t.Errorf("serve --queen exits with %d and prints %s, want exit code 64", code, &stderr)
	}
}
