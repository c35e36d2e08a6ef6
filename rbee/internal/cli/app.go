package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// app is one run of the program.
type app struct {
	p       Process
	grammar grammar
	json    bool // also set when the command line cannot be parsed

	mu       sync.Mutex
	progress ui.Progress

	runnerMu     sync.Mutex
	sharedRunner Runner // nil until the first operation
}

func newApp(p Process) *app { return &app{p: p, progress: ui.Silent{}} }

func (a *app) flags() *globals { return &a.grammar.Globals }

// asJSON reports whether the result is printed as JSON.
func (a *app) asJSON() bool { return a.json || a.flags().JSON }

// terminal reports whether a standard stream is a terminal with cursor control.
func (a *app) terminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && a.p.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// style returns the style of the output to a stream.
func (a *app) style(stream any) ui.Style {
	color := a.terminal(stream) && !a.flags().NoColor && a.p.Getenv("NO_COLOR") == ""
	return ui.Style{Color: color, ASCII: !a.unicode(), Verbose: a.flags().Verbose}
}

// unicode reports whether the locale uses UTF-8, or is not set.
func (a *app) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(a.p.Getenv(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return true
}

// config returns the config file from the flags or the environment, or "" for the
// default one.
func (a *app) config() string {
	if c := a.flags().Config; c != "" {
		return c
	}
	return a.p.Getenv("RBEE_CONFIG")
}

// paths returns the paths of rbee's files on this machine.
func (a *app) paths() (pkgmgr.Paths, error) { return pkgmgr.DefaultPaths(a.p.Getenv) }

// open returns a new runner of operations: the queen at an address, or a controller
// in this process.
func (a *app) open() (Runner, error) {
	if address := cmp.Or(a.flags().Queen, a.p.Getenv("RBEE_QUEEN")); address != "" {
		return a.client(address)
	}
	q, err := a.options()
	switch {
	case err != nil:
		return nil, err
	case a.p.Open != nil:
		return a.p.Open(q)
	}
	return controller.New(q)
}

// options returns the options of a controller or queen in this process.
func (a *app) options() (controller.Options, error) {
	paths, err := a.paths()
	if err != nil {
		return controller.Options{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return controller.Options{}, fmt.Errorf("cannot find the rbee executable: %w", err)
	}
	g := a.flags()
	o := controller.Options{
		Version:    a.p.Version,
		Self:       self,
		Paths:      paths,
		Binaries:   g.Binaries,
		ReleaseURL: a.p.Getenv("RBEE_RELEASE_URL"),
		Origins: pkgmgr.Origins{
			GitHubAPI: a.p.Getenv("GITHUB_API_URL"), GitHubToken: a.p.Getenv("GITHUB_TOKEN"), ReleaseDownloads: a.p.Getenv("GITHUB_DOWNLOAD_URL"),
			PythonIndex: cmp.Or(a.p.Getenv("UV_DEFAULT_INDEX"), a.p.Getenv("UV_INDEX_URL"), a.p.Getenv("PIP_INDEX_URL")),
			TorchIndex:  a.p.Getenv("RBEE_TORCH_INDEX"),
		},
	}
	o.AcceptNewHostKeys, o.SSHConfig, o.Timeout = g.AcceptNewHostKeys, g.SSHConfigFile, g.Timeout
	if a.terminal(a.p.Stdin) && a.terminal(a.p.Stderr) {
		o.Prompter = &prompter{a}
	}
	return o, nil
}

// runner returns the runner of all operations of the command.
func (a *app) runner() (Runner, error) {
	a.runnerMu.Lock()
	defer a.runnerMu.Unlock()
	if a.sharedRunner != nil {
		return a.sharedRunner, nil
	}
	var err error
	a.sharedRunner, err = a.open()
	return a.sharedRunner, err
}

// close closes the runner, if it is open.
func (a *app) close() error {
	a.runnerMu.Lock()
	defer a.runnerMu.Unlock()
	if a.sharedRunner == nil {
		return nil
	}
	err := a.sharedRunner.Close()
	a.sharedRunner = nil
	if err != nil {
		return fmt.Errorf("cannot close connections: %w", err)
	}
	return nil
}

// runOperation runs an operation without printing anything. It is safe for
// concurrent use.
func (a *app) runOperation(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	runner, err := a.runner()
	if err != nil {
		return nil, err
	}
	return runner.Run(ctx, op, events)
}

// reportOf runs an operation like [app.runOperation], with a report of type R.
func reportOf[R operations.Report](ctx context.Context, a *app, op operations.Operation, events operations.Handler) (R, error) {
	report, err := a.runOperation(ctx, op, events)
	r, ok := report.(R)
	if err == nil && !ok {
		err = fmt.Errorf("operation %s returned a report of type %T", op.Kind(), report)
	}
	return r, err
}

// operate runs an operation and prints its progress and its report.
func (a *app) operate(ctx context.Context, op operations.Operation) error {
	progress := a.startProgress()
	report, err := a.runOperation(ctx, op, progress.Handle)
	a.stopProgress()
	return a.conclude(report, err)
}

// conclude closes the runner and prints the report of an operation.
func (a *app) conclude(report operations.Report, err error) error {
	if closeErr := a.close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return a.show(report)
}

// show prints a report. It returns an outcomeError unless the outcome is OK.
func (a *app) show(report operations.Report) error {
	var err error
	if a.asJSON() {
		err = ui.JSON(a.p.Stdout, report)
	} else {
		err = ui.Report(a.p.Stdout, a.style(a.p.Stdout), report)
	}
	if err != nil {
		return fmt.Errorf("cannot write the result: %w", err)
	}
	if outcome := report.Outcome(); outcome != operations.OutcomeOK {
		return outcomeError(outcome)
	}
	return nil
}

// startProgress starts to print progress on stderr.
func (a *app) startProgress() ui.Progress {
	var p ui.Progress
	switch g := a.flags(); {
	case g.Quiet:
		p = ui.Silent{}
	case a.terminal(a.p.Stderr):
		p = ui.NewLive(ui.LiveOptions{W: a.p.Stderr, Style: a.style(a.p.Stderr), Size: terminalSize(a.p.Stderr)})
	default:
		p = &ui.Plain{W: a.p.Stderr, Verbose: g.Verbose}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.progress = p
	return p
}

func (a *app) stopProgress() {
	a.mu.Lock()
	p := a.progress
	a.progress = ui.Silent{}
	a.mu.Unlock()
	p.Close()
}

// suspend removes the progress from the terminal until resume is called.
func (a *app) suspend() (resume func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.progress.Suspend()
}

// terminalSize returns a function for the size of a stream, 80x24 if it is unknown.
func terminalSize(stream any) func() (columns, rows int) {
	return func() (int, int) {
		if file, ok := stream.(*os.File); ok {
			if columns, rows, err := term.GetSize(int(file.Fd())); err == nil && columns > 0 && rows > 0 {
				return columns, rows
			}
		}
		return 80, 24
	}
}

// scope returns the hives that the flags select.
func (a *app) scope(f scopeFlags) operations.Scope {
	return operations.Scope{ConfigPath: a.config(), Hives: f.Hive, Labels: f.Label, Parallel: f.Parallel}
}

func (f changeFlags) change() operations.Change {
	return operations.Change{Push: f.Push, BundlePath: f.Bundle, LockWaitSeconds: lockWait(f.LockWait)}
}

// lockWait converts a flag to seconds. Operations use their default for 0, so that
// 0 becomes -1.
func lockWait(d time.Duration) float64 {
	if d <= 0 {
		return -1
	}
	return d.Seconds()
}
