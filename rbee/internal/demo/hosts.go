package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

const (
	// hostCount is the number of SSH hosts.
	hostCount = 3

	// cleanupTimeout limits the time for cleaning up after an interrupt.
	cleanupTimeout = 30 * time.Second
)

// demo is the state of a demo: the hosts, and the "laptop", a home directory with an
// SSH key. The demo runs rbee as a separate program, as a user would.
type demo struct {
	ctx       context.Context
	opts      Options
	exe       string
	dir       string // directory of all files
	key       ssh.Signer
	hosts     []*sshtest.Host
	ports     []int // ports of the hive daemons
	installed bool  // rbee may be installed on the hosts
	err       error // error of the last command; after an error, no more commands run
}

func newDemo(ctx context.Context, o Options) (d *demo, err error) {
	d = &demo{ctx: ctx, opts: o}
	if d.exe, err = os.Executable(); err != nil {
		return nil, fmt.Errorf("cannot find the rbee executable: %w", err)
	}
	if d.dir, err = os.MkdirTemp("", "rbee-demo-"); err != nil {
		return nil, err
	}
	if err = errors.Join(d.startHosts(), d.writeLaptop()); err != nil {
		return nil, errors.Join(err, d.close())
	}
	return d, nil
}

// startHosts starts the hosts and finds a free port for each hive daemon.
func (d *demo) startHosts() error {
	key, pem, err := sshtest.NewKey()
	if err != nil {
		return err
	}
	d.key = key
	var known strings.Builder
	for i := range hostCount {
		host, err := sshtest.New(sshtest.Options{
			Home: filepath.Join(d.dir, d.alias(i)), AuthorizedKeys: []ssh.PublicKey{key.PublicKey()},
		})
		if err != nil {
			return fmt.Errorf("cannot start an SSH host: %w", err)
		}
		d.hosts = append(d.hosts, host)
		known.WriteString(host.KnownHostsLines())
		port, err := freeport.Find(func(port int) bool { return slices.Contains(d.ports, port) })
		if err != nil {
			return err
		}
		d.ports = append(d.ports, port)
	}
	return errors.Join(
		d.write("laptop/.ssh/id_ed25519", pem, 0o600),
		d.write("laptop/.ssh/known_hosts", []byte(known.String()), 0o600),
	)
}

// writeLaptop writes a user recipe with a local file, which rbee sends to the hosts.
func (d *demo) writeLaptop() error {
	program := d.path("laptop/hello.sh")
	recipe := fmt.Sprintf("type: hello\ndescription: A user recipe\nlatest: \"1.0\"\nsources:\n  - version: \"1.0\"\n    file: %q\n", program)
	return errors.Join(
		d.write("laptop/hello.sh", []byte("#!/bin/sh\necho hello\n"), 0o755),
		d.write("laptop/.config/rbee/workers/hello.yaml", []byte(recipe), 0o644),
	)
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

func (d *demo) write(name string, content []byte, mode fs.FileMode) error {
	path := d.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, content, mode)
}

func (d *demo) alias(i int) string { return fmt.Sprintf("gpu-server-%d", i+1) }

// writeConfig writes hives.conf with the first n hosts and prints it.
func (d *demo) writeConfig(n int) error {
	cfg := &config.Config{}
	for i := range n {
		cfg.Hives = append(cfg.Hives, config.Hive{
			Alias: d.alias(i), Hostname: "127.0.0.1", SSHUser: d.hosts[i].User(), SSHPort: d.hosts[i].Port(),
			HivePort: d.ports[i], AutoStart: true,
			Workers: []config.Worker{{Type: "echo", Version: version.Latest}, {Type: "hello", Version: version.Latest}},
		})
	}
	const name = "laptop/.config/rbee/hives.conf"
	if err := d.write(name, config.Format(cfg, "The machines of the demo."), 0o644); err != nil {
		return err
	}
	return d.show(d.path(name)).err
}

// laptopEnv returns environment variables that replace the user's directories with the
// directories of the demo.
func (d *demo) laptopEnv() []string {
	return []string{
		"HOME=" + d.path("laptop"),
		"XDG_CONFIG_HOME=" + d.path("laptop/.config"),
		"XDG_STATE_HOME=" + d.path("laptop/.local/state"),
		"XDG_CACHE_HOME=" + d.path("laptop/.cache"),
	}
}

// env returns the environment of the commands.
func (d *demo) env() []string {
	var env []string
	for _, name := range []string{"PATH", "TMPDIR", "TERM", "LANG", "LC_ALL", "LC_CTYPE", "NO_COLOR", "USER", "LOGNAME"} {
		if value := d.opts.Getenv(name); value != "" {
			env = append(env, name+"="+value)
		}
	}
	return append(env, d.laptopEnv()...)
}

func (d *demo) printLine(text string) { fmt.Fprintln(d.opts.Stdout, text) }

func (d *demo) title(text string) { d.printLine("\n" + text + "\n") }

// rbee prints and runs a command. It stores an error if the exit code is not want.
func (d *demo) rbee(want int, args ...string) *demo {
	if d.err != nil {
		return d
	}
	line := "rbee"
	for _, arg := range args {
		line += " " + shellQuote(arg)
	}
	d.printLine("$ " + line)
	d.installed = d.installed || slices.Contains([]string{"install", "sync"}, args[0])
	code, err := d.run(d.ctx, args)
	switch {
	case err != nil:
		d.err = err
	case code != want:
		d.err = unexpectedExit(line, code, want)
	}
	d.printLine("")
	return d
}

// run runs rbee and returns its exit code. It interrupts rbee when ctx is done.
func (d *demo) run(ctx context.Context, args []string) (int, error) {
	cmd := exec.CommandContext(ctx, d.exe, args...) //nolint:gosec // rbee itself
	setProcessGroup(cmd)
	cmd.Env, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = d.env(), d.opts.Stdout, d.opts.Stderr, cleanupTimeout
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, ctx.Err()
	case errors.As(err, &exit):
		return exit.ExitCode(), nil
	}
	return 0, err
}

// show prints a file, with a cat command line.
func (d *demo) show(path string) *demo {
	if d.err != nil {
		return d
	}
	content, err := os.ReadFile(path)
	if d.err = err; err == nil {
		d.printLine("$ cat " + shellQuote(path))
		d.printLine(string(bytes.TrimRight(content, "\n")) + "\n")
	}
	return d
}

// copyProgram creates a program on a host over SSH, without rbee.
func (d *demo) copyProgram(host int, path string) error {
	command := "cp /bin/sh " + shellQuote(path)
	d.printLine(fmt.Sprintf("$ ssh %s %s", d.alias(host), shellQuote(command)))
	h := d.hosts[host]
	client, err := ssh.Dial("tcp", h.Addr(), &ssh.ClientConfig{
		User: h.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(d.key)},
		HostKeyCallback: ssh.FixedHostKey(h.HostKeys()[0]), Timeout: cleanupTimeout,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		return err
	}
	defer session.Close()
	if out, err := session.CombinedOutput(command); err != nil {
		return fmt.Errorf("%s on %s: %w: %s", command, d.alias(host), err, out)
	}
	return nil
}

// checkEmpty returns an error if files are left on the hosts.
func (d *demo) checkEmpty() error {
	for i, h := range d.hosts {
		left, err := os.ReadDir(h.Home())
		if err != nil {
			return err
		}
		if len(left) > 0 {
			return fmt.Errorf("demo failed: %s still contains %s", d.alias(i), left[0].Name())
		}
	}
	return nil
}

// close stops the hosts and removes all files, also after an interrupt.
func (d *demo) close() error {
	var err error
	if d.installed {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(d.ctx), cleanupTimeout)
		defer cancel()
		if code, runErr := d.run(ctx, []string{"uninstall", "--yes", "--quiet"}); runErr != nil || code != exitOK {
			err = fmt.Errorf("cannot clean up the hosts of the demo: %w", errors.Join(runErr, fmt.Errorf("uninstall exited with code %d", code)))
		}
	}
	for _, h := range d.hosts {
		err = errors.Join(err, h.Close())
	}
	return errors.Join(err, os.RemoveAll(d.dir))
}

// shellQuote quotes a word for a POSIX shell, if necessary.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("-_./=:,~@%+", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
