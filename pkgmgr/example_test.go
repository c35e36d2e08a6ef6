package pkgmgr_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os/exec"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/fakehost"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// This example installs rbee and a worker on a simulated machine and prints the progress.
// With another Connect, such as one over SSH, it works with real machines.
func Example() {
	config, err := config.Parse("hives.conf", []byte(`
		[[hive]]
		alias = "gpu-1"
		hostname = "gpu-1.example"
		ssh_user = "bee"
		workers = [{ type = "echo", version = "latest" }]
		auto_start = true
	`))
	if err != nil {
		fmt.Println(err)
		return
	}
	machines := fakehost.Machines{"gpu-1": {}}
	fleet, err := pkgmgr.Open(config, pkgmgr.Options{
		Connect: machines.Connect, Binaries: fakehost.Rbee("1.0.0"), Version: "1.0.0",
		Events: func(e operations.Event) {
			if e.Type == operations.EventStep && e.StepStatus == operations.StepDone {
				fmt.Printf("%s: %s%s is done\n", e.Hive, e.Step.Action, suffix(e.Step.Worker))
			}
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close()

	ctx, start := context.Background(), time.Now()
	fleet.Read(ctx, pkgmgr.ReadOptions{})
	plan := fleet.Plan(ctx, plan.Options{Fetch: true})
	for _, step := range plan.Steps {
		fmt.Printf("%s: %s%s, because: %s\n", step.Hive, step.Action, suffix(step.Worker), step.Reason)
	}
	report := fleet.SyncReport(plan, fleet.Apply(ctx, plan, pkgmgr.ApplyOptions{}), time.Since(start))
	fmt.Println(report.Status, report.Hives[0].Alias, report.Hives[0].Status, report.Hives[0].Workers)
	// Output:
	// gpu-1: install_hive, because: not installed
	// gpu-1: install_worker echo, because: not installed
	// gpu-1: start_hive, because: auto_start
	// gpu-1: install_hive is done
	// gpu-1: install_worker echo is done
	// gpu-1: start_hive is done
	// success gpu-1 installed [echo]
}

// suffix returns a worker type with a leading space, or "" if it is empty.
func suffix(worker string) string { return strings.TrimRight(" "+worker, " ") }

// prefixHost is a Host that runs commands with a prefix, such as
// {"docker", "exec", "-i", "box"} or {"kubectl", "exec", "-i", "pod/box", "--"}.
type prefixHost []string

func (h prefixHost) Run(ctx context.Context, argv []string, stdin io.Reader, stdout, stderr io.Writer) error {
	argv = append(h[:len(h):len(h)], argv...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, stdout, stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exitStatus{exit}
	}
	return err
}

// exitStatus is the error of a program that exited with a non-zero status.
type exitStatus struct{ *exec.ExitError }

func (e exitStatus) ExitStatus() int { return e.ExitCode() }

func (h prefixHost) Script(ctx context.Context, script string, stdout, stderr io.Writer) error {
	return h.Run(ctx, []string{"sh", "-s"}, strings.NewReader(script), stdout, stderr)
}

func (h prefixHost) Put(ctx context.Context, path string, mode fs.FileMode, gz io.Reader, sum [32]byte) error {
	const put = `set -e; mkdir -p "$(dirname "$1")"; gunzip >"$1.new"; echo "$3  $1.new" | sha256sum -c - >&2; chmod "$2" "$1.new"; mv "$1.new" "$1"`
	return h.Run(ctx, []string{"sh", "-c", put, "sh", path, fmt.Sprintf("%o", mode), fmt.Sprintf("%x", sum)}, gz, nil, nil)
}

func (h prefixHost) Dial(context.Context, string, string) (net.Conn, error) {
	return nil, errors.New("Dial is not supported")
}

func (h prefixHost) Close() error { return nil }

// A Host has five methods, so any environment that runs commands can be a hive, such as a
// container. This example uses this machine, with another directory for rbee.
func ExampleHost() {
	cfg := &config.Config{Hives: []config.Hive{config.NewHive("box", "box")}}
	fleet, err := pkgmgr.Open(cfg, pkgmgr.Options{
		Connect: func(context.Context, config.Hive) (pkgmgr.Host, error) {
			return prefixHost{"env", "RBEE_HOME=/nowhere/rbee"}, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer fleet.Close()
	fleet.Read(context.Background(), pkgmgr.ReadOptions{})
	box := fleet.States()[0]
	fmt.Println(box.Err == nil, box.State.Home, box.State.MissingDirs, "installed:", box.State.Rbee != nil)
	// Output: true /nowhere/rbee [/nowhere] installed: false
}
