package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/term"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/rbee/internal/queen"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
	"github.com/rbee-keeper/rbee/rbee/internal/ui/top"
)

type topCmd struct {
	Once     bool          `help:"Print one snapshot and exit; the default if stdout is not a terminal"`
	Interval time.Duration `default:"1s" placeholder:"TIME" help:"Minimum time between two updates of the screen (default: ${default})"`
}

// help implements [helper].
func (topCmd) help() commandHelp {
	return commandHelp{
		text:     "Shows hives, GPUs, workers and requests as the queen reports them, problems first. Press q or Ctrl-C to quit. It connects to --queen or $RBEE_QUEEN (default: the queen on this machine), with the API key in $RBEE_API_KEY, and reconnects when the connection is lost.\n\n--once prints one snapshot as text, --json as a document.",
		examples: []string{"rbee top", "rbee top --queen https://queen.lan:8500#SHA256:… --interval 5s", "rbee top --once", "rbee top --json | jq '.hives[].link'"},
	}
}

const (
	topLeast   = 100 * time.Millisecond // the least interval
	topResize  = 200 * time.Millisecond // how soon a new size of the terminal is seen
	topAnswer  = 30 * time.Second       // how long the queen may take to answer
	topSilence = 45 * time.Second       // without a byte a stream is lost
	topRetry   = 500 * time.Millisecond // before a stream is begun anew, and twice as long each time,
	topPatient = 10 * time.Second       // up to this
	topMost    = 64 << 20               // bytes of one snapshot
)

// Run runs the command.
func (c *topCmd) Run(ctx context.Context, a *app) error {
	if c.Interval < topLeast {
		return &usageError{message: fmt.Sprintf("--interval is %v, want %v or more", c.Interval, topLeast), hint: "such as --interval 2s"}
	}
	runner, err := a.client(cmp.Or(a.flags().Queen, a.p.Getenv("RBEE_QUEEN"), "http://"+queen.DefaultAddr))
	if err != nil {
		return err
	}
	defer runner.Close()
	far, ok := runner.(*remoteQueen)
	if !ok {
		return fmt.Errorf("the queen is a %T, and not at an address", runner)
	}
	feed := &topFeed{queen: far, first: make(chan struct{})}
	if c.Once || a.asJSON() || !a.terminal(a.p.Stdout) {
		return c.once(ctx, a, feed)
	}
	return c.watch(ctx, a, feed)
}

// once prints one snapshot.
func (c *topCmd) once(ctx context.Context, a *app, feed *topFeed) error {
	s, err := feed.get(ctx)
	if err != nil {
		return err
	}
	if a.asJSON() {
		err = ui.JSON(a.p.Stdout, s)
	} else {
		o := top.Options{Queen: feed.queen.URL, ASCII: !a.unicode()}
		if a.terminal(a.p.Stdout) {
			o.Width, _ = terminalSize(a.p.Stdout)()
		}
		_, err = io.WriteString(a.p.Stdout, top.Frame(s, s.Time, o))
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// watch draws on the terminal until it is told to end.
func (c *topCmd) watch(ctx context.Context, a *app, feed *topFeed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	screen := &topScreen{out: a.p.Stdout, size: terminalSize(a.p.Stdout)}
	defer screen.Close() // also when something panics
	ended := make(chan error, 1)
	go func() {
		defer screen.closeOnPanic()
		ended <- feed.follow(ctx)
	}()
	select {
	case <-feed.first:
	case err := <-ended: // also when ctx has ended
		return err
	}
	a.mu.Lock()
	a.progress = screen // what is said when a signal comes is said on the usual screen
	a.mu.Unlock()
	if err := screen.open(a.p.Stdin); err != nil {
		return err
	}
	if screen.keys != nil {
		go func() {
			defer screen.closeOnPanic()
			waitForQuit(screen.keys)
			cancel()
		}()
	}
	style := a.style(a.p.Stdout)
	return screen.show(ctx, c.Interval, func(columns, rows int) string {
		s, now, o := feed.now()
		// As elsewhere the last column stays free: what happens after it is written
		// is different on each terminal.
		o.Width, o.Height, o.Color, o.ASCII, o.Keys = max(columns-1, 1), rows, style.Color, style.ASCII, "q quits"
		return top.Frame(s, now, o)
	})
}

// waitForQuit returns when q or Ctrl-C is pressed, or nothing can be any more.
func waitForQuit(keys io.Reader) {
	buf := make([]byte, 64)
	for {
		n, err := keys.Read(buf)
		if err != nil || bytes.ContainsAny(buf[:n], "qQ\x03") {
			return
		}
	}
}

// topScreen is the terminal while all of it is drawn on. It is opened and closed once.
type topScreen struct {
	out  io.Writer
	size func() (columns, rows int)
	keys *os.File // where keys come from; nil: stdin is no terminal

	mu     sync.Mutex
	opened bool
	closed bool
	fd     int         // of keys
	before *term.State // of keys
}

// The alternate screen, without a cursor and without lines that go on below; and back.
const (
	topOpen  = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	topClose = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// open takes the terminal over.
func (s *topScreen) open(stdin io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if file, ok := stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.fd = int(file.Fd())
		before, err := term.MakeRaw(s.fd)
		if err != nil {
			return fmt.Errorf("reading keys from the terminal: %w", err)
		}
		s.keys, s.before = file, before
	}
	s.opened = true
	return s.write(topOpen)
}

func (s *topScreen) write(text string) error {
	if _, err := io.WriteString(s.out, text); err != nil {
		return fmt.Errorf("drawing on the terminal: %w", err)
	}
	return nil
}

// show draws what frame gives: at once, then every interval, and when the terminal
// has another size. It returns when ctx ends or nothing can be drawn.
func (s *topScreen) show(ctx context.Context, interval time.Duration, frame func(columns, rows int) string) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	look := time.NewTicker(topResize)
	defer look.Stop()
	columns, rows := 0, 0
	for due := true; ; {
		if c, r := s.size(); due || c != columns || r != rows {
			columns, rows = c, r
			if err := s.draw(frame(columns, rows)); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			due = true
		case <-look.C:
			due = false
		}
	}
}

// draw writes a frame over the one before, in one write.
func (s *topScreen) draw(frame string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.opened {
		return nil
	}
	// A raw terminal does not go to the first column by itself. The last line is
	// not ended: all would move up.
	lines := strings.ReplaceAll(strings.TrimSuffix(frame, "\n"), "\n", "\x1b[K\r\n")
	return s.write("\x1b[H" + lines + "\x1b[K\x1b[J")
}

// Handle does nothing: there are no events.
func (*topScreen) Handle(operations.Event) {}

// Suspend ends the drawing for good: only the end of the program asks for it.
func (s *topScreen) Suspend() (resume func()) {
	s.Close()
	return func() {}
}

// Close gives the terminal back as it was. It may be called several times.
func (s *topScreen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened && !s.closed {
		_ = s.write(topClose) // a terminal that is gone needs nothing
		if s.before != nil {
			_ = term.Restore(s.fd, s.before)
		}
	}
	s.closed = true
}

// closeOnPanic is deferred in goroutines whose panic ends the program.
func (s *topScreen) closeOnPanic() {
	if r := recover(); r != nil {
		s.Close()
		panic(r)
	}
}

// topFeed is what comes from the queen.
type topFeed struct {
	queen *remoteQueen
	first chan struct{} // closed when the first snapshot is there

	mu      sync.Mutex
	last    operations.FleetSnapshot
	at      time.Time // when it came; zero: nothing has come yet
	heard   time.Time // when anything came
	problem error     // why nothing comes; nil: something does
}

// now is the last snapshot, the present by the queen's clock, and how the queen is
// heard.
func (f *topFeed) now() (operations.FleetSnapshot, time.Time, top.Options) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := top.Options{Queen: f.queen.URL, Age: time.Since(f.heard)}
	if f.problem != nil {
		o.Problem = f.problem.Error()
	}
	return f.last, f.last.Time.Add(time.Since(f.at)), o
}

// take keeps a snapshot, or nothing but the time for nil.
func (f *topFeed) take(s *operations.FleetSnapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = time.Now()
	if s == nil {
		return
	}
	if f.at.IsZero() {
		close(f.first)
	}
	f.last, f.at, f.problem = *s, f.heard, nil
}

// get asks for one snapshot.
func (f *topFeed) get(ctx context.Context) (operations.FleetSnapshot, error) {
	var s operations.FleetSnapshot
	body, err := f.ask(ctx, "application/json")
	if err != nil {
		return s, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, topMost))
	if err != nil {
		return s, f.unreachable(ctx, err)
	}
	return s, f.read(data, &s)
}

// follow reads the stream until ctx ends. It is begun anew as often as it breaks,
// but an error before the first snapshot is the end.
func (f *topFeed) follow(ctx context.Context) error {
	pauses := &backoff.ExponentialBackOff{InitialInterval: topRetry, Multiplier: 2, MaxInterval: topPatient}
	for {
		began := time.Now()
		err := f.stream(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.mu.Lock()
		f.problem = err
		nothing, fresh := f.at.IsZero(), f.at.After(began)
		f.mu.Unlock()
		if nothing {
			return err
		}
		if fresh {
			pauses.Reset()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// stream reads one stream to its end, which is always an error.
func (f *topFeed) stream(ctx context.Context) error {
	body, err := f.ask(ctx, sse.ContentType)
	if err != nil {
		return err
	}
	defer body.Close()
	events := sse.NewReader(body, topMost)
	for {
		e, err := events.Next()
		switch {
		case errors.Is(err, sse.ErrTooLong):
			return f.unreadable(err)
		case errors.Is(err, io.EOF):
			return f.unreachable(ctx, io.ErrUnexpectedEOF)
		case err != nil:
			return f.unreachable(ctx, err)
		case e.Comment:
			f.take(nil)
			continue
		}
		var s operations.FleetSnapshot
		if err := f.read(e.Data, &s); err != nil {
			return err
		}
		f.take(&s)
	}
}

func (f *topFeed) read(data []byte, s *operations.FleetSnapshot) error {
	if err := json.Unmarshal(data, s); err != nil {
		return f.unreadable(err)
	}
	return nil
}

func (f *topFeed) unreadable(err error) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectQueen.Named(f.queen.URL), Message: fmt.Sprintf("what %s tells of its fleet cannot be read: %v", f.queen.URL, err), Err: err}
}

// errSilent ends a request of which nothing comes.
var errSilent = errors.New("nothing was heard for too long")

// ask begins a request for the fleet and gives the body of the answer, which ends
// when nothing comes for long.
func (f *topFeed) ask(ctx context.Context, accept string) (io.ReadCloser, error) {
	asking, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(topAnswer, func() { cancel(errSilent) })
	body, err := f.send(asking, accept)
	if err != nil {
		timer.Stop()
		if known := context.Cause(asking); errors.Is(known, errSilent) {
			err = known
		}
		cancel(nil)
		return nil, f.unreachable(ctx, err)
	}
	return &topBody{ReadCloser: body, ctx: asking, timer: timer, cancel: cancel}, nil
}

func (f *topFeed) send(ctx context.Context, accept string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.queen.URL+operations.FleetPath, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	if f.queen.Token != "" {
		req.Header.Set("Authorization", "Bearer "+string(f.queen.Token))
	}
	resp, err := f.queen.HTTP.Do(req)
	if err != nil {
		return nil, err
	}
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // no type is the wrong type
	if resp.StatusCode == http.StatusOK && kind == accept {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	return nil, f.refusal(resp, kind)
}

// refusal is the error in an answer that is not what was asked for.
func (f *topFeed) refusal(resp *http.Response, kind string) error {
	known := httpjson.ReadError(resp.Body)
	failed := func(reason operations.Reason, format string, args ...any) error {
		return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectQueen.Named(f.queen.URL), Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized && f.queen.Token == "":
		return failed(operations.ReasonAuth, "%s asks for a key", f.queen.URL)
	case resp.StatusCode == http.StatusUnauthorized:
		return failed(operations.ReasonAuth, "the key was refused by %s", f.queen.URL)
	case resp.StatusCode == http.StatusNotFound:
		return failed(operations.ReasonOtherVersion, "%s tells nothing of its fleet: it answered %q", f.queen.URL, resp.Status)
	case known != nil:
		return known
	}
	return failed(operations.ReasonOtherProgram, "%s answered %q with %s, which is no queen", f.queen.URL, resp.Status, cmp.Or(kind, "no content type"))
}

// unreachable words what went wrong on the way to the queen.
func (f *topFeed) unreachable(ctx context.Context, err error) error {
	var known *operations.Error
	var around *url.Error // it repeats method and address
	switch {
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled", Err: ctx.Err()}
	case errors.As(err, &around):
		err = around.Err
	}
	reason := operations.ConnectionReason(err)
	switch {
	case errors.Is(err, errSilent):
		reason = operations.ReasonTimeout
	case errors.Is(err, io.ErrUnexpectedEOF):
		reason = operations.ReasonLost
	}
	return &operations.Error{
		Code: operations.CodeUnreachable, Reason: reason, Subject: operations.SubjectQueen.Named(f.queen.URL), Message: fmt.Sprintf("%s cannot be reached: %v", f.queen.URL, err), Err: err,
	}
}

// topBody is the body of an answer that may be silent only so long.
type topBody struct {
	io.ReadCloser
	ctx    context.Context
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *topBody) Read(p []byte) (int, error) {
	b.timer.Reset(topSilence)
	n, err := b.ReadCloser.Read(p)
	if known := context.Cause(b.ctx); err != nil && errors.Is(known, errSilent) {
		err = known
	}
	return n, err
}

// Close ends the request.
func (b *topBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}
