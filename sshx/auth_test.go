package sshx_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
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
	"golang.org/x/crypto/ssh/agent"
)

// prompter answers from functions and keeps the questions.
type prompter struct {
	secret  func(n int, question string) (string, error)
	confirm func(question string) (bool, error)

	mu        sync.Mutex
	open      bool
	overlap   bool
	questions []string
}

func (p *prompter) begin(question string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.overlap = p.overlap || p.open
	p.open = true
	p.questions = append(p.questions, question)
	return len(p.questions)
}

func (p *prompter) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open = false
}

func (p *prompter) Secret(_ context.Context, question string) (string, error) {
	n := p.begin(question)
	defer p.end()
	if p.secret == nil {
		return "", errors.New("no secret was expected to be asked for")
	}
	return p.secret(n, question)
}

func (p *prompter) Confirm(_ context.Context, question string) (bool, error) {
	p.begin(question)
	defer p.end()
	if p.confirm == nil {
		return false, errors.New("no question was expected")
	}
	return p.confirm(question)
}

func (p *prompter) asked() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.overlap {
		panic("two questions at once")
	}
	return len(p.questions)
}

func wantReason(t *testing.T, err error, reason sshx.Reason) *sshx.Error {
	t.Helper()
	var e *sshx.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Fatalf("error %v, want reason %q", err, reason)
	}
	return e
}

// login dials and closes.
func login(t *testing.T, d *sshx.Dialer, target sshx.Target) error {
	t.Helper()
	c, err := d.Dial(t.Context(), target)
	if err == nil {
		c.Close()
	}
	return err
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, MaxAuthTries: 1})
	c.knows(t, h)
	_, other, _ := sshtest.NewKey()
	c.write(t, "id_ed25519", string(other))
	c.write(t, "broken", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
	d := c.dialer(t, "")
	// The target's own key is the first to be offered, so one try is enough.
	if err := login(t, d, c.target(h)); err != nil {
		t.Error(err)
	}
	target := c.target(h)
	for _, name := range []string{"missing", "broken"} {
		target.KeyFile = c.path(name)
		e := wantReason(t, login(t, d, target), sshx.ReasonConfig)
		if !strings.Contains(e.Error(), target.KeyFile) {
			t.Errorf("error %q does not name %s", e, target.KeyFile)
		}
	}
	target.KeyFile = ""
	e := wantReason(t, login(t, d, target), sshx.ReasonAuth)
	if !strings.Contains(e.Error(), "id_ed25519") {
		t.Errorf("error %q does not say what was offered", e)
	}
}

func TestIdentityFiles(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.knows(t, h)
	_, other, _ := sshtest.NewKey()
	c.write(t, "other", string(other))
	target := sshx.Target{Host: "box"}
	config := fmt.Sprintf("Host box\nHostName 127.0.0.1\nPort %d\nIdentityFile ~/.ssh/missing\nIdentityFile %%d/.ssh/other\nIdentityFile ~/.ssh/id\n", h.Port())
	if err := login(t, c.dialer(t, config), target); err != nil {
		t.Error(err)
	}
	// A default key needs no configuration.
	text, _ := os.ReadFile(c.path("id"))
	c.write(t, "id_ecdsa", string(text))
	if err := login(t, c.dialer(t, ""), sshx.Target{Host: "127.0.0.1", Port: h.Port()}); err != nil {
		t.Error(err)
	}
	// The wrong user has no key that fits.
	wantReason(t, login(t, c.dialer(t, config), sshx.Target{Host: "box", User: "nobody-else"}), sshx.ReasonAuth)
}

// startAgent serves keys on a socket and counts signatures.
func startAgent(t *testing.T, keys ...any) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ring := agent.NewKeyring()
	for _, key := range keys {
		if err := ring.Add(agent.AddedKey{PrivateKey: key}); err != nil {
			t.Fatal(err)
		}
	}
	socket = filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(ring, conn)
		}
	}()
	return socket
}

func rawKey(t *testing.T, text []byte) any {
	t.Helper()
	key, err := ssh.ParseRawPrivateKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAgent(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	good, goodText, _ := sshtest.NewKey()
	var keys []any
	for range 8 { // more than sshd lets anyone try
		_, text, _ := sshtest.NewKey()
		keys = append(keys, rawKey(t, text))
	}
	keys = append(keys, rawKey(t, goodText))
	socket := startAgent(t, keys...)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{good.PublicKey()}})
	c.knows(t, h)
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	agentLine := "IdentityAgent " + socket + "\n"

	wantReason(t, login(t, c.dialer(t, agentLine), target), sshx.ReasonAuth) // cut off after six
	// A public key file names the one to offer first; the private key stays in the agent.
	c.write(t, "good.pub", string(ssh.MarshalAuthorizedKey(good.PublicKey())))
	for _, name := range []string{"good", "good.pub"} {
		if err := login(t, c.dialer(t, agentLine+"IdentityFile ~/.ssh/"+name+"\n"), target); err != nil {
			t.Errorf("IdentityFile %s: %v", name, err)
		}
	}
	if err := login(t, c.dialer(t, agentLine+"IdentitiesOnly yes\nIdentityFile ~/.ssh/good\n"), target); err != nil {
		t.Error(err)
	}
	// IdentitiesOnly keeps the agent's other keys back; the key file is offered instead.
	c.write(t, "plain", string(goodText))
	if err := login(t, c.dialer(t, agentLine+"IdentitiesOnly yes\nIdentityFile ~/.ssh/plain\n"), target); err != nil {
		t.Error(err)
	}
	// An agent that is not there does no harm.
	if err := login(t, c.dialer(t, "IdentityAgent "+socket+"x\nIdentityFile ~/.ssh/plain\n"), target); err != nil {
		t.Error(err)
	}
}

func TestAgentSparesPassphrase(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	key, text, _ := sshtest.NewLockedKey("open sesame")
	c.write(t, "locked", string(text))
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(text, []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}})
	c.knows(t, h)
	d := c.dialer(t, "IdentityAgent "+startAgent(t, raw)+"\n")
	d.Prompter = &prompter{}
	target := c.target(h)
	target.KeyFile = "~/.ssh/locked"
	if err := login(t, d, target); err != nil {
		t.Error(err)
	}
}

// TestPassphraseOnce dials 20 hosts at once with one locked key.
func TestPassphraseOnce(t *testing.T) {
	t.Parallel()
	key, modern, _ := sshtest.NewLockedKey("open sesame")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 such keys are still around
	block, err := x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), []byte("open sesame"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	rsaPublic, _ := ssh.NewPublicKey(&rsaKey.PublicKey)
	for name, k := range map[string]struct {
		text []byte
		pub  ssh.PublicKey
		tell bool // a .pub lies beside it
	}{
		"OpenSSH format": {modern, key.PublicKey(), false},
		"old PEM":        {pem.EncodeToMemory(block), rsaPublic, false},
		"PEM with .pub":  {pem.EncodeToMemory(block), rsaPublic, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClientFiles(t)
			c.write(t, "locked", string(k.text))
			if k.tell {
				c.write(t, "locked.pub", string(ssh.MarshalAuthorizedKey(k.pub)))
			}
			var hosts []server
			for range 20 {
				hosts = append(hosts, newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{k.pub}}))
			}
			c.knows(t, hosts...)
			d := c.dialer(t, "")
			ask := &prompter{secret: func(n int, _ string) (string, error) {
				return []string{"", "wrong", "open sesame"}[n], nil
			}}
			d.Prompter = ask
			var all sync.WaitGroup
			for _, h := range hosts {
				all.Go(func() {
					if err := login(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port(), KeyFile: "~/.ssh/locked"}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := ask.asked(); n != 2 { // one wrong answer, one right one
				t.Errorf("asked %d times: %q", n, ask.questions)
			}
		})
	}
}

func TestPassphraseNotNeeded(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	_, text, _ := sshtest.NewLockedKey("x")
	c.write(t, "locked", string(text))
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.knows(t, h)
	config := "IdentityFile ~/.ssh/locked\nIdentityFile ~/.ssh/id\n"
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	d := c.dialer(t, config)
	ask := &prompter{}
	d.Prompter = ask
	if err := login(t, d, target); err != nil {
		t.Error(err)
	}
	if n := ask.asked(); n != 0 {
		t.Errorf("asked %q for a key that the host does not want", ask.questions)
	}
	// Nobody to ask: the locked key is passed over, and named when nothing else helps.
	if err := login(t, c.dialer(t, config), target); err != nil {
		t.Error(err)
	}
	e := wantReason(t, login(t, c.dialer(t, "IdentityFile ~/.ssh/locked\n"), target), sshx.ReasonAuth)
	if !strings.Contains(e.Error(), "locked needs a passphrase") {
		t.Errorf("error %q", e)
	}
}

func TestPassphraseGivenUp(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	key, text, _ := sshtest.NewLockedKey("x")
	c.write(t, "locked", string(text))
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey(), c.key.PublicKey()}})
	c.knows(t, h)
	d := c.dialer(t, "IdentityFile ~/.ssh/locked\nIdentityFile ~/.ssh/id\n")
	ask := &prompter{secret: func(int, string) (string, error) { return "wrong", nil }}
	d.Prompter = ask
	for range 2 { // the second time it is known that the key stays locked
		if err := login(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()}); err != nil {
			t.Error(err)
		}
	}
	if n := ask.asked(); n != 3 {
		t.Errorf("asked %d times", n)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	authority, _, _ := sshtest.NewKey()
	h := newHost(t, sshtest.Options{UserAuthorities: []ssh.PublicKey{authority.PublicKey()}})
	c.knows(t, h)
	cert := &ssh.Certificate{
		Key: c.key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{h.User()},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	wantReason(t, login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonAuth)
	c.write(t, "id-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	if err := login(t, c.dialer(t, ""), c.target(h)); err != nil {
		t.Error(err)
	}
}

func TestPassword(t *testing.T) {
	t.Parallel()
	for _, interactive := range []bool{false, true} {
		t.Run(fmt.Sprint("interactive=", interactive), func(t *testing.T) {
			t.Parallel()
			c := newClientFiles(t)
			var hosts []server
			for range 10 {
				hosts = append(hosts, newHost(t, sshtest.Options{Password: "swordfish", KeyboardInteractive: interactive}))
			}
			odd := newHost(t, sshtest.Options{Password: "other", KeyboardInteractive: interactive})
			c.knows(t, append(hosts, odd)...)
			wantReason(t, login(t, c.dialer(t, ""), sshx.Target{Host: "127.0.0.1", Port: odd.Port()}), sshx.ReasonAuth)

			d := c.dialer(t, "")
			ask := &prompter{secret: func(n int, _ string) (string, error) {
				return []string{"", "typo", "swordfish", "other"}[n], nil
			}}
			d.Prompter = ask
			var all sync.WaitGroup
			for _, h := range hosts {
				all.Go(func() {
					if err := login(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()}); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if n := ask.asked(); n != 2 {
				t.Errorf("asked %d times for ten hosts: %q", n, ask.questions)
			}
			// The host with another password asks for it, and then the first ones still know theirs.
			for _, h := range []server{odd, hosts[0], odd} {
				if err := login(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()}); err != nil {
					t.Error(err)
				}
			}
			if n := ask.asked(); n != 3 {
				t.Errorf("asked %d times: %q", n, ask.questions)
			}
		})
	}
}

func TestPasswordRefused(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{Password: "swordfish"})
	c.knows(t, h)
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	d := c.dialer(t, "")
	ask := &prompter{secret: func(n int, _ string) (string, error) { return fmt.Sprint("hunter", n), nil }}
	d.Prompter = ask
	e := wantReason(t, login(t, d, target), sshx.ReasonAuth)
	if strings.Contains(e.Error(), "hunter") {
		t.Errorf("error %q shows a password", e)
	}
	if n := ask.asked(); n != 3 {
		t.Errorf("asked %d times", n)
	}
	d = c.dialer(t, "")
	away := errors.New("nobody is there")
	d.Prompter = &prompter{secret: func(int, string) (string, error) { return "", away }}
	if err := login(t, d, target); !errors.Is(err, away) {
		t.Errorf("error %v", err)
	}
}
