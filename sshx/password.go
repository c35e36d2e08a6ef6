package sshx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// passwordTries is how many passwords are asked for at one host.
const passwordTries = 3

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
