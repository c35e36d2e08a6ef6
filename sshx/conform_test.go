package sshx_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"github.com/rbee-keeper/rbee/sshx/sshtest/conform"
	"golang.org/x/crypto/ssh"
)

var _, _ conform.Host = (*sshx.Client)(nil), (*sshx.Local)(nil)

func TestConformInProcess(t *testing.T) {
	t.Parallel()
	conform.Test(t, func(t *testing.T, o conform.Options) conform.Machine {
		c := newClientFiles(t)
		h := newHost(t, sshtest.Options{
			AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, Env: pathEnv(o), Shell: o.Shell,
			StartupOutput: "motd of the day\nincomplete line", Banner: "banner\n",
		})
		return conform.Machine{Host: c.dial(t, h), Home: h.Home(), CutAfter: h.CutAfter}
	})
}

func TestConformOpenSSH(t *testing.T) {
	t.Parallel()
	conform.Test(t, func(t *testing.T, o conform.Options) conform.Machine {
		c := newClientFiles(t)
		h := newOpenSSH(t, sshtest.Options{
			AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, Env: pathEnv(o), Shell: o.Shell,
			StartupOutput: "motd of the day\nincomplete line", Banner: "banner\n",
		})
		return conform.Machine{Host: c.dial(t, h), Home: h.Home(), CutAfter: h.CutAfter}
	})
}

func TestConformLocal(t *testing.T) {
	t.Parallel()
	conform.Test(t, func(t *testing.T, o conform.Options) conform.Machine {
		home, err := filepath.EvalSymlinks(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		l := &sshx.Local{Env: append(pathEnv(o), "HOME="+home)}
		return conform.Machine{Host: l, Home: home}
	})
}

func pathEnv(o conform.Options) []string {
	if o.Path == "" {
		return nil
	}
	return []string{"PATH=" + o.Path}
}

func newHost(t testing.TB, o sshtest.Options) *sshtest.Host {
	t.Helper()
	h, err := sshtest.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func newOpenSSH(t testing.TB, o sshtest.Options) *sshtest.OpenSSHHost {
	t.Helper()
	h, err := sshtest.OpenSSH(t.TempDir(), o)
	if errors.Is(err, sshtest.ErrNoOpenSSH) && !sshtest.RequireOpenSSH() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		if t.Failed() {
			t.Log(h.Log())
		}
	})
	return h
}

// clientFiles is the home directory of a user, with a key and a known_hosts file.
type clientFiles struct {
	home string
	key  ssh.Signer
}

func newClientFiles(t testing.TB) *clientFiles {
	t.Helper()
	c := &clientFiles{home: t.TempDir()}
	key, pem, err := sshtest.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	c.key = key
	c.write(t, "id", string(pem))
	return c
}

func (c *clientFiles) write(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(c.home, ".ssh", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (c *clientFiles) path(name string) string { return filepath.Join(c.home, ".ssh", name) }

// server is implemented by sshtest.Host and sshtest.OpenSSHHost.
type server interface {
	Port() int
	KnownHostsLines() string
}

// writeKnownHosts writes a known_hosts file with the keys of the hosts.
func (c *clientFiles) writeKnownHosts(t testing.TB, hosts ...server) {
	t.Helper()
	text := ""
	for _, h := range hosts {
		text += h.KnownHostsLines()
	}
	c.write(t, "known_hosts", text)
}

// dialer returns a Dialer that uses only this home directory, and no agent.
func (c *clientFiles) dialer(t testing.TB, config string) *sshx.Dialer {
	t.Helper()
	file := c.write(t, "config", config+"\nHost *\nIdentityAgent none\nGlobalKnownHostsFile none\n")
	d := &sshx.Dialer{Home: c.home, ConfigFiles: []string{file}}
	t.Cleanup(func() { d.Close() })
	return d
}

// dial connects to a host with the key of the user.
func (c *clientFiles) dial(t testing.TB, h server) *sshx.Client {
	t.Helper()
	c.writeKnownHosts(t, h)
	client, err := c.dialer(t, "").Dial(t.Context(), c.target(h))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (c *clientFiles) target(h server) sshx.Target {
	return sshx.Target{Host: "127.0.0.1", Port: h.Port(), KeyFile: "~/.ssh/id"}
}
