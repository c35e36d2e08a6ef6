package sshx

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// maxPasswordAttempts limits how many passwords the user is asked for per host.
const maxPasswordAttempts = 3

// challenge answers the questions of keyboard-interactive authentication. It treats a single hidden question that contains
// "password" as a password prompt.
func (l *login) challenge(name, instruction string, questions []string, echos []bool) ([]string, error) {
	if len(questions) == 0 {
		return nil, nil
	}
	l.hadQuestions = true
	if len(questions) == 1 && !echos[0] && strings.Contains(strings.ToLower(questions[0]), "password") {
		answer, err := l.password()
		return []string{answer}, err
	}
	l.promptCount++
	answers := make([]string, len(questions))
	err := l.st.prompts.do(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
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
		l.abortErr = fmt.Errorf("cannot answer the question of the host: %w", err)
		return nil, l.abortErr
	}
	return answers, nil
}

// password returns a password that has not been tried on this host yet: a cached password of the user, or a new password
// that the user enters.
func (l *login) password() (string, error) {
	cache := &l.st.passwords
	pw, ok := cache.candidate(l.r.User, l.r.Address(), l.triedPasswords)
	if !ok {
		err := l.st.prompts.do(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
			if pw, ok = cache.candidate(l.r.User, l.r.Address(), l.triedPasswords); ok {
				return nil // cached while this call was waiting
			}
			question := fmt.Sprintf("Password of %s:", l.r.Address())
			if len(l.triedPasswords) > 0 {
				question = fmt.Sprintf("Wrong password. Password of %s:", l.r.Address())
			}
			var err error
			if pw, err = p.Secret(ctx, question); err != nil {
				return err
			}
			l.promptCount++
			cache.add(l.r.User, pw)
			return nil
		})
		if err != nil {
			l.abortErr = fmt.Errorf("cannot get the password: %w", err)
			return "", l.abortErr
		}
	}
	l.note("tried a password")
	if l.triedPasswords == nil {
		l.triedPasswords = map[string]bool{}
	}
	l.triedPasswords[pw], l.lastPassword = true, pw
	return pw, nil
}

// passwordCache holds the passwords that the user has entered, so that one prompt is enough for many hosts.
type passwordCache struct {
	mu     sync.Mutex
	byUser map[string][]string // newest last
	byHost map[string]string   // accepted passwords, by user@host:port
}

// maxCachedPasswords limits how many cached passwords are tried on a host. Hosts may block clients after too many attempts.
const maxCachedPasswords = 2

// candidate returns a cached password that has not been tried on host: the password that the host
// accepted before, or else the newest password of the user.
func (p *passwordCache) candidate(user, host string, tried map[string]bool) (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pw, ok := p.byHost[host]; ok && !tried[pw] {
		return pw, true
	}
	cached := p.byUser[user]
	for i := len(cached) - 1; i >= 0 && i >= len(cached)-maxCachedPasswords; i-- {
		if !tried[cached[i]] {
			return cached[i], true
		}
	}
	return "", false
}

func (p *passwordCache) add(user, pw string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byUser == nil {
		p.byUser = map[string][]string{}
	}
	p.byUser[user] = append(slices.DeleteFunc(p.byUser[user], func(s string) bool { return s == pw }), pw)
}

func (p *passwordCache) setAccepted(host, pw string) {
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
