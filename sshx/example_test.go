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

// exampleHost starts a temporary host, and returns a Dialer for it. Programs normally use the zero Dialer.
func exampleHost() (d *sshx.Dialer, t sshx.Target, cleanup func()) {
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

// Connect like the user's own ssh, and run a program.
func ExampleDialer_Dial() {
	dialer, target, cleanup := exampleHost()
	defer cleanup()
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

// Get the settings for a host without connecting.
func ExampleDialer_Resolve() {
	dialer, target, cleanup := exampleHost()
	defer cleanup()

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

// Run a script and get its exit status.
func ExampleClient_Script() {
	dialer, target, cleanup := exampleHost()
	defer cleanup()
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

// Send a file. The compressed content can be sent to several hosts.
func ExampleClient_Put() {
	dialer, target, cleanup := exampleHost()
	defer cleanup()
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

// Send an HTTP request to a server that is only reachable from the host.
func ExampleClient_Dial() {
	dialer, target, cleanup := exampleHost()
	defer cleanup()
	ctx := context.Background()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "hive ok")
	}))
	defer server.Close()

	client, err := dialer.Dial(ctx, target)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
	httpClient := http.Client{Transport: &http.Transport{DialContext: client.Dial}}
	defer httpClient.CloseIdleConnections()
	res, err := httpClient.Get(server.URL)
	if err != nil {
		log.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	fmt.Println(string(body), err)
	// Output: hive ok <nil>
}

// Run a script on this machine.
func ExampleLocal() {
	local := &sshx.Local{Env: []string{"GREETING=hello"}, Dir: os.TempDir()}
	if err := local.Script(context.Background(), `echo "$GREETING, $(basename "$0")"`, os.Stdout, os.Stderr); err != nil {
		log.Fatal(err)
	}
	// Output: hello, sh
}

// Classify an error without importing this package.
func ExampleError_ErrorCode() {
	dialer, _, cleanup := exampleHost()
	defer cleanup()

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
