package cli_test

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/crypto/ssh"

	"github.com/rbee-keeper/rbee/pkgmgr/model/hubtest"
	"github.com/rbee-keeper/rbee/pkgmgr/origintest"
	"github.com/rbee-keeper/rbee/rbee/internal/comfyui/comfytest"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
	"github.com/rbee-keeper/rbee/sshx/sshtest"
)

// TestMain builds the program and puts it first in PATH, so that scripts, terminals and
// hosts use it.
func TestMain(m *testing.M) {
	origintest.Main()
	comfytest.Main()
	raiseParallelism()
	os.Exit(queentest.WithProgram("../../..", m.Run))
}

// raiseParallelism lets more tests run at a time than there are cores, since most of
// them wait for programs.
func raiseParallelism() {
	flag.Parse()
	isSet := false
	flag.Visit(func(f *flag.Flag) { isSet = isSet || f.Name == "test.parallel" })
	if !isSet {
		_ = flag.Set("test.parallel", strconv.Itoa(3*runtime.GOMAXPROCS(0))) // cannot fail
	}
}

// TestScripts runs all scripts against hosts inside this process.
func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scripts(inProcess, func(p *testscript.Params) { p.Dir = "testdata/script" }))
}

// TestScriptsOpenSSH runs scripts without host faults against OpenSSH.
func TestScriptsOpenSSH(t *testing.T) {
	t.Parallel()
	probe, err := sshtest.OpenSSH(t.TempDir(), sshtest.Options{})
	if errors.Is(err, sshtest.ErrNoOpenSSH) && !sshtest.RequireOpenSSH() {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	probe.Close()
	testscript.Run(t, scripts(openSSH, func(p *testscript.Params) {
		for _, name := range []string{"workflow", "json", "locked", "runtime"} {
			p.Files = append(p.Files, "testdata/script/"+name+".txtar")
		}
	}))
}

// TestScriptsQueen runs scripts with commands that use a queen. Their output must be
// the same.
func TestScriptsQueen(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scripts(inProcess, func(p *testscript.Params) {
		names, err := filepath.Glob("testdata/script/*.txtar")
		if err != nil {
			t.Fatal(err)
		}
		all := os.Getenv("RBEE_TEST_ALL") != ""
		for _, name := range names {
			script := strings.TrimSuffix(filepath.Base(name), ".txtar")
			if slices.Contains(shortQueen, script) || all && !slices.Contains(withoutQueen, script) {
				p.Files = append(p.Files, name)
			}
		}
		condition, setup := p.Condition, p.Setup
		p.Condition = func(name string) (bool, error) {
			if name == "queen" {
				return true, nil
			}
			return condition(name)
		}
		p.Setup = func(e *testscript.Env) error {
			if err := setup(e); err != nil {
				return err
			}
			return throughQueen(e)
		}
	}))
}

// shortQueen are the scripts that run with a queen if RBEE_TEST_ALL is not set, so that
// the tests take less than a minute.
var shortQueen = []string{"bad_config", "config_path", "interrupt", "json", "runtime"}

// withoutQueen are the scripts that do not apply to a queen: they use local files, the
// hosts of the demo, or flags for connections.
var withoutQueen = []string{
	"completion", "demo", "demo_interrupted", "host_keys", "init", "rollback_hive", "serve_install", "token", "upgrade",
}

// throughQueen puts a wrapper of rbee first in PATH. The wrapper runs rbee with a queen,
// which it starts at its first call and restarts when the environment variables of a
// queen have changed.
func throughQueen(e *testscript.Env) error {
	program, err := exec.LookPath("rbee")
	if err != nil {
		return err
	}
	dir := filepath.Join(e.WorkDir, ".queen")
	shim := `#!/bin/sh
set -e
now=$(env | grep -E '^(HF_|GITHUB_|UV_|RBEE_|XDG_)' | sort | cksum)
if [ "$now" != "$(cat "` + dir + `/env" 2>/dev/null)" ]; then
	printf %s "$now" > "` + dir + `/env"
	[ ! -e "` + dir + `/pid" ] || kill "$(cat "` + dir + `/pid")"
	rm -f "` + dir + `/url"
	mkfifo "` + dir + `/url"
	HF_TOKEN= "` + program + `" serve --addr 127.0.0.1:0 > "` + dir + `/url" 2>> "` + dir + `/log" </dev/null &
	printf %s $! > "` + dir + `/pid"
	read -r url < "` + dir + `/url"
	printf %s "$url" > "` + dir + `/address"
fi
RBEE_QUEEN=$(cat "` + dir + `/address") exec "` + program + `" "$@"
`
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	// A process forked during the write would inherit the open file, and a program that
	// is open for writing cannot be run.
	syscall.ForkLock.RLock()
	err = os.WriteFile(filepath.Join(dir, "rbee"), []byte(shim), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		return err
	}
	e.Setenv("PATH", dir+string(os.PathListSeparator)+e.Getenv("PATH"))
	e.Defer(func() {
		text, err := os.ReadFile(filepath.Join(dir, "pid"))
		if pid, convErr := strconv.Atoi(string(text)); err == nil && convErr == nil {
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	})
	return nil
}

// host is an SSH host of a script.
type host interface {
	Home() string
	User() string
	Port() int
	KnownHostsLines() string
	Close() error
}

// newHost starts a host that uses the directory dir.
type newHost func(dir string, o sshtest.Options) (host, error)

func inProcess(_ string, o sshtest.Options) (host, error) { return sshtest.New(o) }
func openSSH(dir string, o sshtest.Options) (host, error) { return sshtest.OpenSSH(dir, o) }

// scripts returns the parameters of scripts with hosts from start. edit selects the
// scripts.
func scripts(start newHost, edit func(*testscript.Params)) testscript.Params {
	p := testscript.Params{
		Setup: func(e *testscript.Env) error {
			home := filepath.Join(e.WorkDir, "home")
			e.Setenv("HOME", home)
			e.Setenv("LC_ALL", "C.UTF-8")
			exe, err := os.Executable()
			if err != nil {
				return err
			}
			e.Setenv("TESTS", exe) // used as ComfyUI
			fleet := &fleet{start: start}
			e.Values[fleetKey{}] = fleet
			e.Defer(fleet.close)
			return os.MkdirAll(filepath.Join(home, ".ssh"), 0o700)
		},
		Condition: func(name string) (bool, error) {
			if shell, ok := strings.CutPrefix(name, "has:"); ok {
				_, err := exec.LookPath(shell)
				return err == nil, nil
			}
			if name == "engine" {
				return os.Getenv("RBEE_TEST_OLLAMA") != "" && os.Getenv("RBEE_TEST_GGUF") != "", nil
			}
			switch name {
			case "queen": // commands use a queen
				return false, nil
			case "lingers": // services keep running after logout
				return lingers(), nil
			}
			return false, fmt.Errorf("unknown condition %q", name)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":  exits,
			"hosts":  hosts,
			"config": writeConfig,
			"refuse": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(fleetOf(ts).faulty(args[0]).Refuse(true))
			},
			"rekey":  func(ts *testscript.TestScript, _ bool, args []string) { ts.Check(fleetOf(ts).faulty(args[0]).Rekey()) },
			"lock":   lock,
			"hub":    hub,
			"origin": origin,
			"empty":  empty,

			"example":    example,
			"engine":     engine,
			"oldinstall": oldInstall,
		},
	}
	edit(&p)
	return p
}

// lingers reports whether systemd keeps services of the user running after logout.
func lingers() bool {
	u, err := user.Current()
	if err != nil {
		return false
	}
	_, err = os.Stat("/var/lib/systemd/linger/" + u.Username)
	return err == nil
}

// hub starts a model hub with small repositories and sets HF_ENDPOINT.
func hub(ts *testscript.TestScript, _ bool, _ []string) {
	tiny, _ := os.ReadFile(os.Getenv("RBEE_TEST_GGUF")) // only some scripts need it
	h := hubtest.New(map[string]hubtest.Repo{"bees/tiny": {"tiny-F32.gguf": tiny}, "bees/honey": {
		"README.md": []byte("sweet"), "honey-Q4_K_M.gguf": hubtest.GGUF(1, 4, 2, 64, 4096, 500_000),
		"honey-Q8_0.gguf": hubtest.GGUF(2, 4, 2, 64, 4096, 900_000),
	}, "bees/comb": {
		"wax-fp8.safetensors": []byte("wax"), "vae/wings.safetensors": []byte("wings"),
	}})
	ts.Defer(h.Close)
	ts.Setenv("HF_ENDPOINT", h.URL)
}

// origin controls a fake of the servers that workers are downloaded from:
//
//	origin start                start with tools, and set the environment variables
//	origin release 1.1          publish a version of the engine and of the package beeserve
//	origin release 1.1 FAULT    the same with wrong metadata: no-digest, wrong-digest, wrong-size
//	origin comfyui 0.3.62       publish a version of ComfyUI and its requirements
//	origin break PATH FAULT     respond to downloads with a status, or with cut or corrupt content
//	origin limit TOKEN          accept only requests with the token
//	origin repair               end break and limit
//	origin stop                 stop the server
//	origin requests PATH N      check the number of requests
func origin(ts *testscript.TestScript, _ bool, args []string) {
	if args[0] == "start" {
		s := origintest.NewServer()
		ts.Defer(s.Close)
		fleetOf(ts).origin = s
		exe, err := os.Executable()
		ts.Check(err)
		s.AddTools(exe)
		ts.Setenv("GITHUB_API_URL", s.API())
		ts.Setenv("UV_DEFAULT_INDEX", s.Index())
		return
	}
	s := fleetOf(ts).origin
	switch args[0] {
	case "release":
		program := "#!/bin/sh\n# version " + args[1] + "\nexec \"$HOME/.local/share/rbee/bin/rbee\" worker echo \"$@\"\n"
		fault := ""
		if len(args) > 2 {
			fault = args[2]
		}
		s.AddRelease("bees/engine", origintest.Release{Tag: "v" + args[1], NoDigest: fault == "no-digest", WrongDigest: fault == "wrong-digest", Code: origintest.TarGz(map[string]string{"engine-x/requirements.txt": "wax >=1 # honey comb\n", "engine-x/main.sh": program}), Assets: map[string][]byte{
			"engine-" + args[1] + "-linux-any.tar.gz": origintest.TarGz(map[string]string{"engine-x/bin/engine": program, "engine-x/data": strings.Repeat("x", 100_000)}),
			"engine-" + args[1] + "-cuda.tar.gz":      origintest.TarGz(map[string]string{"engine-x/bin/engine": program}),
		}})
		s.AddWheel(origintest.Wheel{Name: "beeserve", Version: args[1], Requires: []string{"wax>=1"}, Scripts: map[string]string{"beeserve": program}})
		wax := origintest.Wheel{Name: "wax", Version: args[1], Files: map[string]string{"wax.py": args[1]}}
		if fault == "wrong-size" {
			wax.ReportedSize = 7
		}
		s.AddWheel(wax)
	case "comfyui":
		s.AddRelease("Comfy-Org/ComfyUI", origintest.Release{Tag: "v" + args[1], Code: origintest.TarGz(map[string]string{
			"ComfyUI-x/main.py": comfyProgram, "ComfyUI-x/requirements.txt": "wax >=1 # honey comb\ntorch\n",
			"ComfyUI-x/custom_nodes/example_node.py.example": "",
		})})
		s.AddWheel(origintest.Wheel{Name: "wax", Version: "1.5", Files: map[string]string{"wax.py": ""}})
		for _, name := range []string{"torch", "torchvision", "torchaudio"} {
			s.AddWheel(origintest.Wheel{Name: name, Version: "2.9", Files: map[string]string{name + "/cuda.py": ""}}) // as in the package index
			for _, backend := range []string{"cpu", "cu126", "cu130", "rocm7.2"} {
				s.AddWheel(origintest.Wheel{Name: name, Version: "2.9+" + backend, Torch: backend, Files: map[string]string{name + "/" + backend + ".py": ""}})
			}
		}
	case "break":
		status, err := strconv.Atoi(args[2])
		switch {
		case err == nil:
			s.AddFault(origintest.Fault{Path: args[1], Status: status})
		case args[2] == "cut":
			s.AddFault(origintest.Fault{Path: args[1], Cut: 200})
		default:
			s.AddFault(origintest.Fault{Path: args[1], Corrupt: true})
		}
	case "limit":
		s.LimitRate(args[1])
	case "repair":
		s.ClearFaults()
	case "stop":
		s.Close()
	case "requests":
		if got := s.RequestCount(args[1]); strconv.Itoa(got) != args[2] {
			ts.Fatalf("got %d requests for %s, want %s", got, args[1], args[2])
		}
	default:
		ts.Fatalf("origin: unknown command %s", args[0])
	}
}

// engine publishes the program Ollama as a version: engine v0.17.4.
func engine(ts *testscript.TestScript, _ bool, args []string) {
	program, err := os.ReadFile(os.Getenv("RBEE_TEST_OLLAMA"))
	ts.Check(err)
	archive := origintest.TarZst(map[string]string{"bin/ollama": string(program)})
	fleetOf(ts).origin.AddRelease("ollama/ollama", origintest.Release{Tag: args[0], Assets: map[string][]byte{
		"ollama-linux-amd64.tar.zst": archive, "ollama-linux-arm64.tar.zst": archive,
	}})
}

// example writes the nth recipe of docs/catalog.md to a file: example 1 bee.yaml.
func example(ts *testscript.TestScript, _ bool, args []string) {
	doc, err := os.ReadFile("../../../docs/catalog.md")
	ts.Check(err)
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	parts := strings.Split(string(doc), "\n```yaml\n")
	text, _, _ := strings.Cut(parts[n], "```")
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(text), 0o600))
}

type fleetKey struct{}

// fleet contains the hosts and the origin of one script.
type fleet struct {
	start   newHost
	hosts   []host
	origin  *origintest.Server
	cleanup func() // uninstalls rbee from the hosts
}

func fleetOf(ts *testscript.TestScript) *fleet { return ts.Value(fleetKey{}).(*fleet) }

func (f *fleet) at(number string) host {
	i, err := strconv.Atoi(number)
	if err != nil || i < 1 || i > len(f.hosts) {
		panic("no host " + number)
	}
	return f.hosts[i-1]
}

// faulty returns an in-process host, which can simulate faults.
func (f *fleet) faulty(number string) *sshtest.Host { return f.at(number).(*sshtest.Host) }

func (f *fleet) close() {
	if f.cleanup != nil {
		f.cleanup()
	}
	for _, h := range f.hosts {
		h.Close()
	}
}

// exits runs a command and checks its exit code: exits 2 rbee status.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits code command args...")
	}
	err := ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s exited with code %d, want %s", args[1], got, args[0])
	}
}

// hosts starts SSH hosts that the script's user can log in to, and sets $HOST1,
// $HOST2, ... to their home directories.
func hosts(ts *testscript.TestScript, _ bool, args []string) {
	n, err := strconv.Atoi(args[0])
	ts.Check(err)
	key, pem, err := sshtest.NewKey()
	ts.Check(err)
	f := fleetOf(ts)
	known := ""
	for i := range n {
		dir := ts.MkAbs(fmt.Sprintf("host%d", i+1))
		ts.Check(os.MkdirAll(dir, 0o700))
		h, err := f.start(dir, sshtest.Options{AuthorizedKeys: []ssh.PublicKey{key.PublicKey()}})
		ts.Check(err)
		f.hosts = append(f.hosts, h)
		known += h.KnownHostsLines()
		ts.Setenv(fmt.Sprintf("HOST%d", i+1), h.Home())
		ts.Setenv(fmt.Sprintf("PORT%d", i+1), strconv.Itoa(h.Port()))
	}
	dir := ts.MkAbs(filepath.Join(ts.Getenv("HOME"), ".ssh"))
	ts.Check(os.WriteFile(filepath.Join(dir, "id_ed25519"), pem, 0o600))
	ts.Check(os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(known), 0o600))
	home, path := ts.Getenv("HOME"), ts.Getenv("PATH")
	f.cleanup = func() {
		for _, h := range f.hosts {
			if own, ok := h.(*sshtest.Host); ok {
				own.Refuse(false)
			}
			if _, err := os.Stat(filepath.Join(h.Home(), ".local/share/rbee/bin/rbee")); err != nil {
				continue
			}
			rbee, err := exec.LookPath("rbee")
			if err != nil {
				return
			}
			conf := filepath.Join(home, "cleanup.conf")
			os.WriteFile(conf, []byte(queentest.HiveConfig("last", h, 8600, "")), 0o600)
			cmd := exec.Command(rbee, "uninstall", "--hive", "last", "--config", conf, "--accept-new-host-keys")
			cmd.Env = []string{"HOME=" + home, "PATH=" + path}
			cmd.Run()
		}
	}
}

// writeConfig writes hives.conf with the first n hosts, gpu-1 and so on, each
// with the given workers: config 2 echo hello. The one hive of `config localhost echo`
// is this machine, without SSH, below the script's own HOME.
func writeConfig(ts *testscript.TestScript, _ bool, args []string) {
	var workers []string
	for _, w := range args[1:] {
		workers = append(workers, fmt.Sprintf("{ type = %q, version = \"latest\" }", w))
	}
	text := ""
	if args[0] == "localhost" {
		text = fmt.Sprintf("[[hive]]\nalias = \"here\"\nhostname = \"localhost\"\nhive_port = %d\nworkers = [%s]\n", freePort(ts, 0), strings.Join(workers, ", "))
		ts.Defer(func() { clearHome(ts.Getenv("HOME"), ts.Getenv("PATH")) })
	} else {
		n, err := strconv.Atoi(args[0])
		ts.Check(err)
		for i, h := range fleetOf(ts).hosts[:n] {
			text += queentest.HiveConfig(fmt.Sprintf("gpu-%d", i+1), h, freePort(ts, i), strings.Join(workers, ", "))
		}
	}
	path := filepath.Join(ts.Getenv("HOME"), ".config/rbee/hives.conf")
	ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
	ts.Check(os.WriteFile(path, []byte(text), 0o644))
}

// clearHome uninstalls rbee from the home directory of a script, if it is installed.
func clearHome(home, path string) {
	if _, err := os.Stat(filepath.Join(home, ".local/share/rbee/bin/rbee")); err != nil {
		return
	}
	if rbee, err := exec.LookPath("rbee"); err == nil {
		cmd := exec.Command(rbee, "uninstall", "--yes")
		cmd.Env = []string{"HOME=" + home, "PATH=" + path}
		cmd.Run()
	}
}

// freePort returns the port of the daemon of host i, which is the same during a script.
func freePort(ts *testscript.TestScript, i int) int {
	name := fmt.Sprintf("HIVEPORT%d", i+1)
	if port, err := strconv.Atoi(ts.Getenv(name)); err == nil {
		return port
	}
	port, err := freeport.Find(nil)
	ts.Check(err)
	ts.Setenv(name, strconv.Itoa(port))
	return port
}

// lock locks a host until the script ends: lock 1.
func lock(ts *testscript.TestScript, _ bool, args []string) {
	f, err := os.OpenFile(filepath.Join(fleetOf(ts).at(args[0]).Home(), ".local/share/rbee/lock"), os.O_RDWR|os.O_CREATE, 0o600)
	ts.Check(err)
	ts.Check(syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB))
	ts.Defer(func() { f.Close() })
}

// empty checks that directories are empty.
func empty(ts *testscript.TestScript, _ bool, args []string) {
	for _, dir := range args {
		entries, err := os.ReadDir(ts.MkAbs(dir))
		ts.Check(err)
		for _, e := range entries {
			ts.Fatalf("%s contains %s, want it empty", dir, e.Name())
		}
	}
}

// comfyProgram is a fake of ComfyUI: it prints its device for the verify command of the
// recipe, and serves like package comfytest otherwise.
const comfyProgram = `#!/bin/sh
case "$*" in
*--quick-test-for-ci*--cpu*) echo Device: cpu ;;
*--quick-test-for-ci*) echo Device: cuda:0 GPU : native ;;
*) exec "$TESTS" comfytest "$@" ;;
esac
`
