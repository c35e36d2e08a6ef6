package hive

import (
	"context"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// commands stands for the programs of the system and notes what is run.
type commands struct {
	mu    sync.Mutex
	lines []string
	fail  func(line string) bool
}

func (c *commands) run(_ context.Context, argv ...string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	line := strings.Join(argv, " ")
	c.lines = append(c.lines, line)
	if c.fail != nil && c.fail(line) {
		return "", errors.New(line + ": failed")
	}
	return "", nil
}

// told returns what was run since it was asked last.
func (c *commands) told() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	c.lines = nil
	return lines
}

func TestUnitText(t *testing.T) {
	t.Parallel()
	for home, want := range map[string][]string{
		"/home/a/.local/share/rbee": {
			`ExecStart=/bin/sh -c "exec \"$$0\" hive serve" "/home/a/.local/share/rbee/bin/rbee"`,
			`Environment="RBEE_HOME=/home/a/.local/share/rbee" RBEE_SUPERVISOR=systemd`,
			`Environment="HF_HOME=/home/a/.local/share/rbee"`, `Environment="NO_PROXY=a, b"`,
			`StandardOutput=append:/home/a/.local/share/rbee/logs/hive.log`,
			"KillMode=process", "Restart=on-failure", "WantedBy=default.target",
		},
		"/a b/50%/$x": {
			`ExecStart=/bin/sh -c "exec \"$$0\" hive serve" "/a b/50%%/$$x/bin/rbee"`,
			`Environment="RBEE_HOME=/a b/50%%/$x" RBEE_SUPERVISOR=systemd`,
			`Environment="HF_HOME=/a b/50%%/$x"`,
			`StandardOutput=append:/a b/50%%/$x/logs/hive.log`,
		},
		`/q"u'o\te`: {
			`ExecStart=/bin/sh -c "exec \"$$0\" hive serve" "/q\"u'o\\te/bin/rbee"`,
			`Environment="RBEE_HOME=/q\"u'o\\te" RBEE_SUPERVISOR=systemd`,
			`Environment="HF_HOME=/q\"u'o\\te"`,
			`StandardOutput=append:/q"u'o\te/logs/hive.log`,
		},
	} {
		lines := strings.Split(unitText(home, []string{"HF_HOME=" + home, "NO_PROXY=a, b"}), "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("%s: no line %s in\n%s", home, line, strings.Join(lines, "\n"))
			}
		}
	}
}

// What was written is what an XML parser reads, whatever the home is called.
func TestPlistText(t *testing.T) {
	t.Parallel()
	for _, home := range []string{"/Users/a/.local/share/rbee", `/Users/a & b/<x>/"q"/'s'/ü`, "/]]>/%@$"} {
		text := plistText("rbee.hive", home, []string{"HF_HOME=" + home})
		var words []string
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v in\n%s", home, err, text)
			}
			switch token := token.(type) {
			case xml.CharData:
				if word := strings.TrimSpace(string(token)); word != "" {
					words = append(words, word)
				}
			case xml.StartElement:
				if name := token.Name.Local; name == "true" || name == "false" {
					words = append(words, name)
				}
			}
		}
		want := []string{
			"Label", "rbee.hive", "ProgramArguments", home + "/bin/rbee", "hive", "serve",
			"EnvironmentVariables", "RBEE_HOME", home, "RBEE_SUPERVISOR", "launchd", "HF_HOME", home, "WorkingDirectory", "/",
			"StandardOutPath", home + "/logs/hive.log", "StandardErrorPath", home + "/logs/hive.log",
			"RunAtLoad", "true", "KeepAlive", "SuccessfulExit", "false",
			"ThrottleInterval", "2", "ExitTimeOut", "10", "AbandonProcessGroup", "true",
		}
		if !slices.Equal(words, want) {
			t.Errorf("%s: got %q", home, words)
		}
	}
}

// The daemon of a service manager looks for models where commands do that need no
// daemon, and no secret is in the service's file.
//
//nolint:paralleltest // it sets the environment
func TestServiceEnvironment(t *testing.T) {
	for name, value := range map[string]string{
		"HF_HOME": "/big disk/hf", "HF_HUB_CACHE": "/hub", "HF_ENDPOINT": "https://mirror", "HF_TOKEN_PATH": "/secrets/token",
		"HTTPS_PROXY": "http://proxy:3128", "http_proxy": "http://me:secret@proxy:3128", "LC_ALL": "ca_ES.UTF-8@valencia", "NO_PROXY": "a\nExecStart=x", "HF_TOKEN": "secret",
	} {
		t.Setenv(name, value)
	}
	for supervisor, file := range map[string]string{
		SupervisorSystemd: ".config/systemd/user/rbee-hive.service", SupervisorLaunchd: "Library/LaunchAgents/rbee.hive.plist",
	} {
		h, c := newHive(t), &commands{}
		h.Supervisor, h.command = supervisor, c.run
		if _, err := h.supervisor(t.Context()).start(t.Context(), true); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(h.UserHome, file))
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(filepath.Join(h.UserHome, file)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: the file is %v, %v", supervisor, info, err)
		}
		text := string(data)
		for _, want := range []string{"HF_HOME", "/big disk/hf", "HF_HUB_CACHE", "HF_ENDPOINT", "https://mirror", "HF_TOKEN_PATH", "/secrets/token", "HTTPS_PROXY", "http://proxy:3128", "ca_ES.UTF-8@valencia"} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %s in\n%s", supervisor, want, text)
			}
		}
		for _, never := range []string{"me:secret", "HF_TOKEN=", "HF_TOKEN<", "NO_PROXY", "ExecStart=x"} {
			if strings.Contains(text, never) {
				t.Errorf("%s: %s in\n%s", supervisor, never, text)
			}
		}
	}
}

func TestMayBeSecret(t *testing.T) {
	t.Parallel()
	for v, want := range map[string]bool{
		"HTTP_PROXY=http://proxy:3128": false, "http_proxy=http://me:secret@proxy:3128": true, "HTTPS_PROXY=me:secret@proxy": true,
		"HTTPS_PROXY=http://TOKEN@proxy:3128": true, "https_proxy=http://me:sec/ret@proxy": true, "HF_ENDPOINT=https://TOKEN@mirror": true,
		"NO_PROXY=localhost,10.0.0.0/8": false, "HF_HOME=/a/b:c@d": false, "LANG=de_DE@euro": false,
	} {
		if name, value, _ := strings.Cut(v, "="); mayBeSecret(name, value) != want {
			t.Errorf("%s: %t", v, !want)
		}
	}
}

func TestServiceName(t *testing.T) {
	t.Parallel()
	usual := &Hive{Home: "/home/a/.local/share/rbee"}
	one, two := &Hive{Home: "/srv/one"}, &Hive{Home: "/srv/two"}
	if got := usual.serviceName("rbee-hive", "/home/a"); got != "rbee-hive" {
		t.Errorf("usual home: %q", got)
	}
	a, b := one.serviceName("rbee-hive", "/home/a"), two.serviceName("rbee-hive", "/home/a")
	if a == b || !strings.HasPrefix(a, "rbee-hive-") || len(a) != len("rbee-hive-")+8 {
		t.Errorf("other homes: %q, %q", a, b)
	}
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	h, c := newHive(t), &commands{}
	h.Supervisor, h.command = SupervisorSystemd, c.run
	if err := os.Mkdir(filepath.Join(h.UserHome, ".config"), 0o700); err != nil { // the user's own
		t.Fatal(err)
	}
	s := h.supervisor(t.Context())
	if _, err := s.start(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	got := c.told()
	lingering := slices.Contains(got, "loginctl enable-linger")
	got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "loginctl") })
	if want := []string{
		"systemctl --user daemon-reload", "systemctl --user enable rbee-hive.service", "systemctl --user restart rbee-hive.service",
	}; !slices.Equal(got, want) {
		t.Errorf("start ran %q", got)
	}
	dir := filepath.Join(h.UserHome, ".config/systemd/user")
	text, err := os.ReadFile(filepath.Join(dir, "rbee-hive.service"))
	if err != nil || string(text) != unitText(h.Home, written(passedOn())) {
		t.Errorf("unit: %s, %v", text, err)
	}
	if err := os.Mkdir(filepath.Join(dir, "default.target.wants"), 0o700); err != nil { // by systemctl enable
		t.Fatal(err)
	}
	if _, err := s.start(t.Context(), false); err != nil { // a second start must not forget what the first one made
		t.Fatal(err)
	}
	if got := c.told(); !slices.Contains(got, "systemctl --user disable rbee-hive.service") {
		t.Errorf("second start ran %q", got)
	}
	if note, err := h.Stop(t.Context()); err != nil || note != "was not running" {
		t.Errorf("stop: %q, %v", note, err)
	}
	if got := c.told(); !slices.Equal(got, []string{"systemctl --user stop rbee-hive.service"}) {
		t.Errorf("stop ran %q", got)
	}
	if err := h.removeUnits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.told(); slices.Contains(got, "loginctl disable-linger") != lingering {
		t.Errorf("remove ran %q, linger enabled before: %v", got, lingering)
	}
	if left, err := os.ReadDir(filepath.Join(h.UserHome, ".config")); err != nil || len(left) != 0 {
		t.Errorf("left in .config: %v, %v", left, err)
	}
	if err := h.removeUnits(t.Context()); err != nil || len(c.told()) != 0 {
		t.Errorf("nothing to remove: %v", err)
	}
}

func TestLaunchd(t *testing.T) {
	t.Parallel()
	h, c := newHive(t), &commands{}
	busy := 2
	c.fail = func(line string) bool {
		if strings.HasPrefix(line, "launchctl bootstrap") {
			busy--
		}
		return busy >= 0 && strings.HasPrefix(line, "launchctl bootstrap")
	}
	h.Supervisor, h.command = SupervisorLaunchd, c.run
	l := h.supervisor(t.Context())
	if _, err := l.start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.UserHome, "Library/LaunchAgents/rbee.hive.plist")
	target, load := guiDomain()+"/rbee.hive", "launchctl bootstrap "+guiDomain()+" "+path
	if got := c.told(); !slices.Equal(got, []string{"launchctl enable " + target, load, load, load, "launchctl disable " + target}) {
		t.Errorf("start ran %q", got)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != plistText("rbee.hive", h.Home, written(passedOn())) {
		t.Errorf("plist: %s, %v", text, err)
	}
	if err := h.stopUnits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.told(); !slices.Equal(got, []string{"launchctl print " + target, "launchctl bootout " + target}) {
		t.Errorf("stop ran %q", got)
	}
	c.fail = func(line string) bool { return strings.HasPrefix(line, "launchctl print") } // not loaded
	if err := h.stopUnits(t.Context()); err != nil || len(c.told()) != 1 {
		t.Errorf("stop of what is not loaded: %v", err)
	}
	if err := h.removeUnits(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(h.UserHome, "Library")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Library is left: %v", err)
	}
}

// A full directory, and one that rbee did not make, stay.
func TestRemoveServiceLeavesTheUsers(t *testing.T) {
	t.Parallel()
	h := newHive(t)
	path := filepath.Join(h.UserHome, "a/b/c/rbee.service")
	other := filepath.Join(filepath.Dir(h.UserHome), "outside")
	if err := errors.Join(os.Mkdir(filepath.Join(h.UserHome, "a"), 0o700), os.MkdirAll(other, 0o700), h.writeService(path, "x")); err != nil {
		t.Fatal(err)
	}
	rec := h.supervision()
	rec.MadeDirs = append(rec.MadeDirs, other, h.UserHome) // never rbee's to remove
	if err := errors.Join(atomicfile.WriteJSON(h.path(supervisorFile), rec), os.WriteFile(filepath.Join(h.UserHome, "a/b/mine"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := h.removeService(path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{filepath.Join(h.UserHome, "a/b/c"): false, filepath.Join(h.UserHome, "a/b"): true, other: true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("%s: %v, want it there: %v", name, err, want)
		}
	}
}

// A home directory that is not the account's own is none of the manager's.
func TestOtherHomeIsDetached(t *testing.T) {
	t.Parallel()
	h, c := newHive(t), &commands{}
	h.Supervisor, h.command = "", c.run
	if got := h.supervisor(t.Context()).name(); got != SupervisorNone || len(c.told()) != 0 {
		t.Errorf("picked %q", got)
	}
	h.Home = "/a\nExecStart=x"
	if _, err := h.Inspect(t.Context(), InspectOptions{}); err == nil || !strings.Contains(err.Error(), "control") {
		t.Errorf("home with a line break: %v", err)
	}
}

// A manager that does not answer, such as that of a Mac with nobody at its
// screen, leaves the daemon to itself.
func TestBestSupervisor(t *testing.T) {
	t.Parallel()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		goos, asked, want string
		fails             bool
	}{
		{"linux", "systemctl --user show-environment", SupervisorSystemd, false},
		{"linux", "systemctl --user show-environment", SupervisorNone, true},
		{"darwin", "launchctl print " + guiDomain(), SupervisorLaunchd, false},
		{"darwin", "launchctl print " + guiDomain(), SupervisorNone, true},
		{"freebsd", "", SupervisorNone, false},
	} {
		c := &commands{fail: func(string) bool { return tt.fails }}
		h := &Hive{UserHome: u.HomeDir, command: c.run}
		got := h.bestSupervisor(t.Context(), tt.goos)
		if asked := strings.Join(c.told(), "\n"); got != tt.want || asked != tt.asked {
			t.Errorf("%+v: got %q, asked %q", tt, got, asked)
		}
	}
}
