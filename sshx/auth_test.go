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

// fakePrompter is a Prompter that answers with functions and records the questions.
type fakePrompter struct {
	secret  func(n int, question string) (string, error)
	confirm func(question string) (bool, error)

	mu         sync.Mutex
	isOpen     bool
	hasOverlap bool
	questions  []string
}

func (p *fakePrompter) begin(question string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hasOverlap = p.hasOverlap || p.isOpen
	p.isOpen = true
	p.questions = append(p.questions, question)
	return len(p.questions)
}

func (p *fakePrompter) end() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.isOpen = false
}

func (p *fakePrompter) Secret(_ context.Context, question string) (string, error) {
	n := p.begin(question)
	defer p.end()
	if p.secret == nil {
		return "", errors.New("unexpected call of Secret")
	}
	return p.secret(n, question)
}

func (p *fakePrompter) Confirm(_ context.Context, question string) (bool, error) {
	p.begin(question)
	defer p.end()
	if p.confirm == nil {
		return false, errors.New("unexpected call of Confirm")
	}
	return p.confirm(question)
}

// count returns the number of questions.
func (p *fakePrompter) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hasOverlap {
		panic("concurrent calls of the prompter")
	}
	return len(p.questions)
}

// wantReason returns the Error that the call returned, and stops the test if it has another reason.
func wantReason(t *testing.T, call string, err error, reason sshx.Reason) *sshx.Error {
	t.Helper()
	var e *sshx.Error
	if !errors.As(err, &e) || e.Reason != reason {
		t.Fatalf("%s returned error %v, want reason %q", call, err, reason)
	}
	return e
}

// login connects and closes the connection.
func login(t *testing.T, d *sshx.Dialer, target sshx.Target) error {
	t.Helper()
	c, err := d.Dial(t.Context(), target)
	if err == nil {
		c.Close()
	}
	return err
}

// wantLogin reports a test error if the login fails.
func wantLogin(t *testing.T, d *sshx.Dialer, target sshx.Target) {
	t.Helper()
	if err := login(t, d, target); err != nil {
		t.Errorf("Dial(%+v) = %v, want no error", target, err)
	}
}

func TestKeyFile(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, MaxAuthTries: 1})
	c.writeKnownHosts(t, h)
	_, other, _ := sshtest.NewKey()
	c.write(t, "id_ed25519", string(other))
	c.write(t, "broken", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n")
	d := c.dialer(t, "")
	// The key file of the target is offered first, so one attempt is enough.
	wantLogin(t, d, c.target(h))
	target := c.target(h)
	for _, name := range []string{"missing", "broken"} {
		target.KeyFile = c.path(name)
		e := wantReason(t, "Dial()", login(t, d, target), sshx.ReasonConfig)
		if !strings.Contains(e.Error(), target.KeyFile) {
			t.Errorf("Dial() with key file %s returned error %q, want an error with its path", target.KeyFile, e)
		}
	}
	target.KeyFile = ""
	e := wantReason(t, "Dial()", login(t, d, target), sshx.ReasonAuth)
	if !strings.Contains(e.Error(), "id_ed25519") {
		t.Errorf("Dial() returned error %q, want an error with the offered key id_ed25519", e)
	}
}

func TestIdentityFiles(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.writeKnownHosts(t, h)
	_, other, _ := sshtest.NewKey()
	c.write(t, "other", string(other))
	target := sshx.Target{Host: "box"}
	config := fmt.Sprintf("Host box\nHostName 127.0.0.1\nPort %d\nIdentityFile ~/.ssh/missing\nIdentityFile %%d/.ssh/other\nIdentityFile ~/.ssh/id\n", h.Port())
	wantLogin(t, c.dialer(t, config), target)
	// Default keys do not need a configuration.
	text, _ := os.ReadFile(c.path("id"))
	c.write(t, "id_ecdsa", string(text))
	wantLogin(t, c.dialer(t, ""), sshx.Target{Host: "127.0.0.1", Port: h.Port()})
	// Another user cannot log in with the key.
	wantReason(t, "Dial()", login(t, c.dialer(t, config), sshx.Target{Host: "box", User: "other-user"}), sshx.ReasonAuth)
}

// startAgent starts an SSH agent with keys and returns the path of its socket.
func startAgent(t *testing.T, keys ...any) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // the path of a socket must be short
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
	for range 8 { // more than MaxAuthTries
		_, text, _ := sshtest.NewKey()
		keys = append(keys, rawKey(t, text))
	}
	keys = append(keys, rawKey(t, goodText))
	socket := startAgent(t, keys...)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{good.PublicKey()}})
	c.writeKnownHosts(t, h)
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	agentLine := "IdentityAgent " + socket + "\n"

	wantReason(t, "Dial()", login(t, c.dialer(t, agentLine), target), sshx.ReasonAuth) // the host disconnects after six keys
	// A public key file selects the agent key to offer first.
	c.write(t, "good.pub", string(ssh.MarshalAuthorizedKey(good.PublicKey())))
	for _, name := range []string{"good", "good.pub"} {
		if err := login(t, c.dialer(t, agentLine+"IdentityFile ~/.ssh/"+name+"\n"), target); err != nil {
			t.Errorf("Dial() with IdentityFile %s = %v, want no error", name, err)
		}
	}
	wantLogin(t, c.dialer(t, agentLine+"IdentitiesOnly yes\nIdentityFile ~/.ssh/good\n"), target)
	// With IdentitiesOnly, the other agent keys are not offered.
	c.write(t, "plain", string(goodText))
	wantLogin(t, c.dialer(t, agentLine+"IdentitiesOnly yes\nIdentityFile ~/.ssh/plain\n"), target)
	// A missing agent is ignored.
	wantLogin(t, c.dialer(t, "IdentityAgent "+socket+"x\nIdentityFile ~/.ssh/plain\n"), target)
}

func TestAgentKeyNeedsNoPassphrase(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	key, text, _ := sshtest.NewEncryptedKey("open sesame")
	c.write(t, "locked", string(text))
	raw, err := ssh.ParseRawPrivateKeyWithPassphrase(text, []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}})
	c.writeKnownHosts(t, h)
	d := c.dialer(t, "IdentityAgent "+startAgent(t, raw)+"\n")
	d.Prompter = &fakePrompter{}
	target := c.target(h)
	target.KeyFile = "~/.ssh/locked"
	wantLogin(t, d, target)
}

// TestPassphrasePromptedOnce connects to 20 hosts concurrently with one encrypted key.
func TestPassphrasePromptedOnce(t *testing.T) {
	t.Parallel()
	key, modern, _ := sshtest.NewEncryptedKey("open sesame")
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 such keys are still in use
	block, err := x509.EncryptPEMBlock(rand.Reader, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey), []byte("open sesame"), x509.PEMCipherAES256)
	if err != nil {
		t.Fatal(err)
	}
	rsaPublic, _ := ssh.NewPublicKey(&rsaKey.PublicKey)
	for name, k := range map[string]struct {
		text   []byte
		pub    ssh.PublicKey
		hasPub bool // a .pub file exists
	}{
		"OpenSSH format": {modern, key.PublicKey(), false},
		"old PEM":        {pem.EncodeToMemory(block), rsaPublic, false},
		"PEM with .pub":  {pem.EncodeToMemory(block), rsaPublic, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newClientFiles(t)
			c.write(t, "locked", string(k.text))
			if k.hasPub {
				c.write(t, "locked.pub", string(ssh.MarshalAuthorizedKey(k.pub)))
			}
			var hosts []server
			for range 20 {
				hosts = append(hosts, newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{k.pub}}))
			}
			c.writeKnownHosts(t, hosts...)
			d := c.dialer(t, "")
			prompter := &fakePrompter{secret: func(n int, _ string) (string, error) {
				return []string{"", "wrong", "open sesame"}[n], nil
			}}
			d.Prompter = prompter
			var all sync.WaitGroup
			for _, h := range hosts {
				all.Go(func() {
					wantLogin(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port(), KeyFile: "~/.ssh/locked"})
				})
			}
			all.Wait()
			if n := prompter.count(); n != 2 { // one wrong and one correct answer
				t.Errorf("20 logins prompted %d times: %q, want 2", n, prompter.questions)
			}
		})
	}
}

func TestPassphraseNotNeeded(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	_, text, _ := sshtest.NewEncryptedKey("x")
	c.write(t, "locked", string(text))
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	c.writeKnownHosts(t, h)
	config := "IdentityFile ~/.ssh/locked\nIdentityFile ~/.ssh/id\n"
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	d := c.dialer(t, config)
	prompter := &fakePrompter{}
	d.Prompter = prompter
	wantLogin(t, d, target)
	if n := prompter.count(); n != 0 {
		t.Errorf("login prompted %q for a key that the host does not accept, want no prompt", prompter.questions)
	}
	// Without a prompter, the encrypted key is not used. If the login fails, the error contains it.
	wantLogin(t, c.dialer(t, config), target)
	e := wantReason(t, "Dial()", login(t, c.dialer(t, "IdentityFile ~/.ssh/locked\n"), target), sshx.ReasonAuth)
	if !strings.Contains(e.Error(), "locked needs a passphrase") {
		t.Errorf("Dial() returned error %q, want an error that the key needs a passphrase", e)
	}
}

func TestPassphraseAttemptsAreLimited(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	key, text, _ := sshtest.NewEncryptedKey("x")
	c.write(t, "locked", string(text))
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey(), c.key.PublicKey()}})
	c.writeKnownHosts(t, h)
	d := c.dialer(t, "IdentityFile ~/.ssh/locked\nIdentityFile ~/.ssh/id\n")
	prompter := &fakePrompter{secret: func(int, string) (string, error) { return "wrong", nil }}
	d.Prompter = prompter
	for range 2 { // the second login does not prompt again
		wantLogin(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()})
	}
	if n := prompter.count(); n != 3 {
		t.Errorf("two logins prompted %d times, want 3", n)
	}
}

func TestCertificate(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	authority, _, _ := sshtest.NewKey()
	h := newHost(t, sshtest.Options{UserAuthorities: []ssh.PublicKey{authority.PublicKey()}})
	c.writeKnownHosts(t, h)
	cert := &ssh.Certificate{
		Key: c.key.PublicKey(), CertType: ssh.UserCert, ValidPrincipals: []string{h.User()},
		ValidBefore: uint64(time.Now().Add(time.Hour).Unix()),
	}
	if err := cert.SignCert(rand.Reader, authority); err != nil {
		t.Fatal(err)
	}
	wantReason(t, "Dial()", login(t, c.dialer(t, ""), c.target(h)), sshx.ReasonAuth)
	c.write(t, "id-cert.pub", string(ssh.MarshalAuthorizedKey(cert)))
	wantLogin(t, c.dialer(t, ""), c.target(h))
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
			other := newHost(t, sshtest.Options{Password: "other", KeyboardInteractive: interactive})
			c.writeKnownHosts(t, append(hosts, other)...)
			wantReason(t, "Dial()", login(t, c.dialer(t, ""), sshx.Target{Host: "127.0.0.1", Port: other.Port()}), sshx.ReasonAuth)

			d := c.dialer(t, "")
			prompter := &fakePrompter{secret: func(n int, _ string) (string, error) {
				return []string{"", "typo", "swordfish", "other"}[n], nil
			}}
			d.Prompter = prompter
			var all sync.WaitGroup
			for _, h := range hosts {
				all.Go(func() {
					wantLogin(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()})
				})
			}
			all.Wait()
			if n := prompter.count(); n != 2 {
				t.Errorf("logins to ten hosts prompted %d times: %q, want 2", n, prompter.questions)
			}
			// The host with another password prompts once. The passwords of all hosts remain cached.
			for _, h := range []server{other, hosts[0], other} {
				wantLogin(t, d, sshx.Target{Host: "127.0.0.1", Port: h.Port()})
			}
			if n := prompter.count(); n != 3 {
				t.Errorf("all logins prompted %d times: %q, want 3", n, prompter.questions)
			}
		})
	}
}

func TestPasswordAttemptsAreLimited(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{Password: "swordfish"})
	c.writeKnownHosts(t, h)
	target := sshx.Target{Host: "127.0.0.1", Port: h.Port()}
	d := c.dialer(t, "")
	prompter := &fakePrompter{secret: func(n int, _ string) (string, error) { return fmt.Sprint("hunter", n), nil }}
	d.Prompter = prompter
	e := wantReason(t, "Dial()", login(t, d, target), sshx.ReasonAuth)
	if strings.Contains(e.Error(), "hunter") {
		t.Errorf("Dial() returned error %q, want an error without the password", e)
	}
	if n := prompter.count(); n != 3 {
		t.Errorf("login prompted %d times, want 3", n)
	}
	d = c.dialer(t, "")
	promptErr := errors.New("no terminal")
	d.Prompter = &fakePrompter{secret: func(int, string) (string, error) { return "", promptErr }}
	if err := login(t, d, target); !errors.Is(err, promptErr) {
		t.Errorf("Dial() with a failing prompter returned %v, want %v", err, promptErr)
	}
}
