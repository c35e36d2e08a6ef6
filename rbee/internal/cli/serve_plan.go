package cli

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr"
)

// warning is a difference between the service and a queen in this terminal.
type warning struct{ text, hint string }

// servicePlan is the command line and the environment of the queen as a service.
type servicePlan struct {
	args     []string
	env      map[string]string
	warnings []warning
}

// machine contains the facts about this machine that a plan depends on.
type machine struct {
	goos string
	uid  int
}

// plan copies every flag, and the environment variables that are not secret, since
// other users can read the file of a service.
func (c *serveCmd) plan(a *app, paths pkgmgr.Paths, m machine) servicePlan {
	p := servicePlan{args: c.arguments(a, paths), env: map[string]string{}}
	for _, name := range serviceEnv {
		value := a.p.Getenv(name)
		switch {
		case value == "":
		case hasCredentials(value):
			p.warn(m, name, name+" contains a password and is not copied to the service, whose file other users can read")
		default:
			p.env[name] = value
		}
	}
	if a.p.Getenv("GITHUB_TOKEN") != "" {
		p.warn(m, "GITHUB_TOKEN", "GITHUB_TOKEN is a secret and is not copied to the service, whose file other users can read")
	}
	socket := a.p.Getenv("SSH_AUTH_SOCK")
	switch {
	case socket == "" || m.goos == "darwin" && strings.Contains(socket, "com.apple.launchd"): // launchd sets it for every agent
	case outlivesLogin(socket, paths.Home, m.uid):
		p.env["SSH_AUTH_SOCK"] = socket
	default:
		p.warnings = append(p.warnings, warning{
			"the service cannot use the SSH agent at " + socket + ", which ends with this login",
			"use key files (IdentityFile in ~/.ssh/config, ssh_key in the config), or run an agent as a user service",
		})
	}
	return p
}

// serviceEnv are the environment variables of a queen that are not secret.
var serviceEnv = []string{
	"RBEE_HOME", "RBEE_RELEASE_URL", "GITHUB_API_URL", "GITHUB_DOWNLOAD_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL",
	"RBEE_TORCH_INDEX",
	"XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// warn adds a warning about a variable that is not copied.
func (p *servicePlan) warn(m machine, name, text string) {
	hint := fmt.Sprintf("if the queen needs it, run `systemctl --user edit rbee-queen` and add Environment=%s=… below [Service]", name)
	if m.goos == "darwin" {
		hint = fmt.Sprintf("if the queen needs it, run `launchctl setenv %s …` before `rbee serve --install`", name)
	}
	p.warnings = append(p.warnings, warning{text, hint})
}

// hasCredentials reports whether a value is a URL with a user or a password.
func hasCredentials(value string) bool {
	u, err := url.Parse(value)
	return err != nil && strings.Contains(value, "@") || err == nil && u.User != nil
}

// outlivesLogin reports whether the socket of an agent remains valid after this
// login. Sockets in the runtime or home directory do, except the sockets of
// agents that sshd forwards.
func outlivesLogin(socket, home string, uid int) bool {
	in := func(dir string) bool {
		rel, err := filepath.Rel(dir, socket)
		return err == nil && filepath.IsLocal(rel)
	}
	return in(fmt.Sprintf("/run/user/%d", uid)) || in(home) && !in(filepath.Join(home, ".ssh", "agent"))
}

// arguments returns the command line of the service. Paths are absolute, since the
// service has another working directory.
func (c *serveCmd) arguments(a *app, paths pkgmgr.Paths) []string {
	args := []string{"serve", "--addr", c.Addr, "--idle", c.Idle.String()}
	file := func(flag, path string) {
		if path == "" {
			return
		}
		if full, err := paths.ConfigFile(path); err == nil {
			path = full
		}
		args = append(args, flag, path)
	}
	g := a.flags()
	file("--config", a.config())
	file("--tls-cert", c.TLSCert)
	file("--tls-key", c.TLSKey)
	file("--ssh-config-file", g.SSHConfigFile)
	file("--binaries", g.Binaries)
	for _, host := range c.Host {
		args = append(args, "--host", host)
	}
	for _, origin := range c.Origin {
		args = append(args, "--origin", origin)
	}
	if g.Timeout != 0 {
		args = append(args, "--timeout", g.Timeout.String())
	}
	for _, s := range []struct {
		flag string
		set  bool
	}{
		{"--no-tls", c.NoTLS}, {"--accept-new-host-keys", g.AcceptNewHostKeys}, {"--verbose", g.Verbose}, {"--quiet", g.Quiet},
	} {
		if s.set {
			args = append(args, s.flag)
		}
	}
	return args
}
