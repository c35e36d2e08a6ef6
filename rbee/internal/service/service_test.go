package service

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
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
)

// commands replaces the system programs. It records their command lines.
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

// take returns the command lines that were recorded since the previous call.
func (c *commands) take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	lines := c.lines
	c.lines = nil
	return lines
}

// hiveService returns the service of the hive daemon of the rbee directory home.
func hiveService(home string) *Service {
	return &Service{
		Name: "rbee-hive", Label: "rbee.hive", Description: "rbee hive daemon", Program: home + "/bin/rbee", Args: []string{"hive", "serve"},
		Env: []string{"RBEE_HOME=" + home}, Log: home + "/logs/hive.log", StopTimeout: 10 * time.Second, KeepChildren: true, SetManager: true,
	}
}

// newHiveService returns the service of the hive daemon of a temporary rbee directory, and
// the recorder of its commands.
func newHiveService(t *testing.T) (*Service, *commands) {
	t.Helper()
	userHome := t.TempDir()
	s, c := hiveService(filepath.Join(userHome, ".local/share/rbee")), &commands{}
	s.UserHome, s.Record, s.Command = userHome, filepath.Join(userHome, ".local/share/rbee/run/supervisor.json"), c.run
	return s, c
}

func TestUnitText(t *testing.T) {
	t.Parallel()
	for home, want := range map[string][]string{
		"/home/a/.local/share/rbee": {
			`ExecStart="/home/a/.local/share/rbee/bin/rbee" "hive" "serve"`,
			`Environment="RBEE_HOME=/home/a/.local/share/rbee"`, `Environment="RBEE_SUPERVISOR=systemd"`,
			`Environment="HF_HOME=/home/a/.local/share/rbee"`, `Environment="NO_PROXY=a, b"`,
			`StandardOutput=append:/home/a/.local/share/rbee/logs/hive.log`,
			"TimeoutStopSec=10", "KillMode=process", "Restart=on-failure", "WantedBy=default.target",
		},
		"/a b/50%/$x": {
			`ExecStart=/bin/sh -c "exec \"$$0\" \"$$@\"" "/a b/50%%/$$x/bin/rbee" "hive" "serve"`,
			`Environment="RBEE_HOME=/a b/50%%/$x"`, `Environment="RBEE_SUPERVISOR=systemd"`,
			`Environment="HF_HOME=/a b/50%%/$x"`,
			`StandardOutput=append:/a b/50%%/$x/logs/hive.log`,
		},
		`/q"u'o\te`: {
			`ExecStart=/bin/sh -c "exec \"$$0\" \"$$@\"" "/q\"u'o\\te/bin/rbee" "hive" "serve"`,
			`Environment="RBEE_HOME=/q\"u'o\\te"`, `Environment="RBEE_SUPERVISOR=systemd"`,
			`Environment="HF_HOME=/q\"u'o\\te"`,
			`StandardOutput=append:/q"u'o\te/logs/hive.log`,
		},
	} {
		s := hiveService(home)
		s.Inherited = []string{"HF_HOME=" + home, "NO_PROXY=a, b"}
		lines := strings.Split(s.Unit(), "\n")
		for _, line := range want {
			if !slices.Contains(lines, line) {
				t.Errorf("Unit() for %s =\n%s\nwant the line %s", home, strings.Join(lines, "\n"), line)
			}
		}
	}
}

// TestManagerVariable checks that only a daemon with SetManager gets ManagerVariable.
func TestManagerVariable(t *testing.T) {
	t.Parallel()
	for _, set := range []bool{false, true} {
		s := hiveService("/h")
		s.SetManager = set
		for name, text := range map[string]string{"Unit": s.Unit(), "Plist": s.Plist()} {
			if got := strings.Contains(text, ManagerVariable); got != set {
				t.Errorf("%s() with SetManager %t contains %s: %t, want %t\n%s", name, set, ManagerVariable, got, set, text)
			}
		}
	}
}

// TestPlistText checks that Plist escapes the special characters of XML.
func TestPlistText(t *testing.T) {
	t.Parallel()
	for _, home := range []string{"/Users/a/.local/share/rbee", `/Users/a & b/<x>/"q"/'s'/ü`, "/]]>/%@$"} {
		s := hiveService(home)
		s.Inherited = []string{"HF_HOME=" + home}
		text := s.Plist()
		var values []string
		for d := xml.NewDecoder(strings.NewReader(text)); ; {
			token, err := d.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("Plist() for %s: Token() = %v in\n%s", home, err, text)
			}
			switch token := token.(type) {
			case xml.CharData:
				if value := strings.TrimSpace(string(token)); value != "" {
					values = append(values, value)
				}
			case xml.StartElement:
				if name := token.Name.Local; name == "true" || name == "false" {
					values = append(values, name)
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
		if !slices.Equal(values, want) {
			t.Errorf("Plist() for %s has values %q, want %q", home, values, want)
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
			t.Errorf("mayBeSecret(%q, %q) = %t, want %t", name, value, !want, want)
		}
	}
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	h, c := newHiveService(t)
	h.Inherited = []string{"HF_HOME=/hf", "HTTPS_PROXY=me:secret@proxy"}
	if err := os.Mkdir(filepath.Join(h.UserHome, ".config"), 0o700); err != nil { // a directory that rbee did not create
		t.Fatal(err)
	}
	s := h.Manager(t.Context(), Systemd)
	if _, err := s.Start(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	got := c.take()
	lingering := slices.Contains(got, "loginctl enable-linger")
	got = slices.DeleteFunc(got, func(line string) bool { return strings.HasPrefix(line, "loginctl") })
	if want := []string{
		"systemctl --user daemon-reload", "systemctl --user enable rbee-hive.service", "systemctl --user restart rbee-hive.service",
	}; !slices.Equal(got, want) {
		t.Errorf("Start() ran %q, want %q", got, want)
	}
	dir := filepath.Join(h.UserHome, ".config/systemd/user")
	text, err := os.ReadFile(filepath.Join(dir, "rbee-hive.service"))
	if err != nil || string(text) != h.Unit() {
		t.Errorf("after Start(), the unit file contains %s, %v, want %s", text, err, h.Unit())
	}
	if err := os.Mkdir(filepath.Join(dir, "default.target.wants"), 0o700); err != nil { // as systemctl enable does
		t.Fatal(err)
	}
	if _, err := s.Start(t.Context(), false); err != nil { // must keep the directories that the first Start recorded
		t.Fatal(err)
	}
	if got := c.take(); !slices.Contains(got, "systemctl --user disable rbee-hive.service") {
		t.Errorf("the second Start() ran %q, want a command that disables the unit", got)
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop() = %v, want nil", err)
	}
	if got, want := c.take(), []string{"systemctl --user stop rbee-hive.service"}; !slices.Equal(got, want) {
		t.Errorf("Stop() ran %q, want %q", got, want)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := c.take(); slices.Contains(got, "loginctl disable-linger") != lingering {
		t.Errorf("Remove() ran %q, want loginctl disable-linger: %t", got, lingering)
	}
	if entries, err := os.ReadDir(filepath.Join(h.UserHome, ".config")); err != nil || len(entries) != 0 {
		t.Errorf("after Remove(), .config contains %v, %v, want nothing", entries, err)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Errorf("the second Remove() = %v, want nil", err)
	}
	if got := c.take(); len(got) != 0 {
		t.Errorf("the second Remove() ran %q, want nothing", got)
	}
}

func TestLaunchd(t *testing.T) {
	t.Parallel()
	h, c := newHiveService(t)
	failures := 2
	c.fail = func(line string) bool {
		if strings.HasPrefix(line, "launchctl bootstrap") {
			failures--
		}
		return failures >= 0 && strings.HasPrefix(line, "launchctl bootstrap")
	}
	l := h.Manager(t.Context(), Launchd)
	if _, err := l.Start(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(h.UserHome, "Library/LaunchAgents/rbee.hive.plist")
	target, bootstrap := guiDomain()+"/rbee.hive", "launchctl bootstrap "+guiDomain()+" "+path
	if got, want := c.take(), []string{"launchctl enable " + target, bootstrap, bootstrap, bootstrap, "launchctl disable " + target}; !slices.Equal(got, want) {
		t.Errorf("Start() ran %q, want %q", got, want)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != h.Plist() {
		t.Errorf("after Start(), the property list contains %s, %v, want %s", text, err, h.Plist())
	}
	if err := h.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := c.take(), []string{"launchctl print " + target, "launchctl bootout " + target}; !slices.Equal(got, want) {
		t.Errorf("Stop() ran %q, want %q", got, want)
	}
	c.fail = func(line string) bool { return strings.HasPrefix(line, "launchctl print") } // not loaded
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("Stop() of an agent that is not loaded = %v, want nil", err)
	}
	if got := c.take(); len(got) != 1 {
		t.Errorf("Stop() of an agent that is not loaded ran %q, want only launchctl print", got)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(h.UserHome, "Library")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Remove(), Stat(Library) = %v, want ErrNotExist", err)
	}
}

// TestRemoveFileKeepsUserDirs checks that removeFile keeps directories that are not empty,
// and directories outside the user's home.
func TestRemoveFileKeepsUserDirs(t *testing.T) {
	t.Parallel()
	h, _ := newHiveService(t)
	path := filepath.Join(h.UserHome, "a/b/c/rbee.service")
	other := filepath.Join(filepath.Dir(h.UserHome), "outside")
	if err := errors.Join(os.Mkdir(filepath.Join(h.UserHome, "a"), 0o700), os.MkdirAll(other, 0o700), h.writeFile(path, "x")); err != nil {
		t.Fatal(err)
	}
	rec := h.changes()
	rec.MadeDirs = append(rec.MadeDirs, other, h.UserHome) // must not be removed
	if err := errors.Join(atomicfile.WriteJSON(h.Record, rec), os.WriteFile(filepath.Join(h.UserHome, "a/b/mine"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if err := h.removeFile(path); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{filepath.Join(h.UserHome, "a/b/c"): false, filepath.Join(h.UserHome, "a/b"): true, other: true} {
		if _, err := os.Stat(name); (err == nil) != want {
			t.Errorf("after removeFile(), Stat(%s) = %v, want existing: %t", name, err, want)
		}
	}
}

// TestPickManager checks that pickManager returns Detached if the service manager does not
// respond, as launchd does on a Mac without a GUI login.
func TestPickManager(t *testing.T) {
	t.Parallel()
	u, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		goos, command, want string
		fails               bool
	}{
		{"linux", "systemctl --user show-environment", Systemd, false},
		{"linux", "systemctl --user show-environment", Detached, true},
		{"darwin", "launchctl print " + guiDomain(), Launchd, false},
		{"darwin", "launchctl print " + guiDomain(), Detached, true},
		{"freebsd", "", Detached, false},
	} {
		c := &commands{fail: func(string) bool { return tt.fails }}
		s := &Service{UserHome: u.HomeDir, Command: c.run}
		got := s.pickManager(t.Context(), tt.goos)
		if ran := strings.Join(c.take(), "\n"); got != tt.want || ran != tt.command {
			t.Errorf("pickManager(%s) with failing commands %t = %q after %q, want %q after %q", tt.goos, tt.fails, got, ran, tt.want, tt.command)
		}
	}
}
