package sshx_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"

	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"golang.org/x/crypto/ssh"
)

// exampleHost makes a throw-away host, and a Dialer that knows it. A real program writes &sshx.Dialer{}.
func exampleHost() (d *sshx.Dialer, t sshx.Target, done func()) {
	key, pem, err := sshtest.NewKey()
	if err != nil {
		log.Fatal(err)
	}
	h, err := sshtest.New(sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}, User: "bee"})
	if err != nil {
		log.Fatal(err)
	}
	home, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	file := func(name, text string) string {
		path := filepath.Join(home, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			log.Fatal(err)
		}
		return path
	}
	config := fmt.Sprintf("Host gpu-1\nHostName 127.0.0.1\nPort %d\nUser bee\nIdentityAgent none\nIdentityFile %s\n", h.Port(), file("id", string(pem)))
	d = &sshx.Dialer{
		Home:        home,
		ConfigFiles: []string{file("config", config)},
		KnownHosts:  []string{file("known_hosts", h.KnownHostsLines())},
	}
	return d, sshx.Target{Host: "gpu-1"}, func() {
		d.Close()
		h.Close()
		os.RemoveAll(home)
	}
}

// Connect as the user's own ssh would, and run a program.
func ExampleDialer_Dial() {
	dialer, target, done := exampleHost()
	defer done()
	ctx := context.Background()

	client, err := dialer.Dial(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.Run(ctx, []string{"echo", "it's", "$HOME"}, nil, os.Stdout, os.Stderr); err != nil {
		log.Fatal(err)
	}
	// Output: it's $HOME
}

// See what ssh_config says, without connecting.
func ExampleDialer_Resolve() {
	dialer, target, done := exampleHost()
	defer done()

	r, err := dialer.Resolve(target)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.User, "at", r.HostName, "with", filepath.Base(r.IdentityFiles[0]))
	hosts, err := dialer.Hosts("gpu-*")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(hosts)
	// Output:
	// bee at 127.0.0.1 with id
	// [gpu-1]
}

// An exit status is an error of its own type.
func ExampleClient_Script() {
	dialer, target, done := exampleHost()
	defer done()
	ctx := context.Background()

	client, err := dialer.Dial(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	err = client.Script(ctx, `
		for word in state of the hive; do
			echo "$word"
		done
		echo "no hive here" >&2
		exit 3
	`, os.Stdout, nil)
	var exit *sshx.ExitError
	if errors.As(err, &exit) {
		fmt.Printf("status %d: %s", exit.Status, exit.Stderr)
	}
	// Output:
	// state
	// of
	// the
	// hive
	// status 3: no hive here
}

// Send a file. It is compressed once, for however many hosts.
func ExampleClient_Put() {
	dialer, target, done := exampleHost()
	defer done()
	ctx := context.Background()

	content := []byte("#!/bin/sh\necho hello from the new program\n")
	var gz bytes.Buffer
	w := gzip.NewWriter(&gz)
	w.Write(content)
	w.Close()

	client, err := dialer.Dial(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	if err := client.Put(ctx, "bin/hello", 0o755, bytes.NewReader(gz.Bytes()), sha256.Sum256(content)); err != nil {
		log.Fatal(err)
	}
	if err := client.Run(ctx, []string{"bin/hello"}, nil, os.Stdout, os.Stderr); err != nil {
		log.Fatal(err)
	}
	// Output: hello from the new program
}

// Speak HTTP with a server that only the far side can reach.
func ExampleClient_Dial() {
	dialer, target, done := exampleHost()
	defer done()
	ctx := context.Background()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hive is well")
	}))
	defer server.Close()

	client, err := dialer.Dial(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	web := http.Client{Transport: &http.Transport{DialContext: client.Dial}}
	defer web.CloseIdleConnections()
	res, err := web.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: hive is well <nil>
}

// This machine behind the same methods.
func ExampleLocal() {
	local := &sshx.Local{Env: []string{"GREETING=hello"}, Dir: os.TempDir()}
	if err := local.Script(context.Background(), `echo "$GREETING, $(basename "$0")"`, os.Stdout, os.Stderr); err != nil {
		log.Fatal(err)
	}
	// Output: hello, sh
}

// A program that does not import this package can still tell errors apart.
func ExampleError_ErrorCode() {
	dialer, _, done := exampleHost()
	defer done()

	_, err := dialer.Dial(context.Background(), sshx.Target{Host: "no-such-host.invalid"})
	var coded interface{ ErrorCode() string }
	if errors.As(err, &coded) {
		fmt.Println(coded.ErrorCode())
	}
	// Output: resolve
}

func ExampleQuote() {
	fmt.Println(sshx.Quote("grep", "-e", "it's $5", "a file"))
	fmt.Println(strings.Count(sshx.Quote("plain"), "'"))
	// Output:
	// grep -e 'it'\''s $5' 'a file'
	// 0
}
