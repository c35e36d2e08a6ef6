package sshx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"golang.org/x/crypto/ssh"
)

// passphraseTries is how often a passphrase is asked for, as in OpenSSH.
const passphraseTries = 3

// keyring keeps the key files that were read: each is read, and its passphrase asked for, once per Dialer.
type keyring struct {
	mu    sync.Mutex
	files map[string]*keyFile
}

// keyFile is a private key on disk, which may still be locked.
type keyFile struct {
	path  string
	text  []byte
	pub   ssh.PublicKey // nil while nobody knows: an encrypted PEM without .pub beside it
	certs []*ssh.Certificate
	err   error // the file cannot be used

	mu     sync.Mutex
	signer ssh.Signer // nil while it is locked
	denied error      // the passphrase was asked for in vain
}

func (k *keyring) get(path string) *keyFile {
	k.mu.Lock()
	defer k.mu.Unlock()
	f := k.files[path]
	if f == nil {
		f = readKeyFile(path)
		if k.files == nil {
			k.files = map[string]*keyFile{}
		}
		if !errors.Is(f.err, os.ErrNotExist) { // a key may be put there later
			k.files[path] = f
		}
	}
	return f
}

// readKeyFile reads a private key, or a public key whose private half the agent has.
func readKeyFile(path string) *keyFile {
	f := &keyFile{path: path}
	f.certs = readCertificates(path + "-cert.pub")
	beside := readPublicKey(path + ".pub")
	if f.text, f.err = os.ReadFile(path); f.err != nil {
		if beside != nil && errors.Is(f.err, os.ErrNotExist) {
			f.pub, f.err = beside, nil
		}
		return f
	}
	if f.pub = parsePublicKey(f.text); f.pub != nil {
		return f
	}
	signer, err := ssh.ParsePrivateKey(f.text)
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		f.signer, f.pub = signer, signer.PublicKey()
	case errors.As(err, &locked):
		if f.pub = locked.PublicKey; f.pub == nil {
			f.pub = beside
		}
	default:
		f.err = fmt.Errorf("%s: %w", path, err)
	}
	return f
}

func readPublicKey(path string) ssh.PublicKey {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return parsePublicKey(text)
}

func parsePublicKey(text []byte) ssh.PublicKey {
	if bytes.Contains(text, []byte("PRIVATE KEY-----")) {
		return nil
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(text)
	if err != nil {
		return nil
	}
	return pub
}

func readCertificates(paths ...string) (certs []*ssh.Certificate) {
	for _, path := range paths {
		if cert, ok := readPublicKey(path).(*ssh.Certificate); ok {
			certs = append(certs, cert)
		}
	}
	return certs
}

// isPrivate tells whether the file holds the private key itself.
func (f *keyFile) isPrivate() bool { return bytes.Contains(f.text, []byte("PRIVATE KEY-----")) }

// unlock gives the signer, asking for the passphrase if need be.
func (f *keyFile) unlock(ctx context.Context, c *clock, a *asker) (ssh.Signer, error) {
	if signer, err := f.state(); signer != nil || err != nil {
		return signer, err
	}
	var signer ssh.Signer
	err := a.turn(ctx, c, func(ctx context.Context, p Prompter) error {
		var err error
		if signer, err = f.state(); signer != nil || err != nil {
			return err // answered while this one waited for its turn
		}
		signer, err = f.askPassphrase(ctx, p)
		return err
	})
	if errors.Is(err, errNoPrompter) {
		err = fmt.Errorf("%s needs a passphrase and %w", f.path, err)
	}
	return signer, err
}

func (f *keyFile) state() (ssh.Signer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signer, f.denied
}

func (f *keyFile) askPassphrase(ctx context.Context, p Prompter) (ssh.Signer, error) {
	question := fmt.Sprintf("Passphrase for %s:", f.path)
	var err error
	for range passphraseTries {
		var phrase string
		if phrase, err = p.Secret(ctx, question); err != nil {
			break
		}
		var signer ssh.Signer
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(f.text, []byte(phrase)); err == nil {
			f.mu.Lock()
			f.signer = signer
			f.mu.Unlock()
			return signer, nil
		}
		question = fmt.Sprintf("That was wrong. Passphrase for %s:", f.path)
	}
	err = fmt.Errorf("%s stays locked: %w", f.path, err)
	if ctx.Err() == nil {
		f.mu.Lock()
		f.denied = err
		f.mu.Unlock()
	}
	return nil, err
}

// lazySigner shows the public key at once and unlocks the private one when the host has said that it would take it.
type lazySigner struct {
	file  *keyFile
	login *login
}

func (s *lazySigner) PublicKey() ssh.PublicKey { return s.file.pub }

func (s *lazySigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

func (s *lazySigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := s.file.unlock(s.login.ctx, s.login.clock, &s.login.st.ask)
	if err != nil {
		s.login.note("%v", err)
		return nil, err
	}
	if with, ok := signer.(ssh.AlgorithmSigner); ok {
		return with.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}
