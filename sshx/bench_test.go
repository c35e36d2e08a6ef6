package sshx_test

import (
	"bytes"
	"crypto/sha256"
	"math/rand"
	"testing"

	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"github.com/rbee-keeper/rbee/sshx/sshtest/conform"
	"golang.org/x/crypto/ssh"
)

func benchOptions(c *clientFiles) sshtest.Options {
	return sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}}
}

// BenchmarkDialScript measures Dial and one Script.
func BenchmarkDialScript(b *testing.B) {
	c := newClientFiles(b)
	for name, h := range map[string]server{"inprocess": newHost(b, benchOptions(c)), "openssh": newOpenSSH(b, benchOptions(c))} {
		b.Run(name, func(b *testing.B) {
			c.writeKnownHosts(b, h)
			d := c.dialer(b, "")
			for b.Loop() {
				client, err := d.Dial(b.Context(), c.target(h))
				if err != nil {
					b.Fatal(err)
				}
				if err := client.Script(b.Context(), "echo ok", nil, nil); err != nil {
					b.Fatal(err)
				}
				client.Close()
			}
		})
	}
}

// BenchmarkRun measures Run on an open connection.
func BenchmarkRun(b *testing.B) {
	c := newClientFiles(b)
	client := c.dial(b, newHost(b, benchOptions(c)))
	for b.Loop() {
		if err := client.Run(b.Context(), []string{"true"}, nil, nil, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPut measures an upload of 8 MiB that are compressed to about half, like an executable.
func BenchmarkPut(b *testing.B) {
	content := make([]byte, 8<<20)
	rand.New(rand.NewSource(1)).Read(content[:len(content)/2])
	gz, want := gzipped(string(content)), sha256.Sum256(content)
	c := newClientFiles(b)
	for name, host := range map[string]conform.Host{
		"inprocess": c.dial(b, newHost(b, benchOptions(c))),
		"openssh":   c.dial(b, newOpenSSH(b, benchOptions(c))),
		"local":     &sshx.Local{Dir: b.TempDir()},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(content)))
			for b.Loop() {
				if err := host.Put(b.Context(), "program", 0o755, bytes.NewReader(gz), want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkResolve measures Resolve with an ssh_config file that has 500 hosts.
func BenchmarkResolve(b *testing.B) {
	c := newClientFiles(b)
	var config bytes.Buffer
	for range 500 {
		config.WriteString("Host gpu-x\nHostName 10.0.0.1\nUser bee\nIdentityFile ~/.ssh/id\n")
	}
	d := c.dialer(b, config.String())
	for b.Loop() {
		if _, err := d.Resolve(sshx.Target{Host: "gpu-1"}); err != nil {
			b.Fatal(err)
		}
	}
}
