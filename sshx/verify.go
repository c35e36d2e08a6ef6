package sshx

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/crypto/ssh"
)

// verify checks the key that the host presents during the handshake.
func (l *login) verify(key ssh.PublicKey) error {
	set, err := l.st.knownHosts.open(l.r.KnownHosts)
	if err != nil {
		return err
	}
	keyErr := set.check(l.r.HostKeyName(), key)
	if keyErr == nil {
		return nil
	}
	if keyErr.File != "" || keyErr.Err != nil {
		return keyErr
	}
	if !l.st.acceptNew && l.r.StrictHostKeys != "accept-new" {
		if err := l.confirm(key, keyErr); err != nil {
			return err
		}
	}
	if err := l.st.knownHosts.accept(l.r.KnownHosts, l.r.HostKeyName(), key, l.r.HashKnownHosts); err != nil {
		var other *HostKeyError
		if errors.As(err, &other) {
			return other
		}
		keyErr.Err = fmt.Errorf("cannot record the accepted key: %w", err)
		return keyErr
	}
	return nil
}

// confirm asks the user to accept an unknown key. If another connection records the key while confirm waits for its turn,
// confirm does not ask.
func (l *login) confirm(key ssh.PublicKey, keyErr *HostKeyError) error {
	if l.r.StrictHostKeys == "yes" || l.st.prompts.prompter == nil {
		return keyErr
	}
	question := fmt.Sprintf("The host key of %s (%s) is unknown: %s %s. Accept and store it?",
		keyErr.Host, l.r.Address(), keyErr.KeyType, keyErr.Fingerprint)
	return l.st.prompts.do(l.ctx, l.clock, func(ctx context.Context, p Prompter) error {
		set, err := l.st.knownHosts.open(l.r.KnownHosts)
		if err != nil {
			return err
		}
		if keyErr := set.check(l.r.HostKeyName(), key); keyErr == nil {
			return nil
		} else if keyErr.File != "" {
			return keyErr
		}
		yes, err := p.Confirm(ctx, question)
		if err != nil {
			keyErr.Err = err
			return keyErr
		}
		if !yes {
			keyErr.Err = errors.New("the user rejected the key")
			return keyErr
		}
		// Record the key before the next prompt, which may be about the same host.
		return l.st.knownHosts.accept(l.r.KnownHosts, l.r.HostKeyName(), key, l.r.HashKnownHosts)
	})
}
