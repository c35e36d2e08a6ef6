package sshx_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

func newECDSA(t *testing.T) ssh.Signer {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func hostKeyError(t *testing.T, err error, reason sshx.Reason) *sshx.HostKeyError {
	t.Helper()
	wantReason(t, err, reason)
	var bad *sshx.HostKeyError
	if !errors.As(err, &bad) {
		t.Fatalf("error %v has no HostKeyError", err)
	}
	return bad
}

func TestHostKeyTypes(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	ed, _, _ := sshtest.NewKey()
	ec := newECDSA(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, HostKeys: []ssh.Signer{ec, ed}})
	for _, key := range []ssh.Signer{ed, ec} {
		for _, name := range []string{knownhosts.Normalize(h.Addr()), knownhosts.HashHostname(knownhosts.Normalize(h.Addr())), "*", "[127.0.0.*]:*"} {
			if strings.HasSuffix(name, ":*") {
				name = fmt.Sprintf("[127.0.0.*]:%d", h.Port())
			}
			c.write(t, "known_hosts", name+" "+string(ssh.MarshalAuthorizedKey(key.PublicKey())))
			if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
				t.Errorf("known by %s as %s: %v", key.PublicKey().Type(), name, err)
			}
		}
	}
	// Known by a type that it does not have any more: that is a change.
	only := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, HostKeys: []ssh.Signer{ec}})
	c.write(t, "known_hosts", "# first line\n"+knownhosts.Line([]string{only.Addr()}, ed.PublicKey())+"\n")
	d := c.dialer(t, "")
	d.AcceptNewHostKeys = true
	bad := hostKeyError(t, login(t, d, c.target(only)), sshx.ReasonHostKeyChanged)
	if bad.File != c.path("known_hosts") || bad.Line != 2 || bad.Fingerprint != ssh.FingerprintSHA256(ec.PublicKey()) {
		t.Errorf("error %+v", bad)
	}
}

func TestHostKeyUnknown(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	fingerprint := ssh.FingerprintSHA256(h.HostKeys()[0])
	bad := hostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyUnknown)
	if bad.Fingerprint != fingerprint || bad.KeyType != ssh.KeyAlgoED25519 || !strings.Contains(bad.Error(), fingerprint) {
		t.Errorf("error %+v", bad)
	}
	if _, err := os.Stat(c.path("known_hosts")); err == nil {
		t.Error("a refused key was written down")
	}

	no := c.dialer(t, "")
	no.Prompter = &prompter{confirm: func(string) (bool, error) { return false, nil }}
	hostKeyError(t, login(t, no, c.target(h)), sshx.ReasonHostKeyUnknown)
	strict := c.dialer(t, "StrictHostKeyChecking yes\n")
	strict.Prompter = &prompter{}
	hostKeyError(t, login(t, strict, c.target(h)), sshx.ReasonHostKeyUnknown)

	// Asked once, even when ten connections ask at the same time, and not again.
	yes := c.dialer(t, "")
	ask := &prompter{confirm: func(q string) (bool, error) {
		if !strings.Contains(q, fingerprint) || !strings.Contains(q, ssh.KeyAlgoED25519) || !strings.Contains(q, "127.0.0.1") {
			t.Errorf("question %q", q)
		}
		return true, nil
	}}
	yes.Prompter = ask
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			if err := login(t, yes, c.target(h)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := ask.asked(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
		t.Error(err)
	}
}

func TestAcceptNew(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"option", "accept-new", "no"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			c := newClientFiles(t)
			h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
			config := "UserKnownHostsFile ~/.ssh/new/known ~/.ssh/known_hosts\nHashKnownHosts yes\n"
			if mode != "option" {
				config += "StrictHostKeyChecking " + mode + "\n"
			}
			d := c.dialer(t, config)
			d.AcceptNewHostKeys = mode == "option"
			for range 2 {
				if err := login(t, d, c.target(h)); err != nil {
					t.Fatal(err)
				}
			}
			file := c.path("new/known")
			text, err := os.ReadFile(file)
			if err != nil || strings.Count(string(text), "\n") != 1 || !strings.HasPrefix(string(text), "|1|") {
				t.Errorf("known_hosts %q, %v", text, err)
			}
			for path, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir} {
				if info, err := os.Stat(path); err != nil || info.Mode() != mode {
					t.Errorf("%s: %v, %v", path, info.Mode(), err)
				}
			}
			// A changed key is refused whatever the mode.
			if err := h.Rekey(); err != nil {
				t.Fatal(err)
			}
			bad := hostKeyError(t, login(t, d, c.target(h)), sshx.ReasonHostKeyChanged)
			if bad.File != file || bad.Line != 1 || bad.Fingerprint != ssh.FingerprintSHA256(h.HostKeys()[0]) {
				t.Errorf("error %+v", bad)
			}
			// The same Dialer sees that the user has put the file right.
			if err := os.WriteFile(file, []byte(h.KnownHostsLines()), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := login(t, d, c.target(h)); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAppendAfterUnfinishedLine(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	a := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	b := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", strings.TrimSuffix(a.KnownHostsLines(), "\n"))
	d := c.dialer(t, "")
	d.AcceptNewHostKeys = true
	for _, h := range []server{b, a} {
		if err := login(t, d, c.target(h)); err != nil {
			t.Error(err)
		}
	}
	text, _ := os.ReadFile(c.path("known_hosts"))
	if string(text) != a.KnownHostsLines()+b.KnownHostsLines() {
		t.Errorf("known_hosts %q", text)
	}
}

func TestUnreadableLines(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	other, _, _ := sshtest.NewKey()
	junk := "host ssh-future AAAA\nhost 1024 35 12345678\n|1|broken ssh-ed25519 AAAA\n@unknown x ssh-ed25519 AAAA\n\n# comment\nword\n"
	c.write(t, "known_hosts", junk+h.KnownHostsLines())
	if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
		t.Error(err)
	}
	c.write(t, "known_hosts", junk+knownhosts.Line([]string{h.Addr()}, other.PublicKey())+"\n")
	bad := hostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyChanged)
	if bad.File != c.path("known_hosts") || bad.Line != 8 {
		t.Errorf("error %+v", bad)
	}
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", h.KnownHostsLines()+"@revoked * "+string(ssh.MarshalAuthorizedKey(h.HostKeys()[0])))
	bad := hostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyChanged)
	if !bad.Revoked || bad.Line != 2 {
		t.Errorf("error %+v", bad)
	}
}

func TestHostCertificate(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	authority, _, _ := sshtest.NewKey()
	key, _, _ := sshtest.NewKey()
	cert := &ssh.Certificate{
		Key: key.PublicKey(), CertType: ssh.HostCert, ValidPrincipals: []string{"127.0.0.1"},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewCertSigner(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, HostKeys: []ssh.Signer{signer, key}})
	line := fmt.Sprintf("@cert-authority [127.0.0.1]:%d %s", h.Port(), ssh.MarshalAuthorizedKey(authority.PublicKey()))
	c.write(t, "known_hosts", line)
	if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
		t.Error(err)
	}
	// A host that knows nothing of authorities gets the plain key, and no certificate.
	c.write(t, "known_hosts", knownhosts.Line([]string{h.Addr()}, key.PublicKey())+"\n")
	if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
		t.Error(err)
	}
}

func TestHostKeyAlias(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", "the-box "+string(ssh.MarshalAuthorizedKey(h.HostKeys()[0])))
	if err := login(t, c.dialer(t, "HostKeyAlias the-box\n"), c.target(h)); err != nil {
		t.Error(err)
	}
	_, port, _ := net.SplitHostPort(h.Addr())
	bad := hostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyUnknown)
	if bad.Host != "[127.0.0.1]:"+port {
		t.Errorf("host %q", bad.Host)
	}
}

func TestKnownHostsOption(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	mine := c.write(t, "mine", h.KnownHostsLines())
	d := c.dialer(t, "UserKnownHostsFile ~/.ssh/not-this\n")
	d.KnownHosts = []string{mine, c.path("missing")}
	if err := login(t, d, c.target(h)); err != nil {
		t.Error(err)
	}
	d = c.dialer(t, "")
	d.KnownHosts = []string{c.home} // a folder
	wantReason(t, login(t, d, c.target(h)), sshx.ReasonConfig)
}

func TestKnownHostsCannotBeWritten(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "file", "")
	d := c.dialer(t, "UserKnownHostsFile ~/.ssh/file/below\n")
	d.AcceptNewHostKeys = true
	err := login(t, d, c.target(h))
	if err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("error %v", err)
	}
}
