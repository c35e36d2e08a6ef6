package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/alecthomas/kong"

	"github.com/google/go-cmp/cmp"
	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
)

// fakeRunner returns the same result for every operation and records the operation.
type fakeRunner struct {
	report  operations.Report
	err     error
	hook    func(ctx context.Context) // called during the operation, if not nil
	got     operations.Operation
	options controller.Options
	closed  bool
}

func (f *fakeRunner) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	f.got = op
	if events != nil {
		events(operations.Event{Type: operations.EventNote, Message: "working"})
	}
	if f.hook != nil {
		f.hook(ctx)
	}
	return f.report, f.err
}

func (f *fakeRunner) Close() error { f.closed = true; return nil }

// result is the exit code and the output of a command line.
type result struct {
	code        int
	out, errOut string
}

// command runs a command line.
func (f *fakeRunner) command(ctx context.Context, env []string, args ...string) result {
	var out, errOut strings.Builder
	code := Run(ctx, Process{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &errOut,
		Env: append([]string{"HOME=/home/me"}, env...), Version: "1.2.3",
		Open: func(o controller.Options) (Runner, error) { f.options = o; return f, nil },
	})
	return result{code, out.String(), errOut.String()}
}

func TestFlagsSetOperation(t *testing.T) {
	t.Parallel()
	scope := operations.Scope{ConfigPath: "f.conf", Hives: operations.Aliases{"a", "b"}, Labels: []string{"x"}, Parallel: 3}
	change := operations.Change{LockWaitSeconds: 30}
	for line, want := range map[string]operations.Operation{
		"sync":   operations.PackageSync{Change: change},
		"status": operations.PackageStatus{},
		"sync --dry-run --remove-extra --force --push --lock-wait 1m --hive a --hive b --label x --parallel 3 -c f.conf": operations.PackageSync{
			Scope: scope, Change: operations.Change{Push: true, LockWaitSeconds: 60}, DryRun: true, RemoveExtra: true, Force: true},
		"sync --lock-wait 0s": operations.PackageSync{Change: operations.Change{LockWaitSeconds: -1}},
		"install --force --hive a,b --label x --parallel=3 --config f.conf": operations.PackageInstall{Scope: scope, Change: change, Force: true},
		"status --verbose --deep": operations.PackageStatus{Verbose: true, Deep: true},
		"uninstall --yes --purge": operations.PackageUninstall{Purge: true, LockWaitSeconds: 30},
		"uninstall --hive a":      operations.PackageUninstall{Scope: operations.Scope{Hives: operations.Aliases{"a"}}, LockWaitSeconds: 30},
		"validate":                operations.PackageValidate{},
		"migrate -o d/ --ssh-config g* --hosts a,b --force": operations.PackageMigrate{OutputPath: "d/", SSHConfig: "g*", Hosts: []string{"a", "b"}, Force: true},
		"start-hive a":  operations.HiveStart{Alias: "a"},
		"stop-hive a":   operations.HiveStop{Alias: "a"},
		"hive-status a": operations.HiveStatus{Alias: "a"},
		"get-hive a":    operations.HiveGet{Alias: "a"},
		"list-hives":    operations.HiveList{},
	} {
		f := &fakeRunner{report: &operations.StatusReport{}}
		if r := f.command(t.Context(), nil, strings.Fields(line)...); r.code != 0 {
			t.Errorf("%s: exit code %d, want 0; stderr: %s", line, r.code, r.errOut)
		}
		if diff := cmp.Diff(want, f.got); diff != "" {
			t.Errorf("%s runs another operation (-want +got):\n%s", line, diff)
		}
		if !f.closed {
			t.Errorf("%s left the runner open, want it closed", line)
		}
	}
}

func TestGlobalFlagsSetOptions(t *testing.T) {
	t.Parallel()
	f := &fakeRunner{report: &operations.StatusReport{}}
	f.command(t.Context(), []string{"RBEE_CONFIG=env.conf", "RBEE_RELEASE_URL=http://x", "XDG_STATE_HOME=/state"},
		"status", "--accept-new-host-keys", "--ssh-config-file", "sc", "--binaries", "b", "--timeout", "7s")
	o := f.options
	if !o.AcceptNewHostKeys || o.SSHConfig != "sc" || o.Binaries != "b" || o.Timeout != 7*time.Second ||
		o.ReleaseURL != "http://x" || o.Version != "1.2.3" || o.Self == "" || o.Prompter != nil {
		t.Errorf("options = %+v, want the values of flags and environment, without a prompter", o)
	}
	if o.Paths.Home != "/home/me" || o.Paths.StateDir != "/state/rbee" {
		t.Errorf("paths = %+v, want home /home/me and state directory /state/rbee", o.Paths)
	}
	if got := f.got.(operations.PackageStatus).ConfigPath; got != "env.conf" {
		t.Errorf("config path = %q, want %q", got, "env.conf")
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	failed := func(code operations.Code) error {
		return fmt.Errorf("x: %w", &operations.Error{Code: code, Message: "m"})
	}
	for want, errs := range map[int][]error{
		0:   {nil, outcomeError(operations.OutcomeOK)},
		1:   {errors.New("x"), failed(operations.CodeFailed), failed(operations.CodeNotFound), failed(operations.CodeUnsupported), outcomeError(operations.OutcomeFailed)},
		2:   {outcomeError(operations.OutcomeDrift)},
		3:   {failed(operations.CodeConfigInvalid), outcomeError(operations.OutcomeInvalid)},
		4:   {failed(operations.CodeUnreachable), outcomeError(operations.OutcomeUnreachable)},
		5:   {failed(operations.CodeLocked), outcomeError(operations.OutcomeLocked)},
		64:  {&usageError{message: "x"}, failed(operations.CodeBadOperation), failed(operations.CodeRemovedOperation)},
		130: {failed(operations.CodeCanceled)},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != want {
				t.Errorf("exitCode(%v) = %d, want %d", err, got, want)
			}
		}
	}
}

func TestJSONOutput(t *testing.T) {
	t.Parallel()
	drift := &operations.StatusReport{Status: operations.StatusDriftDetected, Drift: []operations.Drift{{Hive: "a", Issue: operations.IssueMissingHive}}}
	r := (&fakeRunner{report: drift}).command(t.Context(), nil, "status", "--json")
	var got operations.StatusReport
	if err := json.Unmarshal([]byte(r.out), &got); err != nil || !reflect.DeepEqual(&got, drift) || r.code != 2 {
		t.Errorf("status --json exits with %d and prints %s (%v), want exit code 2 and the report", r.code, r.out, err)
	}
	if want := "working\n"; r.errOut != want {
		t.Errorf("stderr = %q, want %q", r.errOut, want)
	}
	locked := &operations.Error{Code: operations.CodeLocked, Hive: "a", Message: "locked"}
	r = (&fakeRunner{err: locked}).command(t.Context(), nil, "status", "--json", "--quiet")
	var doc struct {
		Status string
		Error  struct{ Code, Hive, Message, Hint string }
	}
	if err := json.Unmarshal([]byte(r.out), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.Status != "error" || doc.Error.Code != "locked" || doc.Error.Hive != "a" || !strings.Contains(doc.Error.Hint, "--lock-wait") || r.code != 5 || r.errOut != "" {
		t.Errorf("status --json --quiet exits with %d and prints %q to stderr and %s to stdout, want exit code 5 and the error as JSON", r.code, r.errOut, r.out)
	}
}

// TestInterruptedRunPrintsReport cancels the context during an operation.
func TestInterruptedRunPrintsReport(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	f := &fakeRunner{hook: func(inner context.Context) { cancel(); <-inner.Done() }, report: &operations.SyncReport{
		Hives: []operations.HiveReport{{Alias: "gpu-1", Status: operations.HiveCanceled}},
	}}
	r := f.command(ctx, nil, "sync")
	if r.code != 130 || !strings.Contains(r.out, "gpu-1") {
		t.Errorf("interrupted sync exits with %d and prints %q, want exit code 130 and the report", r.code, r.out)
	}
}

func TestLocaleChoosesSymbols(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		want string
	}{
		{nil, "✅ "}, {[]string{"LANG=C"}, "ok: "}, {[]string{"LANG=C", "LC_ALL=en_US.UTF-8"}, "✅ "},
		{[]string{"LANG=en_US.UTF-8", "LC_ALL=POSIX"}, "ok: "}, {[]string{"LC_CTYPE=de_DE.utf8"}, "✅ "},
	} {
		r := (&fakeRunner{report: &operations.StatusReport{}}).command(t.Context(), c.env, "status")
		if !strings.HasPrefix(r.out, c.want) {
			t.Errorf("status with environment %v prints %q, want prefix %q", c.env, r.out, c.want)
		}
	}
}

// helpVerbs are the verbs that start the summary of a command.
var helpVerbs = []string{
	"Check", "Connect", "Create", "Create,", "Delete", "Download", "Install", "List", "List,", "Make", "Migrate", "Print",
	"Remove", "Revoke", "Roll", "Run", "Send", "Show", "Start", "Stop",
}

func TestEveryCommandHasHelp(t *testing.T) {
	t.Parallel()
	parser, err := newParser(&grammar{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range parser.Model.Leaves(true) {
		verb, _, _ := strings.Cut(node.Help, " ")
		if !slices.Contains(helpVerbs, verb) || strings.HasSuffix(node.Help, ".") {
			t.Errorf("the summary of %s is %q, want a phrase that starts with an imperative verb, without a period", node.Path(), node.Help)
		}
		c, ok := node.Target.Addr().Interface().(helper)
		if !ok {
			t.Errorf("%s does not implement helper, want an implementation", node.Path())
			continue
		}
		if h := c.help(); !strings.Contains(strings.Join(h.examples, "\n"), "rbee "+node.Path()) {
			t.Errorf("the examples of %s are %q, want one with the command", node.Path(), h.examples)
		}
		for _, flag := range node.Flags {
			checkFlagHelp(t, node.Path(), flag.Value)
		}
		for _, arg := range node.Positional {
			checkFlagHelp(t, node.Path(), arg)
		}
	}
	for _, flag := range parser.Model.Flags {
		checkFlagHelp(t, "rbee", flag.Value)
	}
}

// checkFlagHelp checks the help of a flag or an argument.
func checkFlagHelp(t *testing.T, command string, v *kong.Value) {
	t.Helper()
	if help := v.Help; help == "" || help[:1] != strings.ToUpper(help[:1]) || strings.HasSuffix(help, ".") {
		t.Errorf("the help of %s of %s is %q, want a phrase that starts with a capital letter, without a period", v.Name, command, help)
	}
}

func TestHelpLayout(t *testing.T) {
	t.Parallel()
	f := &fakeRunner{}
	const globals = "Global flags: `rbee help flags`\n"
	status := f.command(t.Context(), nil, "status", "--help")
	if status.code != 0 || !strings.HasPrefix(status.out, "Show the differences between hives and config.\n\nUsage: rbee status [flags]\n\n") || !strings.HasSuffix(status.out, "\n"+globals) {
		t.Errorf("status --help exits with %d and prints\n%s\nwant the summary, the usage and last the line about global flags", status.code, status.out)
	}
	if strings.Contains(status.out, "--no-color") {
		t.Errorf("status --help prints\n%s\nwant no global flags", status.out)
	}
	if got := f.command(t.Context(), nil, "help", "status"); got != status {
		t.Errorf("help status = %+v, want the output of status --help: %+v", got, status)
	}
	root := f.command(t.Context(), nil)
	if got := f.command(t.Context(), nil, "help"); got != root {
		t.Errorf("help = %+v, want the output of rbee without arguments: %+v", got, root)
	}
	for args, want := range map[string]string{
		"help flags":          "  -q, --quiet                 Print only the result, without progress\n",
		"help exit-codes":     "  130  interrupted\n",
		"key --help":          "  revoke  Revoke an API key\n",
		"help key add":        "Usage: rbee key add NAME [flags]\n",
		"spawn-worker --help": "Usage: rbee spawn-worker --worker TYPE --model MODEL [flags] [-- ENGINE-FLAGS]\n",
		"sync --help":         "Usage: rbee sync [TYPE...] [flags]\n",
	} {
		if got := f.command(t.Context(), nil, strings.Fields(args)...); got.code != 0 || !strings.Contains(got.out, want) {
			t.Errorf("%s exits with %d and prints\n%s\nwant %q in it", args, got.code, got.out, want)
		}
	}
	if got := f.command(t.Context(), nil, "help", "nosuch"); got.code != exitUsage || got.out != "" {
		t.Errorf("help nosuch = %+v, want exit code %d and an empty stdout", got, exitUsage)
	}
}

// TestHelpFitsTheTerminal checks the width of all help texts, including examples,
// which are not wrapped.
func TestHelpFitsTheTerminal(t *testing.T) {
	t.Parallel()
	parser, err := newParser(&grammar{}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	lines := []string{"", "help flags", "help exit-codes"}
	for _, node := range parser.Model.Leaves(true) {
		lines = append(lines, node.Path()+" --help")
	}
	for _, line := range lines {
		r := (&fakeRunner{}).command(t.Context(), nil, strings.Fields(line)...)
		for text := range strings.Lines(r.out) {
			text = strings.TrimSuffix(text, "\n")
			if utf8.RuneCountInString(text) > 80 {
				t.Errorf("%s prints a line of %d columns, want at most 80: %q", line, utf8.RuneCountInString(text), text)
			}
		}
	}
}

func TestWorkerArgs(t *testing.T) {
	t.Parallel()
	line, ok := WorkerArgs("rbee-worker-echo", []string{"--port", "1"})
	if want := []string{"worker", "echo", "--port", "1"}; !ok || !reflect.DeepEqual(line, want) {
		t.Errorf("WorkerArgs(rbee-worker-echo) = %q, %t, want %q, true", line, ok, want)
	}
	for _, name := range []string{"rbee", "rbee-worker-", "rbee-worker"} {
		if _, ok := WorkerArgs(name, nil); ok {
			t.Errorf("WorkerArgs(%q) = true, want false", name)
		}
	}
}

func TestAliasFrom(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"gpu-1": "gpu-1", "gpu-1.example.com": "gpu-1", "Vince's Mac": "Vince-s-Mac", "": "this-machine", "---": "this-machine",
		strings.Repeat("x", 80): strings.Repeat("x", 63),
	} {
		if got := aliasFrom(name); got != want {
			t.Errorf("aliasFrom(%q) = %q, want %q", name, got, want)
		}
	}
}

func TestWriteConfigNeedsForceToOverwrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "sub", "hives.conf")
	if err := writeConfig(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	if err := writeConfig(path, []byte("two"), false); err == nil {
		t.Error("writeConfig without force on an existing file returned nil, want an error")
	}
	if got, _ := os.ReadFile(path); string(got) != "one" {
		t.Errorf("config = %q, want %q", got, "one")
	}
	if err := writeConfig(path, []byte("two"), true); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(path); string(got) != "two" {
		t.Errorf("config = %q, want %q", got, "two")
	}
	entries, _ := os.ReadDir(filepath.Dir(path))
	if len(entries) != 1 {
		t.Errorf("the directory has %d files, want only the config", len(entries))
	}
}
