package sshx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
)

// passwordTries is how many passwords are asked for at one host.
const passwordTries = 3

// login is one attempt to log in at one host. The handshake's goroutine drives it.
type login struct {
	st    *state
	r     Resolved
	ctx   context.Context
	clock *clock

	keys     []identity // still to be offered
	prepared bool
	asked    int             // passwords asked for
	tried    map[string]bool // passwords that this host has seen
	last     string          // the newest of them
	noKI     bool            // keyboard-interactive asks nothing here
	answered bool            // the running keyboard-interactive attempt asked something
	stop     error           // ends the login

	mu    sync.Mutex
	stage string   // what it is doing, for a timeout's message
	notes []string // what was offered and what could not be, for the message of a failed login
}

// identity is a key to offer.
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

// next chooses what to try next: every key, one after another, then keyboard-interactive, then password.
func (l *login) next(c *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if err := l.ctx.Err(); err != nil {
		return nil, context.Cause(l.ctx)
	}
	if l.stop != nil {
		return nil, l.stop
	}
	if slices.Contains(c.AllowedMethods, "publickey") {
		if signer := l.nextKey(); signer != nil {
			return ssh.PublicKeys(signer), nil
		}
	}
	if l.st.ask.prompter == nil {
		return nil, nil
	}
	if l.answered { // and was refused
		l.answered = false
	} else if len(l.tried) == 0 && slices.Contains(c.TriedMethods, "keyboard-interactive") {
		l.noKI = true
	}
	if l.asked >= passwordTries {
		return nil, nil
	}
	if slices.Contains(c.AllowedMethods, "keyboard-interactive") && !l.noKI {
		return ssh.KeyboardInteractive(l.challenge), nil
	}
	if slices.Contains(c.AllowedMethods, "password") {
		return ssh.PasswordCallback(l.password), nil
	}
	return nil, nil
}

// nextKey takes the next key that can be used from the list.
func (l *login) nextKey() ssh.Signer {
	if !l.prepared {
		l.keys, l.prepared = l.identities(), true
	}
	for len(l.keys) > 0 && l.ctx.Err() == nil {
		id := l.keys[0]
		l.keys = l.keys[1:]
		signer, err := id.signer()
		if err != nil {
			l.note("%v", err)
			continue
		}
		l.note("%s was offered", id.name)
		return signer
	}
	return nil
}

// identities lists the keys to offer: the target's own key file, then keys of the agent that ssh_config names, then the
// agent's other keys unless IdentitiesOnly, then key files. A locked key file whose key the agent has is not unlocked.
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
		own := l.st.keys.get(l.r.KeyFile)
		addAgent(func(pub ssh.PublicKey) bool { return own.matches(pub) })
		l.addFile(own, add)
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

// matches tells whether pub is the file's key or a certificate for it.
func (f *keyFile) matches(pub ssh.PublicKey) bool {
	if f.pub == nil {
		return false
	}
	if cert, ok := pub.(*ssh.Certificate); ok {
		pub = cert.Key
	}
	return bytes.Equal(f.pub.Marshal(), pub.Marshal())
}

// addFile adds a key file, its certificates first.
func (l *login) addFile(f *keyFile, add func(string, ssh.PublicKey, func() (ssh.Signer, error))) {
	if f.err != nil || !f.isPrivate() {
		return
	}
	if f.pub == nil {
		add(f.path, nil, func() (ssh.Signer, error) { return f.unlock(l.ctx, l.clock, &l.st.ask) })
		return
	}
	if signer, _ := f.state(); signer == nil && l.st.ask.prompter == nil {
		add(f.path, f.pub, func() (ssh.Signer, error) {
			return nil, fmt.Errorf("%s needs a passphrase and %w", f.path, errNoPrompter)
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

// challenge answers keyboard-interactive. A single hidden question is taken for the password.
func (l *login) challenge(name, instruction string, questions []string, echos []bool) ([]string, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	l.answered = true
	if len(questions) == 1 && !echos[0] && strings.Contains(strings.ToLower(questions[0]), "password") {
		answer, err := l.password()
		return []string{answer}, err
	}
	l.asked++
	answers := make([]string, len(questions))
	err := l.st.ask.turn(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
		for i, q := range questions {
			text := strings.Join(strings.Fields(strings.Join([]string{name, instruction, q}, " ")), " ")
			var err error
			if answers[i], err = p.Secret(ctx, l.r.Address()+": "+text); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		l.stop = fmt.Errorf("question not answered: %w", err)
		return nil, l.stop
	}
	return answers, nil
}

// password is one that this host has not seen: one that was given for the user before, or a new one.
func (l *login) password() (string, error) {
	known := &l.st.passwords
	pw, ok := known.untried(l.r.User, l.r.Address(), l.tried)
	if !ok {
		err := l.st.ask.turn(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
			if pw, ok = known.untried(l.r.User, l.r.Address(), l.tried); ok {
				return nil // given while this one waited for its turn
			}
			question := fmt.Sprintf("Password of %s:", l.r.Address())
			if len(l.tried) > 0 {
				question = fmt.Sprintf("The password was refused. Password of %s:", l.r.Address())
			}
			var err error
			if pw, err = p.Secret(ctx, question); err != nil {
				return err
			}
			l.asked++
			known.add(l.r.User, pw)
			return nil
		})
		if err != nil {
			l.stop = fmt.Errorf("password not given: %w", err)
			return "", l.stop
		}
	}
	l.note("a password was tried")
	if l.tried == nil {
		l.tried = map[string]bool{}
	}
	l.tried[pw], l.last = true, pw
	return pw, nil
}

// passwords remembers what was typed, so that a user is asked once for many hosts.
type passwords struct {
	mu     sync.Mutex
	byUser map[string][]string // newest last
	byHost map[string]string   // what a host took, by user@host:port
}

// rememberedPasswords bounds how many old passwords a host is tried with, because hosts ban after too many wrong ones.
const rememberedPasswords = 2

func (p *passwords) untried(user, host string, tried map[string]bool) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pw, ok := p.byHost[host]; ok && !tried[pw] {
		return pw, true
	}
	list := p.byUser[user]
	for i := len(list) - 1; i >= 0 && i >= len(list)-rememberedPasswords; i-- {
		if !tried[list[i]] {
			return list[i], true
		}
	}
	return "", false
}

func (p *passwords) add(user, pw string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byUser == nil {
		p.byUser = map[string][]string{}
	}
	p.byUser[user] = append(slices.DeleteFunc(p.byUser[user], func(s string) bool { return s == pw }), pw)
}

func (p *passwords) worked(host, pw string) {
	if pw == "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byHost == nil {
		p.byHost = map[string]string{}
	}
	p.byHost[host] = pw
}
