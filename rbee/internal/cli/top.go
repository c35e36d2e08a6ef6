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
	Once     bool          `help:"Print one snapshot and exit (default: only if stdout is not a terminal)"`
	Interval time.Duration `default:"1s" placeholder:"TIME" help:"Minimum time between two updates of the screen (default: ${default})"`
}

// help implements [helper].
func (topCmd) help() commandHelp {
	return commandHelp{
		text:     "Shows hives, GPUs, workers and requests as the queen reports them, problems first. Press q or Ctrl-C to quit. The command connects to --queen or $RBEE_QUEEN (default: the queen on this machine) with the API key in $RBEE_API_KEY, and reconnects when the connection is lost.\n\nWith --once, one snapshot is printed as text; with --json, as JSON.",
		examples: []string{"rbee top", "rbee top --queen https://queen.lan:8500#SHA256:… --interval 5s", "rbee top --once", "rbee top --json | jq '.hives[].link'"},
	}
}

const (
	minTopInterval     = 100 * time.Millisecond // minimum of --interval
	topSizeInterval    = 200 * time.Millisecond // time between two checks of the terminal size
	topResponseTimeout = 30 * time.Second       // time limit for the response of the queen
	topIdleTimeout     = 45 * time.Second       // time without data after which a stream counts as lost
	minTopRetryDelay   = 500 * time.Millisecond // delay before the first reconnection; it doubles each time
	maxTopRetryDelay   = 10 * time.Second       // maximum delay between reconnections
	maxSnapshotBytes   = 64 << 20               // maximum size of a snapshot
)

// Run runs the command.
func (c *topCmd) Run(ctx context.Context, a *app) error {
	if c.Interval < minTopInterval {
		return &usageError{message: fmt.Sprintf("invalid --interval %v: want %v or more", c.Interval, minTopInterval), hint: "use a time such as --interval 2s"}
	}
	runner, err := a.client(cmp.Or(a.flags().Queen, a.p.Getenv("RBEE_QUEEN"), "http://"+queen.DefaultAddr))
	if err != nil {
		return err
	}
	defer runner.Close()
	remote, ok := runner.(*remoteQueen)
	if !ok {
		return fmt.Errorf("runner has type %T, want *remoteQueen", runner)
	}
	feed := &topFeed{queen: remote, first: make(chan struct{})}
	if c.Once || a.asJSON() || !a.terminal(a.p.Stdout) {
		return c.printOnce(ctx, a, feed)
	}
	return c.watch(ctx, a, feed)
}

// printOnce prints one snapshot.
func (c *topCmd) printOnce(ctx context.Context, a *app, feed *topFeed) error {
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
		return fmt.Errorf("cannot write the result: %w", err)
	}
	return nil
}

// watch draws on the terminal until ctx is done or the user quits.
func (c *topCmd) watch(ctx context.Context, a *app, feed *topFeed) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	screen := &topScreen{out: a.p.Stdout, size: terminalSize(a.p.Stdout)}
	defer screen.Close() // also after a panic
	done := make(chan error, 1)
	go func() {
		defer screen.closeOnPanic()
		done <- feed.follow(ctx)
	}()
	select {
	case <-feed.first:
	case err := <-done: // also when ctx is done
		return err
	}
	a.mu.Lock()
	a.progress = screen // a message about a signal closes the screen first
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
		// The last column stays free, since terminals behave differently after it is
		// written.
		o.Width, o.Height, o.Color, o.ASCII, o.Keys = max(columns-1, 1), rows, style.Color, style.ASCII, "q quit"
		return top.Frame(s, now, o)
	})
}

// waitForQuit returns when q or Ctrl-C is pressed or keys returns an error.
func waitForQuit(keys io.Reader) {
	buf := make([]byte, 64)
	for {
		n, err := keys.Read(buf)
		if err != nil || bytes.ContainsAny(buf[:n], "qQ\x03") {
			return
		}
	}
}

// topScreen is the full-screen drawing on a terminal. It is opened and closed once.
type topScreen struct {
	out  io.Writer
	size func() (columns, rows int)
	keys *os.File // input from the keyboard; nil if stdin is not a terminal

	mu     sync.Mutex
	opened bool
	closed bool
	fd     int         // file descriptor of keys
	state  *term.State // state of keys before open
}

// Escape sequences that enter and leave the alternate screen, with the cursor and
// automatic line wrapping disabled.
const (
	topOpen  = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[H\x1b[2J"
	topClose = "\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
)

// open switches the terminal to the alternate screen and to raw input.
func (s *topScreen) open(stdin io.Reader) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if file, ok := stdin.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		s.fd = int(file.Fd())
		state, err := term.MakeRaw(s.fd)
		if err != nil {
			return fmt.Errorf("cannot read keys from the terminal: %w", err)
		}
		s.keys, s.state = file, state
	}
	s.opened = true
	return s.write(topOpen)
}

func (s *topScreen) write(text string) error {
	if _, err := io.WriteString(s.out, text); err != nil {
		return fmt.Errorf("cannot draw on the terminal: %w", err)
	}
	return nil
}

// show draws frame immediately, then every interval and when the size of the terminal
// changes. It returns when ctx is done or drawing fails.
func (s *topScreen) show(ctx context.Context, interval time.Duration, frame func(columns, rows int) string) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	sizeTick := time.NewTicker(topSizeInterval)
	defer sizeTick.Stop()
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
		case <-sizeTick.C:
			due = false
		}
	}
}

// draw replaces the previous frame, in one write.
func (s *topScreen) draw(frame string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.opened {
		return nil
	}
	// A raw terminal needs carriage returns. The last line has no line break, which
	// would scroll the screen.
	lines := strings.ReplaceAll(strings.TrimSuffix(frame, "\n"), "\n", "\x1b[K\r\n")
	return s.write("\x1b[H" + lines + "\x1b[K\x1b[J")
}

// Handle does nothing, since top has no events.
func (*topScreen) Handle(operations.Event) {}

// Suspend closes the screen permanently: it is only called when the program ends.
func (s *topScreen) Suspend() (resume func()) {
	s.Close()
	return func() {}
}

// Close restores the terminal. It may be called several times.
func (s *topScreen) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.opened && !s.closed {
		_ = s.write(topClose) // a closed terminal needs no restoring
		if s.state != nil {
			_ = term.Restore(s.fd, s.state)
		}
	}
	s.closed = true
}

// closeOnPanic restores the terminal after a panic. It is deferred in goroutines.
func (s *topScreen) closeOnPanic() {
	if r := recover(); r != nil {
		s.Close()
		panic(r)
	}
}

// topFeed receives snapshots of the fleet from the queen.
type topFeed struct {
	queen *remoteQueen
	first chan struct{} // closed after the first snapshot

	mu         sync.Mutex
	last       operations.FleetSnapshot
	receivedAt time.Time // time of the last snapshot; zero before the first one
	seenAt     time.Time // time of the last message
	problem    error     // error of the connection, or nil
}

// now returns the last snapshot, the current time of the queen's clock, and options
// with the state of the connection.
func (f *topFeed) now() (operations.FleetSnapshot, time.Time, top.Options) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := top.Options{Queen: f.queen.URL, Age: time.Since(f.seenAt)}
	if f.problem != nil {
		o.Problem = f.problem.Error()
	}
	return f.last, f.last.Time.Add(time.Since(f.receivedAt)), o
}

// receive stores a snapshot. For nil it only stores the time.
func (f *topFeed) receive(s *operations.FleetSnapshot) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seenAt = time.Now()
	if s == nil {
		return
	}
	if f.receivedAt.IsZero() {
		close(f.first)
	}
	f.last, f.receivedAt, f.problem = *s, f.seenAt, nil
}

// get requests one snapshot.
func (f *topFeed) get(ctx context.Context) (operations.FleetSnapshot, error) {
	var s operations.FleetSnapshot
	body, err := f.request(ctx, "application/json")
	if err != nil {
		return s, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxSnapshotBytes))
	if err != nil {
		return s, f.unreachable(ctx, err)
	}
	return s, f.parse(data, &s)
}

// follow reads the stream until ctx is done. It reconnects when the stream breaks, but
// returns an error that occurs before the first snapshot.
func (f *topFeed) follow(ctx context.Context) error {
	delays := &backoff.ExponentialBackOff{InitialInterval: minTopRetryDelay, Multiplier: 2, MaxInterval: maxTopRetryDelay}
	for {
		start := time.Now()
		err := f.stream(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		f.mu.Lock()
		f.problem = err
		hasSnapshot, hasNewSnapshot := !f.receivedAt.IsZero(), f.receivedAt.After(start)
		f.mu.Unlock()
		if !hasSnapshot {
			return err
		}
		if hasNewSnapshot {
			delays.Reset()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delays.NextBackOff()):
		}
	}
}

// stream reads one stream until it ends, which is always an error.
func (f *topFeed) stream(ctx context.Context) error {
	body, err := f.request(ctx, sse.ContentType)
	if err != nil {
		return err
	}
	defer body.Close()
	events := sse.NewReader(body, maxSnapshotBytes)
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
			f.receive(nil)
			continue
		}
		var s operations.FleetSnapshot
		if err := f.parse(e.Data, &s); err != nil {
			return err
		}
		f.receive(&s)
	}
}

// parse decodes a snapshot.
func (f *topFeed) parse(data []byte, s *operations.FleetSnapshot) error {
	if err := json.Unmarshal(data, s); err != nil {
		return f.unreadable(err)
	}
	return nil
}

// unreadable returns the error of an invalid snapshot.
func (f *topFeed) unreadable(err error) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectQueen.WithName(f.queen.URL), Message: fmt.Sprintf("cannot read the fleet snapshot of %s: %v", f.queen.URL, err), Err: err}
}

// errIdle cancels a request that receives no data.
var errIdle = errors.New("timeout while waiting for data")

// request sends a request for the fleet and returns the body of the response, which
// ends if it receives no data for too long.
func (f *topFeed) request(ctx context.Context, accept string) (io.ReadCloser, error) {
	requestCtx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(topResponseTimeout, func() { cancel(errIdle) })
	body, err := f.send(requestCtx, accept)
	if err != nil {
		timer.Stop()
		if known := context.Cause(requestCtx); errors.Is(known, errIdle) {
			err = known
		}
		cancel(nil)
		return nil, f.unreachable(ctx, err)
	}
	return &topBody{ReadCloser: body, ctx: requestCtx, timer: timer, cancel: cancel}, nil
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
	return nil, f.errorOf(resp, kind)
}

// errorOf returns the error of an unexpected response.
func (f *topFeed) errorOf(resp *http.Response, kind string) error {
	known := httpjson.ReadError(resp.Body)
	failed := func(reason operations.Reason, format string, args ...any) error {
		return &operations.Error{Code: operations.CodeFailed, Reason: reason, Subject: operations.SubjectQueen.WithName(f.queen.URL), Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case resp.StatusCode == http.StatusUnauthorized && f.queen.Token == "":
		return failed(operations.ReasonAuth, "%s requires an API key", f.queen.URL)
	case resp.StatusCode == http.StatusUnauthorized:
		return failed(operations.ReasonAuth, "%s rejected the API key", f.queen.URL)
	case resp.StatusCode == http.StatusNotFound:
		return failed(operations.ReasonVersionMismatch, "%s does not support fleet snapshots: it responded with %q", f.queen.URL, resp.Status)
	case known != nil:
		return known
	}
	return failed(operations.ReasonNotRbee, "%s is not a queen: it responded with %q and type %s", f.queen.URL, resp.Status, cmp.Or(kind, "no content type"))
}

// unreachable converts an error of the connection to the queen.
func (f *topFeed) unreachable(ctx context.Context, err error) error {
	var known *operations.Error
	var urlErr *url.Error // it repeats the method and the address
	switch {
	case errors.As(err, &known):
		return err
	case ctx.Err() != nil:
		return &operations.Error{Code: operations.CodeCanceled, Reason: operations.ReasonCanceled, Message: "canceled", Err: ctx.Err()}
	case errors.As(err, &urlErr):
		err = urlErr.Err
	}
	reason := operations.ConnectionReason(err)
	switch {
	case errors.Is(err, errIdle):
		reason = operations.ReasonTimeout
	case errors.Is(err, io.ErrUnexpectedEOF):
		reason = operations.ReasonLost
	}
	return &operations.Error{
		Code: operations.CodeUnreachable, Reason: reason, Subject: operations.SubjectQueen.WithName(f.queen.URL), Message: fmt.Sprintf("cannot reach the queen at %s: %v", f.queen.URL, err), Err: err,
	}
}

// topBody is the body of a response with an idle timeout.
type topBody struct {
	io.ReadCloser
	ctx    context.Context
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *topBody) Read(p []byte) (int, error) {
	b.timer.Reset(topIdleTimeout)
	n, err := b.ReadCloser.Read(p)
	if known := context.Cause(b.ctx); err != nil && errors.Is(known, errIdle) {
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
