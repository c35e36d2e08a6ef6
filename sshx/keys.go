package sshx

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/rbee-keeper/rbee/sshx/internal/timeout"
	"golang.org/x/crypto/ssh"
)

// maxPassphraseAttempts limits how often the user is asked for a passphrase, as in OpenSSH.
const maxPassphraseAttempts = 3

// keyring holds the key files of a Dialer. It reads each file, and asks for its passphrase, only once.
type keyring struct {
	mu    sync.Mutex
	files map[string]*keyFile
}

// keyFile is a private key file, which may be encrypted.
type keyFile struct {
	path  string
	text  []byte
	pub   ssh.PublicKey // nil if not known yet: an encrypted PEM file without a .pub file
	certs []*ssh.Certificate
	err   error // the file is unusable

	mu            sync.Mutex
	signer        ssh.Signer // nil until decrypted
	passphraseErr error      // no valid passphrase was entered
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
		if !errors.Is(f.err, os.ErrNotExist) { // the file may be created later
			k.files[path] = f
		}
	}
	return f
}

// readKeyFile reads a private key, or a public key whose private key is in the agent.
func readKeyFile(path string) *keyFile {
	f := &keyFile{path: path}
	f.certs = readCertificates(path + "-cert.pub")
	pubFile := readPublicKey(path + ".pub")
	if f.text, f.err = os.ReadFile(path); f.err != nil {
		if pubFile != nil && errors.Is(f.err, os.ErrNotExist) {
			f.pub, f.err = pubFile, nil
		}
		return f
	}
	if f.pub = parsePublicKey(f.text); f.pub != nil {
		return f
	}
	signer, err := ssh.ParsePrivateKey(f.text)
	var encrypted *ssh.PassphraseMissingError
	switch {
	case err == nil:
		f.signer, f.pub = signer, signer.PublicKey()
	case errors.As(err, &encrypted):
		if f.pub = encrypted.PublicKey; f.pub == nil {
			f.pub = pubFile
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

// isPrivate reports whether the file contains the private key.
func (f *keyFile) isPrivate() bool { return bytes.Contains(f.text, []byte("PRIVATE KEY-----")) }

// unlock returns the signer. If necessary, it asks for the passphrase.
func (f *keyFile) unlock(ctx context.Context, c *timeout.Clock, q *promptQueue) (ssh.Signer, error) {
	if signer, err := f.cachedSigner(); signer != nil || err != nil {
		return signer, err
	}
	var signer ssh.Signer
	err := q.do(ctx, c, func(ctx context.Context, p Prompter) error {
		var err error
		if signer, err = f.cachedSigner(); signer != nil || err != nil {
			return err // set while this call was waiting
		}
		signer, err = f.askPassphrase(ctx, p)
		return err
	})
	if errors.Is(err, errNoPrompter) {
		err = fmt.Errorf("%s needs a passphrase, but %w", f.path, err)
	}
	return signer, err
}

func (f *keyFile) cachedSigner() (ssh.Signer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.signer, f.passphraseErr
}

func (f *keyFile) askPassphrase(ctx context.Context, p Prompter) (ssh.Signer, error) {
	question := fmt.Sprintf("Passphrase for %s:", f.path)
	var err error
	for range maxPassphraseAttempts {
		var passphrase string
		if passphrase, err = p.Secret(ctx, question); err != nil {
			break
		}
		var signer ssh.Signer
		if signer, err = ssh.ParsePrivateKeyWithPassphrase(f.text, []byte(passphrase)); err == nil {
			f.mu.Lock()
			f.signer = signer
			f.mu.Unlock()
			return signer, nil
		}
		question = fmt.Sprintf("Wrong passphrase. Passphrase for %s:", f.path)
	}
	err = fmt.Errorf("cannot decrypt %s: %w", f.path, err)
	if ctx.Err() == nil {
		f.mu.Lock()
		f.passphraseErr = err
		f.mu.Unlock()
	}
	return nil, err
}

// lazySigner is the signer of a key file. It decrypts the private key only when the host has accepted the public key.
type lazySigner struct {
	file  *keyFile
	login *login
}

func (s *lazySigner) PublicKey() ssh.PublicKey { return s.file.pub }

func (s *lazySigner) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, "")
}

func (s *lazySigner) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	signer, err := s.file.unlock(s.login.ctx, s.login.clock, &s.login.st.prompts)
	if err != nil {
		s.login.note("%v", err)
		return nil, err
	}
	if s, ok := signer.(ssh.AlgorithmSigner); ok {
		return s.SignWithAlgorithm(rand, data, algorithm)
	}
	return signer.Sign(rand, data)
}
