package sshx_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbee-keeper/rbee/sshx"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
	"golang.org/x/crypto/ssh"
)

// newHosts starts n hosts that accept the key of c, and writes their keys to the known_hosts file of c.
func newHosts(t *testing.T, c *clientFiles, n int) []*sshtest.Host {
	t.Helper()
	var hosts []*sshtest.Host
	var servers []server
	for range n {
		h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
		hosts, servers = append(hosts, h), append(servers, h)
	}
	c.writeKnownHosts(t, servers...)
	return hosts
}

func TestScriptUsesOneExec(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	client, err := c.dialer(t, "").Dial(t.Context(), c.target(h))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Script(t.Context(), "true", nil, nil); err != nil {
		t.Fatal(err)
	}
	if got, want := h.Stats(), (sshtest.Stats{Connections: 1, Logins: 1, Execs: 1}); got != want {
		t.Errorf("Stats() = %+v, want %+v", got, want)
	}
}

func TestJump(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 7)
	one, two, targets := h[0], h[1], h[2:]
	var config strings.Builder
	fmt.Fprintf(&config, "Host one\nHostName 127.0.0.1\nPort %d\nHost two\nHostName 127.0.0.1\nPort %d\nProxyJump one\n", one.Port(), two.Port())
	for i, h := range targets {
		fmt.Fprintf(&config, "Host t%d\nHostName 127.0.0.1\nPort %d\n", i, h.Port())
	}
	config.WriteString("Host t*\nProxyJump two\nHost *\nIdentityFile ~/.ssh/id\n")
	d := c.dialer(t, config.String())
	var clients []*sshx.Client
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range targets {
		all.Go(func() {
			client, err := d.Dial(t.Context(), sshx.Target{Host: fmt.Sprint("t", i)})
			if err != nil {
				t.Errorf("Dial(t%d) = %v, want no error", i, err)
				return
			}
			mu.Lock()
			clients = append(clients, client)
			mu.Unlock()
			var out bytes.Buffer
			if err := client.Run(t.Context(), []string{"pwd"}, nil, &out, nil); err != nil || out.String() != targets[i].Home()+"\n" {
				t.Errorf("Run(pwd) on t%d printed %q, error %v, want %q", i, out.String(), err, targets[i].Home()+"\n")
			}
		})
	}
	all.Wait()
	for name, hop := range map[string]*sshtest.Host{"one": one, "two": two} {
		if n := hop.Stats().Connections; n != 1 {
			t.Errorf("jump host %s has %d connections, want 1", name, n)
		}
	}
	if n := one.Stats().Forwards; n != 1 {
		t.Errorf("jump host one has %d forwards, want 1", n)
	}
	// When the connection to a jump host is lost, the clients through it get an error. The next dial reconnects.
	one.Cut()
	for _, client := range clients {
		wantReason(t, "Wait()", client.Wait(), sshx.ReasonLost)
	}
	wantLogin(t, d, sshx.Target{Host: "t0"})
	// Close closes the shared connections. The Dialer can be used again.
	client, err := d.Dial(t.Context(), sshx.Target{Host: "t1"})
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	wantReason(t, "Wait()", client.Wait(), sshx.ReasonLost)
	wantLogin(t, d, sshx.Target{Host: "t1"})
}

func TestJumpList(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 3)
	config := fmt.Sprintf("Host *\nIdentityFile ~/.ssh/id\nHost target\nHostName 127.0.0.1\nPort %d\nProxyJump 127.0.0.1:%d,ssh://%s@127.0.0.1:%d\n",
		h[2].Port(), h[0].Port(), h[1].User(), h[1].Port())
	wantLogin(t, c.dialer(t, config), sshx.Target{Host: "target"})
	for i, want := range []int{1, 1, 0} {
		if n := h[i].Stats().Forwards; n != want {
			t.Errorf("host %d has %d forwards, want %d", i, n, want)
		}
	}
}

func TestJumpFails(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 2)
	config := fmt.Sprintf("Host target\nHostName 127.0.0.1\nPort %d\nProxyJump 127.0.0.1:%d\n", h[1].Port(), h[0].Port())
	e := wantReason(t, "Dial()", login(t, c.dialer(t, config), sshx.Target{Host: "target"}), sshx.ReasonAuth)
	if !strings.Contains(e.Error(), "jump host") || !strings.Contains(e.Error(), fmt.Sprint(h[0].Port())) {
		t.Errorf("Dial() returned error %q, want an error with the address of the jump host", e)
	}
	h[1].Refuse(true)
	wantReason(t, "Dial()", login(t, c.dialer(t, config+"Host *\nIdentityFile ~/.ssh/id\n"), sshx.Target{Host: "target"}), sshx.ReasonRefused)
	noForward := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, NoForward: true})
	c.writeKnownHosts(t, h[0], h[1], noForward)
	config = fmt.Sprintf("Host target\nHostName 127.0.0.1\nPort %d\nProxyJump 127.0.0.1:%d\nHost *\nIdentityFile ~/.ssh/id\n", h[1].Port(), noForward.Port())
	e = wantReason(t, "Dial()", login(t, c.dialer(t, config), sshx.Target{Host: "target"}), sshx.ReasonProhibited)
	if !strings.Contains(e.Error(), "prohibited") {
		t.Errorf("Dial() returned error %q, want the message of the jump host", e)
	}
}

func TestProxyCommand(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("bash is not installed")
	}
	relay := c.write(t, "relay", "exec 3<>/dev/tcp/$1/$2\ncat <&3 & cat >&3\nkill $!\n")
	config := fmt.Sprintf("Host box\nHostName 127.0.0.1\nPort %d\nIdentityFile ~/.ssh/id\nProxyCommand %s %s %%h %%p\n", h.Port(), bash, relay)
	d := c.dialer(t, config)
	client, err := d.Dial(t.Context(), sshx.Target{Host: "box"})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Run(t.Context(), []string{"true"}, nil, nil, nil); err != nil {
		t.Errorf("Run(true) through a ProxyCommand = %v, want nil", err)
	}
	client.Close()

	d = c.dialer(t, "ProxyCommand sh -c 'echo proxy error >&2; exit 1'\n")
	e := wantReason(t, "Dial()", login(t, d, sshx.Target{Host: "box"}), sshx.ReasonLost)
	if !strings.Contains(e.Error(), "proxy error") {
		t.Errorf("Dial() returned error %q, want the message of the ProxyCommand", e)
	}
	wantReason(t, "Dial()", login(t, d, sshx.Target{Host: "$(touch x)"}), sshx.ReasonConfig)
}

func TestDialReasons(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	d := c.dialer(t, "")
	h.Refuse(true)
	wantReason(t, "Dial()", login(t, d, c.target(h)), sshx.ReasonRefused)
	h.Refuse(false)
	if err := login(t, d, c.target(h)); err != nil {
		t.Errorf("Dial() after the port was reopened = %v, want no error", err)
	}
	wantReason(t, "Dial()", login(t, d, sshx.Target{Host: "no-such-host.invalid"}), sshx.ReasonResolve)
	wantReason(t, "Dial()", login(t, d, sshx.Target{}), sshx.ReasonConfig)
	wantReason(t, "Dial()", login(t, c.dialer(t, "Port x\n"), sshx.Target{Host: "h"}), sshx.ReasonConfig)
	wantReason(t, "Dial()", login(t, &sshx.Dialer{Home: c.home, ConfigFiles: []string{c.path("nope")}}, c.target(h)), sshx.ReasonConfig)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := d.Dial(ctx, c.target(h))
	wantReason(t, "Dial()", err, sshx.ReasonCanceled)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Dial() with a canceled context returned %v, want %v", err, context.Canceled)
	}
}

// listen starts a TCP server and returns its port.
func listen(t *testing.T, serve func(net.Conn)) (port int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	return l.Addr().(*net.TCPAddr).Port
}

func TestDialNonSSHServer(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	port := listen(t, func(conn net.Conn) {
		io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n")
		conn.Close()
	})
	e := wantReason(t, "Dial()", login(t, c.dialer(t, ""), sshx.Target{Host: "127.0.0.1", Port: port}), sshx.ReasonProtocol)
	if !strings.Contains(e.Error(), "400 Bad Request") {
		t.Errorf("Dial() to an HTTP server returned error %q, want the line that it sent", e)
	}
}

func TestDialTimeout(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	h.Stall(true)
	d := c.dialer(t, "")
	d.Timeout = 100 * time.Millisecond
	start := time.Now()
	e := wantReason(t, "Dial()", login(t, d, c.target(h)), sshx.ReasonTimeout)
	if elapsed := time.Since(start); elapsed > 5*time.Second || !strings.Contains(e.Error(), "100ms") {
		t.Errorf("Dial() returned error %q after %s, want an error with the timeout within 5s", e, elapsed)
	}
	// The deadline of the context is earlier than the timeout.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := c.dialer(t, "ConnectTimeout 1h\n").Dial(ctx, c.target(h))
	wantReason(t, "Dial()", err, sshx.ReasonTimeout)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial() with an expired deadline returned %v, want %v", err, context.DeadlineExceeded)
	}
}

// TestTimeoutExcludesPrompts checks that a prompt can take longer than the timeout.
func TestTimeoutExcludesPrompts(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}})
	d := c.dialer(t, "")
	d.Timeout = 500 * time.Millisecond
	d.Prompter = &fakePrompter{confirm: func(string) (bool, error) {
		<-time.After(700 * time.Millisecond)
		return true, nil
	}}
	wantLogin(t, d, c.target(h))
}

func TestDialRetriesDroppedConnections(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	h.DropNext(2)
	wantLogin(t, c.dialer(t, ""), c.target(h))
	if n := h.Stats().Connections; n != 3 {
		t.Errorf("host accepted %d connections, want 3", n)
	}
	h.DropNext(1000)
	d := c.dialer(t, "")
	d.Timeout = 300 * time.Millisecond // too short for all attempts
	e := wantReason(t, "Dial()", login(t, d, c.target(h)), sshx.ReasonLost)
	if !strings.Contains(e.Error(), "attempts") {
		t.Errorf("Dial() returned error %q, want an error with the number of attempts", e)
	}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	d := c.dialer(t, "")
	d.KeepAlive = 50 * time.Millisecond
	client, err := d.Dial(t.Context(), c.target(h))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	// An idle connection stays open while the host responds.
	if err := client.Run(t.Context(), []string{"sleep", "0.5"}, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	h.Stall(true)
	e := wantReason(t, "Run()", client.Run(t.Context(), []string{"true"}, nil, nil, nil), sshx.ReasonLost)
	if !strings.Contains(e.Error(), "no data received") {
		t.Errorf("Run() on a stalled host returned error %q, want an error that no data was received", e)
	}
	<-client.Done()
	e = wantReason(t, "Wait()", client.Wait(), sshx.ReasonLost)
	if !strings.Contains(e.Error(), "3 keepalive requests") {
		t.Errorf("Wait() returned error %q, want an error with 3 keepalive requests", e)
	}
	_, err = client.Dial(t.Context(), "tcp", "127.0.0.1:1")
	wantReason(t, "Dial()", err, sshx.ReasonLost)
}

func TestWaitAfterClose(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	client := c.dial(t, h)
	client.Close()
	if err := client.Wait(); err != nil {
		t.Errorf("Wait() after Close = %v, want nil", err)
	}
	e := wantReason(t, "Run()", client.Run(t.Context(), []string{"true"}, nil, nil, nil), sshx.ReasonLost)
	if !strings.Contains(e.Error(), "closed by this side") {
		t.Errorf("Run() after Close returned error %q, want an error that this side closed the connection", e)
	}
}

func TestRunConnectionLost(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	client := c.dial(t, h)
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- client.Run(t.Context(), []string{"sh", "-c", "echo up; sleep 60"}, nil, w, nil) }()
	if _, err := io.ReadFull(r, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	h.Cut()
	wantReason(t, "Run()", <-done, sshx.ReasonLost)
}

func TestAccountWithoutCommands(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, NoExec: "This account is closed.\n"})
	client := c.dial(t, h)
	for name, call := range map[string]func() error{
		"Run":    func() error { return client.Run(t.Context(), []string{"true"}, nil, nil, nil) },
		"Script": func() error { return client.Script(t.Context(), "true", nil, nil) },
		"Put":    func() error { return client.Put(t.Context(), "x", 0o600, strings.NewReader(""), [32]byte{}) },
	} {
		e := wantReason(t, name+"()", call(), sshx.ReasonFailed)
		if !strings.Contains(e.Error(), "This account is closed.") {
			t.Errorf("%s() returned error %q, want the message of the host", name, e)
		}
	}
}

// TestLoginShells runs commands with different login shells.
func TestLoginShells(t *testing.T) {
	t.Parallel()
	for _, shell := range []string{"bash", "zsh", "fish", "tcsh", "csh", "ksh", "mksh"} {
		path, err := exec.LookPath(shell)
		if err != nil {
			continue // not installed
		}
		t.Run(shell, func(t *testing.T) {
			t.Parallel()
			c := newClientFiles(t)
			h := newHost(t, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{c.key.PublicKey()}, Shell: path})
			client := c.dial(t, h)
			args := []string{"it's", `\`, `\\`, `'\''`, "!!", "a!b", "$HOME", "$(id)", "`id`", "*", "~", `"`, "", "#", "a b", "{a,b}", "%1", "^", "=x"}
			if !strings.HasSuffix(shell, "csh") {
				args = append(args, "a\nb")
			}
			var out bytes.Buffer
			if err := client.Run(t.Context(), append([]string{"printf", `%s\n`}, args...), nil, &out, nil); err != nil {
				t.Fatal(err)
			}
			if want := strings.Join(args, "\n") + "\n"; out.String() != want {
				t.Errorf("Run(printf) printed %q, want %q", out.String(), want)
			}
			out.Reset()
			if err := client.Script(t.Context(), "echo \"it's\" '!' \\\\", &out, nil); err != nil || out.String() != "it's ! \\\n" {
				t.Errorf("Script() printed %q, error %v, want %q", out.String(), err, "it's ! \\\n")
			}
			if err := client.Put(t.Context(), "it's a \\ file!", 0o644, bytes.NewReader(gzipped("x")), sum("x")); err != nil {
				t.Errorf("Put() = %v, want nil", err)
			}
		})
	}
}

func TestLatency(t *testing.T) {
	t.Parallel()
	c := newClientFiles(t)
	h := newHosts(t, c, 1)[0]
	const rtt = 40 * time.Millisecond
	h.SetLatency(rtt)
	start := time.Now()
	client := c.dial(t, h)
	dial := time.Since(start)
	start = time.Now()
	if err := client.Script(t.Context(), "true", nil, nil); err != nil {
		t.Fatal(err)
	}
	script := time.Since(start)
	// With the simulated latency, a login takes about 7 round trips and a script 3.
	if dial < 7*rtt || script < 2*rtt {
		t.Errorf("Dial() took %s and Script() took %s, want at least %s and %s", dial, script, 7*rtt, 2*rtt)
	}
	t.Logf("dial %.1f, script %.1f round trips", float64(dial)/float64(rtt), float64(script)/float64(rtt))
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	file := filepath.Join(home, "config")
	if err := os.WriteFile(file, []byte("Port 0\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	invalid := &sshx.Dialer{Home: home, ConfigFiles: []string{file}}
	_, err := invalid.Resolve(sshx.Target{Host: "h"})
	wantReason(t, "Resolve()", err, sshx.ReasonConfig)
	_, err = invalid.Dial(t.Context(), sshx.Target{Host: "h"})
	wantReason(t, "Dial()", err, sshx.ReasonConfig)
	missing := &sshx.Dialer{Home: home, ConfigFiles: []string{file + "-missing"}}
	_, err = missing.Resolve(sshx.Target{Host: "h"})
	wantReason(t, "Resolve()", err, sshx.ReasonConfig)
	_, err = missing.Hosts("*")
	wantReason(t, "Hosts()", err, sshx.ReasonConfig)
}
