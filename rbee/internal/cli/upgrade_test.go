package cli_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/freeport"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
)

// oldInstall makes host 1 a hive of an earlier rbee, with installed workers and a
// running worker, and this machine its client: oldinstall HIVE HOME. Both directories
// contain the files of that rbee, with placeholders for values that depend on the
// machine. The program HIVE/bin/rbee is a fake of that rbee. It sets $WORKERPID and
// $PLATFORM.
func oldInstall(ts *testscript.TestScript, _ bool, args []string) {
	host := fleetOf(ts).hosts[0]
	hive := filepath.Join(host.Home(), ".local/share/rbee")
	port, err := freeport.Find(nil)
	ts.Check(err)
	worker := startMarked(ts, "a3e94270faa73c9574af3918e07d141b", "rbee", "worker", "echo", "--port", strconv.Itoa(port), "--model", "honey")
	// This process is the daemon of the earlier rbee.
	daemon := startMarked(ts, "", "sleep", "600")
	platform := platformOf(ts)
	ts.Setenv("WORKERPID", strconv.Itoa(worker.PID))
	ts.Setenv("PLATFORM", platform.Name())
	fields, err := json.Marshal(platform)
	ts.Check(err)
	replacements := []string{
		"{{hive}}", hive, "{{user_home}}", host.Home(), "{{home}}", ts.Getenv("HOME"), "{{boot_id}}", worker.BootID,
		"{{platform}}", platform.Name(), "{{platform_fields}}", strings.Trim(string(fields), "{}"),
		"{{worker_pid}}", strconv.Itoa(worker.PID), "{{worker_start}}", worker.StartTime, "{{worker_port}}", strconv.Itoa(port),
		"{{daemon_pid}}", strconv.Itoa(daemon.PID), "{{daemon_start}}", daemon.StartTime,
		"{{ssh_user}}", host.User(), "{{ssh_port}}", strconv.Itoa(host.Port()), "{{hive_port}}", ts.Getenv("HIVEPORT1"),
	}
	program, err := os.ReadFile(ts.MkAbs(filepath.Join(args[0], "bin/rbee")))
	ts.Check(err)
	program = []byte(strings.NewReplacer(replacements...).Replace(string(program)))
	sum := sha256.Sum256(program)
	replacements = append(replacements, "{{rbee_sha256}}", hex.EncodeToString(sum[:]), "{{rbee_size}}", strconv.Itoa(len(program)))
	fill := strings.NewReplacer(replacements...)
	copyTree(ts, fill, ts.MkAbs(args[0]), hive)
	copyTree(ts, fill, ts.MkAbs(args[1]), ts.Getenv("HOME"))
	ts.Check(os.WriteFile(filepath.Join(hive, "workers/engine/1.0/payload/data"), bytes.Repeat([]byte("x"), 100_000), 0o644))
	for link, target := range map[string]string{
		"engine/1.0/entry": "payload/bin/engine", "rbee-worker-engine": "engine/1.0/entry",
		"mine/1/entry": "payload/rbee-worker-mine", "rbee-worker-mine": "mine/1/entry",
	} {
		ts.Check(os.Symlink(target, filepath.Join(hive, "workers", link)))
	}
}

// copyTree copies files and replaces their placeholders.
func copyTree(ts *testscript.TestScript, fill *strings.Replacer, from, to string) {
	ts.Check(filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if bytes.HasPrefix(data, []byte("#!")) {
			mode = 0o755
		}
		target := filepath.Join(to, rel)
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, []byte(fill.Replace(string(data))), mode)
	}))
}

// startMarked starts a program in its own process group, as a hive starts workers, and
// stops it when the script ends. mark is the mark of a worker, or empty.
func startMarked(ts *testscript.TestScript, mark, name string, args ...string) proc.ID {
	cmd := exec.Command(name, args...)
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.Getenv("HOME")}
	if mark != "" {
		cmd.Env = append(cmd.Env, "RBEE_WORKER="+mark)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	ts.Check(cmd.Start())
	exited := make(chan struct{})
	go func() { _ = cmd.Wait(); close(exited) }()
	ts.Defer(func() { _ = cmd.Process.Kill(); <-exited })
	id, err := proc.Identify(cmd.Process.Pid)
	ts.Check(err)
	return id
}

// platformOf returns the platform of this machine, as a hive on it reports it.
func platformOf(ts *testscript.TestScript) wire.Platform {
	cmd := exec.CommandContext(context.Background(), "rbee", "hive", "inspect")
	cmd.Env = []string{"PATH=" + ts.Getenv("PATH"), "HOME=" + ts.MkAbs("nobody")}
	out, err := cmd.Output()
	ts.Check(err)
	var s wire.State
	ts.Check(wire.NewReader(bytes.NewReader(out)).Read(&s))
	return s.Platform
}
