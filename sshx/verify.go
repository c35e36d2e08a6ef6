package sshx

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// verify is called during the handshake with the key that the host shows.
func (l *login) verify(key ssh.PublicKey) error {
	set, err := l.st.known.open(l.r.KnownHosts)
	if err != nil {
		return err
	}
	bad := set.check(l.r.HostKeyName(), key)
	if bad == nil {
		return nil
	}
	if bad.File != "" || bad.Err != nil {
		return bad
	}
	if !l.st.acceptNew && l.r.StrictHostKeys != "accept-new" {
		if err := l.confirm(key, bad); err != nil {
			return err
		}
	}
	if err := l.st.known.accept(l.r.KnownHosts, l.r.HostKeyName(), key, l.r.HashKnownHosts); err != nil {
		var other *HostKeyError
		if errors.As(err, &other) {
			return other
		}
		bad.Err = fmt.Errorf("it was accepted but cannot be recorded: %w", err)
		return bad
	}
	return nil
}

// confirm asks the user. Where two connections to one host ask, the second finds the first one's answer.
func (l *login) confirm(key ssh.PublicKey, bad *HostKeyError) error {
	if l.r.StrictHostKeys == "yes" || l.st.ask.prompter == nil {
		return bad
	}
	question := fmt.Sprintf("The host key of %s (%s) is not known. It is %s %s. Trust it from now on?",
		bad.Host, l.r.Address(), bad.KeyType, bad.Fingerprint)
	return l.st.ask.turn(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
		set, err := l.st.known.open(l.r.KnownHosts)
		if err != nil {
			return err
		}
		if bad := set.check(l.r.HostKeyName(), key); bad == nil {
			return nil
		} else if bad.File != "" {
			return bad
		}
		yes, err := p.Confirm(ctx, question)
		if err != nil {
			bad.Err = err
			return bad
		}
		if !yes {
			bad.Err = errors.New("it was not accepted")
			return bad
		}
		// Recorded before the next question, which may be about the same host.
		return l.st.known.accept(l.r.KnownHosts, l.r.HostKeyName(), key, l.r.HashKnownHosts)
	})
}
