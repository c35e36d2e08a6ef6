package sshx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/rbee-keeper/rbee/sshx/internal/timeout"
	"github.com/rbee-keeper/rbee/sshx/sshconfig"
	"golang.org/x/crypto/ssh"
)

// login is one attempt to log in to one host. The goroutine of the handshake calls its methods.
type login struct {
	st    *state
	r     sshconfig.Settings
	ctx   context.Context
	clock *timeout.Clock

	keys            []identity // not offered yet
	hasKeys         bool
	promptCount     int             // number of password prompts
	triedPasswords  map[string]bool // passwords sent to this host
	lastPassword    string          // the last password sent
	lastInteractive bool            // the last attempt was keyboard-interactive
	hadQuestions    bool            // the last keyboard-interactive attempt had questions
	noInteractive   bool            // keyboard-interactive has no questions on this host
	abortErr        error           // set to abort the login

	mu        sync.Mutex
	allowed   []string // methods that the host accepts
	exhausted bool     // all methods were tried
	stage     string   // current stage, for error messages
	notes     []string // attempts and errors, for the error message of a failed login
}

// identity is a key to offer to the host.
type identity struct {
	name   string
	signer func() (ssh.Signer, error)
}

func (l *login) note(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := fmt.Sprintf(format, args...); !slices.Contains(l.notes, s) {
		l.notes = append(l.notes, s)
	}
}

func (l *login) setStage(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stage = s
}

func (l *login) currentStage() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stage
}

func (l *login) setAllowed(methods []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allowed = methods
}

func (l *login) setExhausted(exhausted bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.exhausted = exhausted
}

// next returns the next authentication method to try: each key, then keyboard-interactive, then password.
func (l *login) next(c *ssh.ClientAuthContext) (method ssh.AuthMethod, err error) {
	defer func() { l.setExhausted(method == nil && err == nil) }()
	if err := l.ctx.Err(); err != nil {
		return nil, context.Cause(l.ctx)
	}
	if l.abortErr != nil {
		return nil, l.abortErr
	}
	l.setAllowed(c.AllowedMethods)
	if slices.Contains(c.AllowedMethods, "publickey") {
		if signer := l.nextKey(); signer != nil {
			return ssh.PublicKeys(signer), nil
		}
	}
	if l.st.prompts.prompter == nil {
		return nil, nil
	}
	l.noInteractive = l.noInteractive || l.lastInteractive && !l.hadQuestions
	l.lastInteractive, l.hadQuestions = false, false
	if l.promptCount >= maxPasswordAttempts {
		return nil, nil
	}
	if slices.Contains(c.AllowedMethods, "keyboard-interactive") && !l.noInteractive {
		l.lastInteractive = true
		return ssh.KeyboardInteractive(l.challenge), nil
	}
	if slices.Contains(c.AllowedMethods, "password") {
		return ssh.PasswordCallback(l.password), nil
	}
	return nil, nil
}

// nextKey removes the next usable key from the list and returns it, or nil.
func (l *login) nextKey() ssh.Signer {
	if !l.hasKeys {
		l.keys, l.hasKeys = l.identities(), true
	}
	for len(l.keys) > 0 && l.ctx.Err() == nil {
		id := l.keys[0]
		l.keys = l.keys[1:]
		signer, err := id.signer()
		if err != nil {
			l.note("%v", err)
			continue
		}
		l.note("offered %s", id.name)
		return signer
	}
	return nil
}

// identities returns the keys to offer: the key file of the target, then the agent keys that ssh_config selects, then the
// other agent keys unless IdentitiesOnly is set, then the key files. An encrypted key file is not used if the agent has its
// key.
func (l *login) identities() []identity {
	agentKeys := l.agentSigners()
	var list []identity
	used := map[string]bool{}
	add := func(name string, pub ssh.PublicKey, signer func() (ssh.Signer, error)) {
		if pub != nil {
			if used[string(pub.Marshal())] {
				return
			}
			used[string(pub.Marshal())] = true
		}
		list = append(list, identity{name, signer})
	}
	addAgent := func(match func(ssh.PublicKey) bool) {
		for _, s := range agentKeys {
			if match(s.PublicKey()) {
				name := fmt.Sprintf("agent key %s %s", s.PublicKey().Type(), ssh.FingerprintSHA256(s.PublicKey()))
				add(name, s.PublicKey(), func() (ssh.Signer, error) { return s, nil })
			}
		}
	}
	var files []*keyFile
	for _, path := range l.r.IdentityFiles {
		f := l.st.keys.get(path)
		if f.err != nil && !errors.Is(f.err, os.ErrNotExist) {
			l.note("%v", f.err)
		}
		if f.err == nil {
			files = append(files, f)
		}
	}
	if l.r.KeyFile != "" {
		file := l.st.keys.get(l.r.KeyFile)
		addAgent(func(pub ssh.PublicKey) bool { return file.matches(pub) })
		l.addFile(file, add)
	}
	addAgent(func(pub ssh.PublicKey) bool {
		return slices.ContainsFunc(files, func(f *keyFile) bool { return f.matches(pub) })
	})
	if !l.r.IdentitiesOnly {
		addAgent(func(ssh.PublicKey) bool { return true })
	}
	for _, f := range files {
		l.addFile(f, add)
	}
	return list
}

// matches reports whether pub is the key of the file or a certificate for it.
func (f *keyFile) matches(pub ssh.PublicKey) bool {
	if f.pub == nil {
		return false
	}
	if cert, ok := pub.(*ssh.Certificate); ok {
		pub = cert.Key
	}
	return bytes.Equal(f.pub.Marshal(), pub.Marshal())
}

// addFile adds a key file, preceded by its certificates.
func (l *login) addFile(f *keyFile, add func(string, ssh.PublicKey, func() (ssh.Signer, error))) {
	if f.err != nil || !f.isPrivate() {
		return
	}
	if f.pub == nil {
		add(f.path, nil, func() (ssh.Signer, error) { return f.unlock(l.ctx, l.clock, &l.st.prompts) })
		return
	}
	if signer, _ := f.cachedSigner(); signer == nil && l.st.prompts.prompter == nil {
		add(f.path, f.pub, func() (ssh.Signer, error) {
			return nil, fmt.Errorf("%s needs a passphrase, but %w", f.path, errNoPrompter)
		})
		return
	}
	signer := &lazySigner{file: f, login: l}
	for _, cert := range append(slices.Clone(f.certs), readCertificates(l.r.CertificateFiles...)...) {
		if f.matches(cert) {
			add(f.path+" with its certificate", cert, func() (ssh.Signer, error) { return ssh.NewCertSigner(cert, signer) })
		}
	}
	add(f.path, f.pub, func() (ssh.Signer, error) { return signer, nil })
}
