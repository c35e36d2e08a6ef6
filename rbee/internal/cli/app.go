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

	opening sync.Mutex
	opened  Runner // nil until the first operation
}

func newApp(p Process) *app { return &app{p: p, progress: ui.Silent{}} }

func (a *app) flags() *globals { return &a.grammar.Globals }

// asJSON tells whether stdout belongs to JSON.
func (a *app) asJSON() bool { return a.json || a.flags().JSON }

// terminal tells whether a standard stream is a terminal that can be drawn on.
func (a *app) terminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && a.p.Getenv("TERM") != "dumb" && term.IsTerminal(int(file.Fd()))
}

// style is what a stream can show.
func (a *app) style(stream any) ui.Style {
	color := a.terminal(stream) && !a.flags().NoColor && a.p.Getenv("NO_COLOR") == ""
	return ui.Style{Color: color, ASCII: !a.unicode(), Verbose: a.flags().Verbose}
}

// unicode is false if the locale names another character set than UTF-8. A
// locale that is not set says nothing.
func (a *app) unicode() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if locale := strings.ToLower(a.p.Getenv(name)); locale != "" {
			return strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8")
		}
	}
	return true
}

// config is the config file that flags and environment name; "" is the default.
func (a *app) config() string {
	if c := a.flags().Config; c != "" {
		return c
	}
	return a.p.Getenv("RBEE_CONFIG")
}

// paths are the places of rbee's files on this machine.
func (a *app) paths() (pkgmgr.Paths, error) { return pkgmgr.DefaultPaths(a.p.Getenv) }

// open makes the runner of operations.
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

// options are those of a queen in this process.
func (a *app) options() (controller.Options, error) {
	paths, err := a.paths()
	if err != nil {
		return controller.Options{}, err
	}
	self, err := os.Executable()
	if err != nil {
		return controller.Options{}, fmt.Errorf("finding the program's own file: %w", err)
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

// runner is the one that does all operations of the command.
func (a *app) runner() (Runner, error) {
	a.opening.Lock()
	defer a.opening.Unlock()
	if a.opened != nil {
		return a.opened, nil
	}
	var err error
	a.opened, err = a.open()
	return a.opened, err
}

// close ends the runner, if there is one.
func (a *app) close() error {
	a.opening.Lock()
	defer a.opening.Unlock()
	if a.opened == nil {
		return nil
	}
	err := a.opened.Close()
	a.opened = nil
	if err != nil {
		return fmt.Errorf("ending: %w", err)
	}
	return nil
}

// ask runs an operation without showing anything. It may be called from several
// goroutines.
func (a *app) ask(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	if err := op.Validate(); err != nil {
		return nil, err
	}
	runner, err := a.runner()
	if err != nil {
		return nil, err
	}
	return runner.Run(ctx, op, events)
}

// askFor is ask for a report of one type.
func askFor[R operations.Report](ctx context.Context, a *app, op operations.Operation, events operations.Handler) (R, error) {
	report, err := a.ask(ctx, op, events)
	r, ok := report.(R)
	if err == nil && !ok {
		err = fmt.Errorf("%s brought a %T", op.Kind(), report)
	}
	return r, err
}

// operate runs an operation, shows what happens and what it ends with.
func (a *app) operate(ctx context.Context, op operations.Operation) error {
	progress := a.draw()
	report, err := a.ask(ctx, op, progress.Handle)
	a.endDrawing()
	return a.conclude(report, err)
}

// conclude ends the runner and shows what an operation ended with.
func (a *app) conclude(report operations.Report, err error) error {
	if closing := a.close(); err == nil {
		err = closing
	}
	if err != nil {
		return err
	}
	return a.show(report)
}

// show writes a report and returns its outcome, as an error unless it is ok.
func (a *app) show(report operations.Report) error {
	var err error
	if a.asJSON() {
		err = ui.JSON(a.p.Stdout, report)
	} else {
		err = ui.Report(a.p.Stdout, a.style(a.p.Stdout), report)
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if outcome := report.Outcome(); outcome != operations.OutcomeOK {
		return outcomeError(outcome)
	}
	return nil
}

// draw begins to show progress on stderr.
func (a *app) draw() ui.Progress {
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

func (a *app) endDrawing() {
	a.mu.Lock()
	p := a.progress
	a.progress = ui.Silent{}
	a.mu.Unlock()
	p.Close()
}

// suspend clears the drawing for something else until resume is called.
func (a *app) suspend() (resume func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.progress.Suspend()
}

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

// scope is the selection of hives that flags make.
func (a *app) scope(f scopeFlags) operations.Scope {
	return operations.Scope{ConfigPath: a.config(), Hives: f.Hive, Labels: f.Label, Parallel: f.Parallel}
}

func (f changeFlags) change() operations.Change {
	return operations.Change{Push: f.Push, BundlePath: f.Bundle, LockWaitSeconds: lockWait(f.LockWait)}
}

// lockWait is a time in an operation's terms, where 0 stands for the default.
func lockWait(d time.Duration) float64 {
	if d <= 0 {
		return -1
	}
	return d.Seconds()
}
