package queen

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// bench contains the setup of benchmarks that compare rbee with minimal SSH programs.
// Environment variables contain the paths of its files:
//
//	RBEE_BENCH_CONFIG      hives.conf of hosts that the benchmarks may modify
//	RBEE_BENCH_SSH_CONFIG  ssh_config with UserKnownHostsFile
//	RBEE_BENCH_KEY         private key
//	RBEE_BENCH_KNOWN       known_hosts
//	RBEE_BENCH_RBEE        stripped rbee for the hosts
//
// See docs/performance.md for the commands and the results.
type bench struct {
	config *config.Config
	queen  *controller.Controller
	opts   controller.Options
	ssh    *ssh.ClientConfig
}

func newBench(b *testing.B) *bench {
	b.Helper()
	env := func(name string) string {
		v := os.Getenv(name)
		if v == "" {
			b.Skip(name + " is not set")
		}
		return v
	}
	config, err := config.Load(env("RBEE_BENCH_CONFIG"))
	if err != nil {
		b.Fatal(err)
	}
	pem, err := os.ReadFile(env("RBEE_BENCH_KEY"))
	if err != nil {
		b.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(pem)
	if err != nil {
		b.Fatal(err)
	}
	known, err := knownhosts.New(env("RBEE_BENCH_KNOWN"))
	if err != nil {
		b.Fatal(err)
	}
	dir := b.TempDir()
	o := controller.Options{
		Version: rbeeVersion, Self: env("RBEE_BENCH_RBEE"),
		Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache")},
	}
	o.SSHConfig = env("RBEE_BENCH_SSH_CONFIG")
	q, err := controller.New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = q.Close() })
	return &bench{config: config, queen: q, opts: o, ssh: &ssh.ClientConfig{
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: known, Timeout: 20 * time.Second,
	}}
}

func (x *bench) scope() operations.Scope {
	return operations.Scope{ConfigPath: x.config.Path}
}

// run runs an operation, and fails the benchmark unless its outcome is want.
func (x *bench) run(b *testing.B, op operations.Operation, want operations.Outcome) {
	b.Helper()
	r, err := x.queen.Run(context.Background(), op, nil)
	if err != nil {
		b.Fatal(err)
	}
	if r.Outcome() != want {
		b.Fatalf("Run(%s) has outcome %s, want %s", op.Kind(), r.Outcome(), want)
	}
}

// bare runs a command on every host, using only x/crypto/ssh.
func (x *bench) bare(b *testing.B, command string, stdin func() io.Reader) {
	b.Helper()
	var wg sync.WaitGroup
	errs := make([]error, len(x.config.Hives))
	for i, h := range x.config.Hives {
		wg.Go(func() {
			errs[i] = func() error {
				c := *x.ssh
				c.User = h.SSHUser
				client, err := ssh.Dial("tcp", net.JoinHostPort(h.Hostname, fmt.Sprint(max(h.SSHPort, 22))), &c)
				if err != nil {
					return err
				}
				defer client.Close()
				s, err := client.NewSession()
				if err != nil {
					return err
				}
				s.Stdin, s.Stdout = stdin(), io.Discard
				return s.Run(command)
			}()
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
}

// measure runs the functions alternately, so that a change of the system load affects all of
// them. It reports the wall time of each, and the CPU time of this process per hive, in
// milliseconds.
func (x *bench) measure(b *testing.B, funcs map[string]func(), order ...string) {
	b.Helper()
	wall, cpu := map[string]time.Duration{}, map[string]time.Duration{}
	n := 0
	for b.Loop() {
		n++
		for _, name := range order {
			c0, t0 := cpuTime(b), time.Now()
			funcs[name]()
			wall[name] += time.Since(t0)
			cpu[name] += cpuTime(b) - c0
		}
	}
	for _, name := range order {
		b.ReportMetric(wall[name].Seconds()*1000/float64(n), name+"-ms")
		b.ReportMetric(cpu[name].Seconds()*1000/float64(n)/float64(len(x.config.Hives)), name+"-cpu-ms/hive")
	}
	if len(order) == 2 {
		b.ReportMetric(wall[order[0]].Seconds()/wall[order[1]].Seconds(), "ratio")
	}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// rbeeVersion is the version of a development build.
const rbeeVersion = "0.1.0-dev"

// probeScript is a script of about 1 KiB that reads the state of a host.
var probeScript = "uname -sm; id -un; cat /proc/meminfo | head -3; df -Pk \"$HOME\"; ls \"$HOME/.local/share/rbee/workers\" 2>/dev/null\n" +
	strings.Repeat("# padding of a script that reads a host's state \n", 18) + "exit 0\n"

// BenchmarkStatus compares `rbee status` with a minimal x/crypto/ssh program that runs a
// shell script of about 1 KiB on each hive.
func BenchmarkStatus(b *testing.B) {
	x := newBench(b)
	x.run(b, operations.PackageInstall{Scope: x.scope()}, operations.OutcomeOK)
	x.measure(b, map[string]func(){
		"rbee": func() { x.run(b, operations.PackageStatus{Scope: x.scope()}, operations.OutcomeOK) },
		"sync": func() { x.run(b, operations.PackageSync{Scope: x.scope()}, operations.OutcomeOK) },
		"bare": func() { x.bare(b, "sh -s", func() io.Reader { return strings.NewReader(probeScript) }) },
	}, "rbee", "bare", "sync")
}

// BenchmarkInstall compares the installation of rbee with a minimal program that streams the
// same compressed bytes through one command per host.
func BenchmarkInstall(b *testing.B) {
	x := newBench(b)
	raw, err := os.ReadFile(os.Getenv("RBEE_BENCH_RBEE"))
	if err != nil {
		b.Fatal(err)
	}
	var compressed bytes.Buffer
	gz, _ := gzip.NewWriterLevel(&compressed, gzip.BestSpeed)
	_, _ = gz.Write(raw)
	_ = gz.Close()
	uninstall := func() { x.run(b, operations.PackageUninstall{Scope: x.scope()}, operations.OutcomeOK) }
	uninstall()
	var rbee, bare time.Duration
	n := 0
	for b.Loop() {
		n++
		t0 := time.Now()
		x.run(b, operations.PackageInstall{Scope: x.scope()}, operations.OutcomeOK)
		rbee += time.Since(t0)
		uninstall()
		t0 = time.Now()
		x.bare(b, "umask 077; gzip -dc > .bench.tmp && sha256sum .bench.tmp && mv .bench.tmp .bench", func() io.Reader { return bytes.NewReader(compressed.Bytes()) })
		bare += time.Since(t0)
		x.bare(b, "rm -f .bench", func() io.Reader { return strings.NewReader("") })
	}
	b.ReportMetric(rbee.Seconds()/float64(n), "rbee-s")
	b.ReportMetric(bare.Seconds()/float64(n), "bare-s")
	b.ReportMetric(rbee.Seconds()/bare.Seconds(), "ratio")
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	b.ReportMetric(float64(u.Maxrss)/1024, "MiB-peak")
}

// BenchmarkParallel compares the default parallelism with one hive at a time, on hosts in this
// process with a latency of 50 ms. It needs only RBEE_BENCH_RBEE.
func BenchmarkParallel(b *testing.B) {
	rbee := os.Getenv("RBEE_BENCH_RBEE")
	if rbee == "" {
		b.Skip("RBEE_BENCH_RBEE is not set")
	}
	q, scope := startHosts(b, rbee, 10, 50*time.Millisecond)
	x := &bench{queen: q}
	serialScope := scope
	serialScope.Parallel = 1
	uninstall := func() { x.run(b, operations.PackageUninstall{Scope: scope}, operations.OutcomeOK) }
	var parallel, serial time.Duration
	n := 0
	for b.Loop() {
		n++
		t0 := time.Now()
		x.run(b, operations.PackageInstall{Scope: scope}, operations.OutcomeOK)
		parallel += time.Since(t0)
		uninstall()
		t0 = time.Now()
		x.run(b, operations.PackageInstall{Scope: serialScope}, operations.OutcomeOK)
		serial += time.Since(t0)
		uninstall()
	}
	b.ReportMetric(parallel.Seconds()/float64(n), "default-s")
	b.ReportMetric(serial.Seconds()/float64(n), "serial-s")
	b.ReportMetric(serial.Seconds()/parallel.Seconds(), "times-faster")
}

// startHosts starts n hosts with the given round-trip time in this process, and returns a
// controller for them.
func startHosts(b *testing.B, rbee string, n int, rtt time.Duration) (*controller.Controller, operations.Scope) {
	b.Helper()
	dir := b.TempDir()
	key, pem, err := sshtest.NewKey()
	if err != nil {
		b.Fatal(err)
	}
	var conf, known strings.Builder
	for i := range n {
		h, err := sshtest.New(sshtest.Options{
			User: "bench", AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}, Env: []string{"RBEE_SUPERVISOR=none"},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = h.Close() })
		h.SetLatency(rtt)
		known.WriteString(h.KnownHostsLines())
		fmt.Fprintf(&conf, "[[hive]]\nalias = \"h%d\"\nhostname = \"127.0.0.1\"\nssh_user = \"bench\"\nssh_port = %d\nssh_key = %q\nworkers = [{ type = \"echo\" }]\nauto_start = false\n",
			i, h.Port(), filepath.Join(dir, "key"))
	}
	for name, content := range map[string]string{
		"key": string(pem), "known_hosts": known.String(), "hives.conf": conf.String(),
		"ssh_config": "Host *\n  UserKnownHostsFile " + filepath.Join(dir, "known_hosts") + "\n  IdentitiesOnly yes\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	o := controller.Options{
		Version: rbeeVersion, Self: rbee,
		Paths: pkgmgr.Paths{Home: dir, ConfigDir: dir, StateDir: filepath.Join(dir, "state"), CacheDir: filepath.Join(dir, "cache")},
	}
	o.SSHConfig = filepath.Join(dir, "ssh_config")
	q, err := controller.New(o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = q.Close() })
	return q, operations.Scope{ConfigPath: filepath.Join(dir, "hives.conf")}
}

// BenchmarkPush compares pushing an engine of 50 MiB to 20 hives with a minimal program that
// streams the same bytes and syncs them to disk like rbee. The engine must be downloaded once.
func BenchmarkPush(b *testing.B) {
	x := newBench(b)
	const size = 50 << 20
	content := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(content) // never fails
	sum := sha256.Sum256(content)
	downloads := 0
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		downloads++
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	b.Cleanup(origin.Close)
	paths := x.opts.Paths
	recipe := fmt.Sprintf("type: engine\nsources: [{ version: \"1\", url: %s/engine, sha256: %x }]\nstart: { args: [] }\n", origin.URL, sum)
	x.config.Hives = x.config.Hives[:min(20, len(x.config.Hives))]
	for i := range x.config.Hives {
		x.config.Hives[i].Workers = nil
	}
	without := config.Format(x.config, "")
	for i := range x.config.Hives {
		x.config.Hives[i].Workers = []config.Worker{{Type: "engine", Version: "1"}}
	}
	with := config.Format(x.config, "")
	x.config.Path = filepath.Join(paths.ConfigDir, "push.conf")
	for path, data := range map[string][]byte{filepath.Join(paths.Recipes(), "engine.yaml"): []byte(recipe), x.config.Path: without} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			b.Fatal(err)
		}
	}
	x.run(b, operations.PackageInstall{Scope: x.scope()}, operations.OutcomeOK)
	sync := func() {
		x.run(b, operations.PackageSync{Scope: x.scope(), Change: operations.Change{Push: true}, RemoveExtra: true}, operations.OutcomeOK)
	}
	var rbee, bare time.Duration
	n := 0
	for b.Loop() {
		n++
		if err := os.WriteFile(x.config.Path, with, 0o600); err != nil {
			b.Fatal(err)
		}
		t0 := time.Now()
		sync()
		rbee += time.Since(t0)
		if err := os.WriteFile(x.config.Path, without, 0o600); err != nil {
			b.Fatal(err)
		}
		sync()
		t0 = time.Now()
		x.bare(b, "umask 077; cat > .bench.tmp && sha256sum .bench.tmp && sync .bench.tmp && mv .bench.tmp .bench", func() io.Reader { return bytes.NewReader(content) })
		bare += time.Since(t0)
		x.bare(b, "rm -f .bench", func() io.Reader { return strings.NewReader("") })
	}
	if downloads != 1 {
		b.Errorf("the engine was downloaded %d times, want 1", downloads)
	}
	mb := float64(size) * float64(len(x.config.Hives)*n) / 1e6
	b.ReportMetric(mb/rbee.Seconds(), "rbee-MB/s")
	b.ReportMetric(mb/bare.Seconds(), "bare-MB/s")
	b.ReportMetric(bare.Seconds()/rbee.Seconds(), "ratio")
}
