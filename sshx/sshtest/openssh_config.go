package sshtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"
)

// separationDir is an empty directory that the sshd of Debian requires when it runs as root. The system service creates it too.
const separationDir = "/run/sshd"

func (h *OpenSSHHost) configure(o Options) error {
	if os.Geteuid() == 0 {
		if _, err := os.Stat(filepath.Dir(separationDir)); err == nil {
			if err := os.MkdirAll(separationDir, 0o755); err != nil {
				return err
			}
		}
	}
	var config, authorized strings.Builder
	for _, key := range o.AuthorizedKeys {
		authorized.Write(ssh.MarshalAuthorizedKey(key))
	}
	for i, generate := range []func() (ssh.Signer, []byte, error){NewKey, newECDSAKey} {
		key, text, err := generate()
		if err != nil {
			return err
		}
		file := filepath.Join(h.dir, fmt.Sprintf("host_key_%d", i))
		if err := os.WriteFile(file, text, 0o600); err != nil {
			return err
		}
		h.keys = append(h.keys, key.PublicKey())
		fmt.Fprintf(&config, "HostKey %s\n", file)
	}
	forward := "yes"
	if o.NoForward {
		forward = "no"
	}
	sessions := o.MaxSessions
	if sessions <= 0 {
		sessions = 10
	}
	fmt.Fprintf(&config, "AuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"+
		"KbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\nPrintMotd no\nAllowTcpForwarding %s\nMaxSessions %d\n"+
		"Banner %s\nForceCommand /bin/sh %s\nSetEnv \"HOME=%s\"\n", // HOME prevents the shell from reading the start-up files of the user
		h.file("authorized_keys"), forward, sessions, h.file("banner"), h.file("enter"), h.home)
	return errors.Join(
		os.WriteFile(h.file("sshd_config"), []byte(config.String()), 0o600),
		os.WriteFile(h.file("authorized_keys"), []byte(authorized.String()), 0o600),
		os.WriteFile(h.file("banner"), []byte(o.Banner), 0o600),
		os.WriteFile(h.file("enter"), []byte(h.enterScript(o)), 0o700),
	)
}

func (h *OpenSSHHost) file(name string) string { return filepath.Join(h.dir, name) }

// enterScript returns the forced command. It sets the environment and runs the original command.
func (h *OpenSSHHost) enterScript(o Options) string {
	shell := o.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	var b strings.Builder
	for _, kv := range append([]string{"HOME=" + h.home, "PATH=" + defaultPath, "SHELL=" + shell}, o.Env...) {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "export %s=%s\n", name, shellWord(value))
	}
	fmt.Fprintf(&b, "cd || exit\nprintf %%s %s\nexec %s -c \"$SSH_ORIGINAL_COMMAND\"\n", shellWord(o.StartupOutput), shellWord(shell))
	return b.String()
}

func shellWord(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

func newECDSAKey() (ssh.Signer, []byte, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, nil, err
	}
	block, err := ssh.MarshalPrivateKey(private, "sshtest")
	if err != nil {
		return nil, nil, err
	}
	return signer, pem.EncodeToMemory(block), nil
}
