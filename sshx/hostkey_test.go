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

// wantHostKeyError returns the HostKeyError of a failed Dial with the reason.
func wantHostKeyError(t *testing.T, err error, reason sshx.Reason) *sshx.HostKeyError {
	t.Helper()
	wantReason(t, "Dial()", err, reason)
	var keyErr *sshx.HostKeyError
	if !errors.As(err, &keyErr) {
		t.Fatalf("Dial() returned error %v, want an error that wraps a HostKeyError", err)
	}
	return keyErr
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
				t.Errorf("Dial() with the %s key of %s in known_hosts = %v, want no error", key.PublicKey().Type(), name, err)
			}
		}
	}
	// If the host no longer has the known type of key, its key has changed.
	ecHost := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, HostKeys: []ssh.Signer{ec}})
	c.write(t, "known_hosts", "# first line\n"+knownhosts.Line([]string{ecHost.Addr()}, ed.PublicKey())+"\n")
	d := c.dialer(t, "")
	d.AcceptNewHostKeys = true
	keyErr := wantHostKeyError(t, login(t, d, c.target(ecHost)), sshx.ReasonHostKeyChanged)
	if keyErr.File != c.path("known_hosts") || keyErr.Line != 2 || keyErr.Fingerprint != ssh.FingerprintSHA256(ec.PublicKey()) {
		t.Errorf("Dial() returned %+v, want line 2 of known_hosts and the presented key", keyErr)
	}
}

func TestHostKeyUnknown(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	fingerprint := ssh.FingerprintSHA256(h.HostKeys()[0])
	keyErr := wantHostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyUnknown)
	if keyErr.Fingerprint != fingerprint || keyErr.KeyType != ssh.KeyAlgoED25519 || !strings.Contains(keyErr.Error(), fingerprint) {
		t.Errorf("Dial() returned %+v, want the presented ed25519 key %s", keyErr, fingerprint)
	}
	if _, err := os.Stat(c.path("known_hosts")); err == nil {
		t.Error("Dial() wrote the rejected key to known_hosts, want no file")
	}

	reject := c.dialer(t, "")
	reject.Prompter = &fakePrompter{confirm: func(string) (bool, error) { return false, nil }}
	wantHostKeyError(t, login(t, reject, c.target(h)), sshx.ReasonHostKeyUnknown)
	strict := c.dialer(t, "StrictHostKeyChecking yes\n")
	strict.Prompter = &fakePrompter{}
	wantHostKeyError(t, login(t, strict, c.target(h)), sshx.ReasonHostKeyUnknown)

	// Ten concurrent connections prompt once.
	accept := c.dialer(t, "")
	prompter := &fakePrompter{confirm: func(q string) (bool, error) {
		if !strings.Contains(q, fingerprint) || !strings.Contains(q, ssh.KeyAlgoED25519) || !strings.Contains(q, "127.0.0.1") {
			t.Errorf("Confirm(%q), want a question with host, key type and fingerprint", q)
		}
		return true, nil
	}}
	accept.Prompter = prompter
	var all sync.WaitGroup
	for range 10 {
		all.Go(func() {
			wantLogin(t, accept, c.target(h))
		})
	}
	all.Wait()
	if n := prompter.count(); n != 1 {
		t.Errorf("ten logins prompted %d times, want 1", n)
	}
	wantLogin(t, c.dialer(t, ""), c.target(h))
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
				t.Errorf("known_hosts contains %q, error %v, want one hashed line", text, err)
			}
			for path, mode := range map[string]os.FileMode{file: 0o600, filepath.Dir(file): 0o700 | os.ModeDir} {
				if info, err := os.Stat(path); err != nil || info.Mode() != mode {
					t.Errorf("%s has mode %v, error %v, want mode %v", path, info.Mode(), err, mode)
				}
			}
			// A changed key is always rejected.
			if err := h.Rekey(); err != nil {
				t.Fatal(err)
			}
			keyErr := wantHostKeyError(t, login(t, d, c.target(h)), sshx.ReasonHostKeyChanged)
			if keyErr.File != file || keyErr.Line != 1 || keyErr.Fingerprint != ssh.FingerprintSHA256(h.HostKeys()[0]) {
				t.Errorf("Dial() returned %+v, want line 1 of %s and the presented key", keyErr, file)
			}
			// The Dialer reads the file again after a change.
			if err := os.WriteFile(file, []byte(h.KnownHostsLines()), 0o600); err != nil {
				t.Fatal(err)
			}
			wantLogin(t, d, c.target(h))
		})
	}
}

func TestAcceptNewAfterIncompleteLine(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	a := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	b := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", strings.TrimSuffix(a.KnownHostsLines(), "\n"))
	d := c.dialer(t, "")
	d.AcceptNewHostKeys = true
	for _, h := range []server{b, a} {
		wantLogin(t, d, c.target(h))
	}
	text, _ := os.ReadFile(c.path("known_hosts"))
	if want := a.KnownHostsLines() + b.KnownHostsLines(); string(text) != want {
		t.Errorf("known_hosts contains %q, want %q", text, want)
	}
}

func TestKnownHostsIgnoresInvalidLines(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	other, _, _ := sshtest.NewKey()
	invalid := "host ssh-future AAAA\nhost 1024 35 12345678\n|1|broken ssh-ed25519 AAAA\n@unknown x ssh-ed25519 AAAA\n\n# comment\nword\n"
	c.write(t, "known_hosts", invalid+h.KnownHostsLines())
	wantLogin(t, c.dialer(t, ""), c.target(h))
	c.write(t, "known_hosts", invalid+knownhosts.Line([]string{h.Addr()}, other.PublicKey())+"\n")
	keyErr := wantHostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyChanged)
	if keyErr.File != c.path("known_hosts") || keyErr.Line != 8 {
		t.Errorf("Dial() returned %+v, want line 8 of known_hosts", keyErr)
	}
}

func TestHostKeyRevoked(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", h.KnownHostsLines()+"@revoked * "+string(ssh.MarshalAuthorizedKey(h.HostKeys()[0])))
	keyErr := wantHostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyChanged)
	if !keyErr.Revoked || keyErr.Line != 2 {
		t.Errorf("Dial() returned %+v, want a revoked key in line 2", keyErr)
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
	wantLogin(t, c.dialer(t, ""), c.target(h))
	// If known_hosts has no certificate authority for the host, the plain host key is used.
	c.write(t, "known_hosts", knownhosts.Line([]string{h.Addr()}, key.PublicKey())+"\n")
	wantLogin(t, c.dialer(t, ""), c.target(h))
}

func TestHostKeyAlias(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "known_hosts", "the-box "+string(ssh.MarshalAuthorizedKey(h.HostKeys()[0])))
	wantLogin(t, c.dialer(t, "HostKeyAlias the-box\n"), c.target(h))
	_, port, _ := net.SplitHostPort(h.Addr())
	keyErr := wantHostKeyError(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonHostKeyUnknown)
	if want := "[127.0.0.1]:" + port; keyErr.Host != want {
		t.Errorf("Dial() returned an error for host %q, want %q", keyErr.Host, want)
	}
}

func TestKnownHostsOption(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	file := c.write(t, "option", h.KnownHostsLines())
	d := c.dialer(t, "UserKnownHostsFile ~/.ssh/ignored\n")
	d.KnownHosts = []string{file, c.path("missing")}
	wantLogin(t, d, c.target(h))
	d = c.dialer(t, "")
	d.KnownHosts = []string{c.home} // a directory
	wantReason(t, "Dial()", login(t, d, c.target(h)), sshx.ReasonConfig)
}

func TestAcceptNewWriteError(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.write(t, "file", "")
	d := c.dialer(t, "UserKnownHostsFile ~/.ssh/file/below\n")
	d.AcceptNewHostKeys = true
	err := login(t, d, c.target(h))
	if err == nil || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("Dial() with an unwritable known_hosts returned %v, want the write error", err)
	}
}
