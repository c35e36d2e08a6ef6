package sshtest

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"

	"golang.org/x/crypto/ssh"
)

// NewKey generates an ed25519 key. pem is the private key in the OpenSSH format, as in ~/.ssh/id_ed25519.
func NewKey() (key ssh.Signer, pem []byte, err error) { return newKey("") }

// NewEncryptedKey works like NewKey but encrypts the private key with a passphrase.
func NewEncryptedKey(passphrase string) (key ssh.Signer, pem []byte, err error) {
	return newKey(passphrase)
}

func newKey(passphrase string) (ssh.Signer, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, err
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(private, "sshtest")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(private, "sshtest", []byte(passphrase))
	}
	if err != nil {
		return nil, nil, err
	}
	return signer, pem.EncodeToMemory(block), nil
}
