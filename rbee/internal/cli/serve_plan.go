package cli

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/pkgmgr"
)

// caution is something that a service will lack, and what to do about it.
type caution struct{ text, hint string }

// servicePlan is the queen as a service: how she is started, and what she will lack
// of what a queen in this terminal would have.
type servicePlan struct {
	args     []string
	env      map[string]string
	cautions []caution
}

// machine is what a plan asks of the machine.
type machine struct {
	goos string
	uid  int
}

// plan carries over every flag, and of the environment what is no secret: a service's
// file can be read by others.
func (c *serveCmd) plan(a *app, paths pkgmgr.Paths, m machine) servicePlan {
	p := servicePlan{args: c.arguments(a, paths), env: map[string]string{}}
	for _, name := range carried {
		value := a.p.Getenv(name)
		switch {
		case value == "":
		case holdsSecret(value):
			p.warn(m, name, name+" holds a password, and is not carried over to the service, whose file others can read")
		default:
			p.env[name] = value
		}
	}
	if a.p.Getenv("GITHUB_TOKEN") != "" {
		p.warn(m, "GITHUB_TOKEN", "GITHUB_TOKEN is a secret, and is not carried over to the service, whose file others can read")
	}
	socket := a.p.Getenv("SSH_AUTH_SOCK")
	switch {
	case socket == "" || m.goos == "darwin" && strings.Contains(socket, "com.apple.launchd"): // launchd gives it to every agent
	case outlivesLogin(socket, paths.Home, m.uid):
		p.env["SSH_AUTH_SOCK"] = socket
	default:
		p.cautions = append(p.cautions, caution{
			"the SSH agent at " + socket + " ends with this login: the service will be without its keys",
			"let key files reach the hives (IdentityFile in ~/.ssh/config, ssh_key in the config), or start an agent as a service of yours",
		})
	}
	return p
}

// carried are the variables that a queen looks at and that are no secrets by
// themselves.
var carried = []string{
	"RBEE_HOME", "RBEE_RELEASE_URL", "GITHUB_API_URL", "GITHUB_DOWNLOAD_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL",
	"RBEE_TORCH_INDEX",
	"XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
	"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
}

// warn tells of a variable that is left out, and where to put it.
func (p *servicePlan) warn(m machine, name, text string) {
	hint := fmt.Sprintf("if she needs it: `systemctl --user edit rbee-queen`, with Environment=%s=… below [Service]", name)
	if m.goos == "darwin" {
		hint = fmt.Sprintf("if she needs it: `launchctl setenv %s …` before `rbee serve --install`", name)
	}
	p.cautions = append(p.cautions, caution{text, hint})
}

// holdsSecret reports whether a value is an address with a user or a password in it.
func holdsSecret(value string) bool {
	u, err := url.Parse(value)
	return err != nil && strings.Contains(value, "@") || err == nil && u.User != nil
}

// outlivesLogin reports whether an agent's socket is one that the next login has too:
// one in the user's runtime or home directory, but for those that sshd makes for a
// forwarded agent.
func outlivesLogin(socket, home string, uid int) bool {
	in := func(dir string) bool {
		rel, err := filepath.Rel(dir, socket)
		return err == nil && filepath.IsLocal(rel)
	}
	return in(fmt.Sprintf("/run/user/%d", uid)) || in(home) && !in(filepath.Join(home, ".ssh", "agent"))
}

// arguments are those of a queen with the flags of this one. Paths are made
// absolute: a service runs elsewhere.
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
