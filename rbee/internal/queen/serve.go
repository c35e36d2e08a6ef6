package queen

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/rbee/internal/access"
	"github.com/rbee-keeper/rbee/rbee/internal/controller"
	"github.com/rbee-keeper/rbee/rbee/internal/dashboard"
	"github.com/rbee-keeper/rbee/rbee/internal/gateway"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// DefaultAddr is where a queen listens when nothing else is said.
const DefaultAddr = "127.0.0.1:8500"

// Limits of the server.
const (
	defaultIdleTimeout = 15 * time.Minute
	shutdownTimeout    = 30 * time.Second // for answers that are under way when it stops
	cancelTimeout      = 5 * time.Second  // of that, for jobs that are canceled because they have not ended
	idleConnTimeout    = 2 * time.Minute
	maxHeader          = 64 << 10
	maxBody            = 64 << 20
	maxLogin           = 4 << 10
	minFleetInterval   = 500 * time.Millisecond // between two snapshots at least
)

// timeouts are how long clients may take.
type timeouts struct {
	header    time.Duration // to send a request's header
	read      time.Duration // to send all of a request; the gateway gives more
	write     time.Duration // to take an answer, or a piece of a stream
	heartbeat time.Duration // between two snapshots of the fleet at most
}

func defaultTimeouts() timeouts {
	return timeouts{header: 10 * time.Second, read: 30 * time.Second, write: time.Minute, heartbeat: 5 * time.Second}
}

// Options are a server's. The zero value serves the default config on loopback.
type Options struct {
	Addr   string // empty is [DefaultAddr]
	Config string // the config file; empty for the default one

	// Keys are demanded of everybody; nil demands none, which only an address on
	// loopback may, without Hosts.
	Keys *access.Keys

	// Idle is how long a worker that was started on demand may be idle before it is
	// ended; 0 is 15 minutes, less never ends one.
	Idle time.Duration

	// Certificate makes it TLS; nil is plain HTTP.
	Certificate *tls.Certificate

	// Origins are web pages that may ask it. Without Keys they may ask models only.
	Origins []string

	// Hosts are further names that it goes by. On loopback they are those of a proxy,
	// whose clients are strangers.
	Hosts []string

	Log *slog.Logger // nil: text on stderr

	// Ready is called once it listens, with the address; may be nil.
	Ready func(addr net.Addr)

	times timeouts // the zero ones are the usual ones

	// dial connects to the machine of a hive, answerTimeout is for one answer of a hive,
	// and staleAfter is how long it may be silent; the zero values are the usual ones.
	dial          func(context.Context, config.Hive) (pkgmgr.Host, error)
	answerTimeout time.Duration
	staleAfter    time.Duration
}

// Serve is the queen as a server, until ctx ends and answers under way are given,
// for which they have 30 seconds. Jobs have 25 seconds to end by themselves, and
// are canceled then.
func Serve(ctx context.Context, c controller.Options, o Options) error {
	if o.Addr == "" {
		o.Addr = DefaultAddr
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.times == (timeouts{}) {
		o.times = defaultTimeouts()
	}
	switch {
	case o.Keys == nil && !OnLoopback(o.Addr):
		return fmt.Errorf("%s can be reached from other machines, which demands keys", o.Addr)
	case o.Keys == nil && len(o.Hosts) > 0:
		return fmt.Errorf("as %s it can be reached from other machines, through a proxy, which demands keys", o.Hosts[0])
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Addr)
	if err != nil {
		return listenError(o.Addr, err)
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	q, err := newQueen(background, c, o)
	if err != nil {
		_ = ln.Close()
		return err
	}
	defer q.dialer.Close()
	held := make(chan struct{})
	go func() { defer close(held); q.run(background) }()
	defer func() { stop(); <-held }()
	work := jobs.New(&remoteRunner{q.controller, q.paths}, jobs.Options{Log: o.Log})
	stopping := &gate{next: q.handler(o, ln.Addr(), work)}
	srv := newServer(stopping, o)
	if o.Certificate != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*o.Certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	o.Log.Info("queen listens", "address", ln.Addr().String(), "version", q.version)
	if o.Ready != nil {
		o.Ready(ln.Addr())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	o.Log.Info("queen stops, and finishes what is under way")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	stopping.closed.Store(true)
	close(q.stopping)
	patience, cancelPatience := context.WithTimeout(grace, shutdownTimeout-cancelTimeout)
	defer cancelPatience()
	if err := work.Drain(patience); err != nil {
		o.Log.Warn("jobs are canceled", "error", err)
	}
	if err := work.Close(grace); err != nil {
		o.Log.Warn("jobs are cut off", "error", err)
	}
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	return nil
}

// listenError returns the error of a queen that cannot listen on an address.
func listenError(addr string, err error) error {
	e := &operations.Error{
		Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectQueen.Named(addr), Message: "queen: " + err.Error(), Err: err,
	}
	if operations.ReasonOf(err) == operations.ReasonPortInUse {
		e.Reason = operations.ReasonPortInUse
	}
	return e
}

// gate refuses new requests once it is shut, but for those about jobs: whoever waits
// for one may cancel it, or look for it on a new connection.
type gate struct {
	next   http.Handler
	closed atomic.Bool
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if g.closed.Load() && !strings.HasPrefix(r.URL.Path, "/v1/jobs") {
		w.Header().Set("Connection", "close")
		w.Header().Set("Retry-After", "5")
		writeAPIError(w, http.StatusServiceUnavailable, "stopping", "the queen is stopping")
		return
	}
	g.next.ServeHTTP(w, r)
}

// newServer is a server that cuts clients who are slow. What takes longer renews its
// limits: the gateway, and streams.
func newServer(h http.Handler, o Options) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: o.times.header, ReadTimeout: o.times.read, WriteTimeout: o.times.write, IdleTimeout: idleConnTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
}

// OnLoopback reports whether only this machine reaches an address.
func OnLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// handler is all that the server answers.
func (q *queen) handler(o Options, addr net.Addr, work http.Handler) http.Handler {
	go q.loader.EvictIdle(cmp.Or(o.Idle, defaultIdleTimeout))
	front := gateway.New(gateway.Options{Router: q.balancer, Observer: q.traffic, Log: o.Log, MaxBody: maxBody, ShowDetail: isAdmin})
	mux := http.NewServeMux()
	mux.Handle("/v1/jobs", work)
	mux.Handle("/v1/jobs/", work)
	mux.HandleFunc("GET "+operations.FleetPath, func(w http.ResponseWriter, r *http.Request) { q.serveFleet(w, r, o.times) })
	mux.HandleFunc("GET /v1/info", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, map[string]any{"version": q.version, "pid": os.Getpid(), "since": q.pool.Since()})
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		q.traffic.WriteMetrics(w, q.loader.WaitingByModel(), q.snapshot().Hives)
	})
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) { login(w, r, o) })
	mux.Handle("/v1/", front)
	mux.Handle("/", dashboard.Handler())
	guard := access.Guard(access.Options{
		Keys: o.Keys, Addr: addr.String(), Origins: o.Origins, Hosts: o.Hosts, Scope: requiredScope, MaxBody: maxBody, Linger: o.times.read, Log: o.Log,
		Refuse: func(w http.ResponseWriter, r *http.Request, status int, code, message string) {
			if requiredScope(r) == access.ScopeInfer {
				writeAPIError(w, status, code, message)
				return
			}
			httpjson.WriteError(w, status, &operations.Error{Code: operations.CodeFailed, Reason: operations.Reason(code), Message: message})
		},
	})
	return guard(mux)
}

// isAdmin reports whether the one who asks may hear about machines and their addresses.
func isAdmin(ctx context.Context) bool {
	return access.ScopeFrom(ctx).Includes(access.ScopeAdmin)
}

// requiredScope is what a request must be allowed to do.
func requiredScope(r *http.Request) access.Scope {
	path := r.URL.Path
	own := []string{"/v1/jobs", "/v1/jobs/", operations.FleetPath, "/v1/info"}
	switch {
	case path == "/metrics":
		return access.ScopeAdmin
	case strings.HasPrefix(path, "/v1/"):
		for _, p := range own {
			if path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
				return access.ScopeAdmin
			}
		}
		return access.ScopeInfer
	default:
		return "" // the page, which has nothing in it yet
	}
}

// login takes a key from the page and puts it into a cookie that no script reads.
func login(w http.ResponseWriter, r *http.Request, o Options) {
	var asked struct {
		Key string `json:"key"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&asked); err != nil || o.Keys == nil {
		writeLoginError(w, http.StatusBadRequest, operations.ReasonInvalidOperation, "a key is wanted, and only where keys are demanded")
		return
	}
	key, ok, err := o.Keys.Check(asked.Key)
	switch {
	case err != nil:
		writeLoginError(w, http.StatusInternalServerError, operations.ReasonFailed, "the keys cannot be read")
	case !ok || !key.Scope.Includes(access.ScopeAdmin):
		writeLoginError(w, http.StatusUnauthorized, operations.ReasonAuth, "this is no key of scope admin")
	default:
		http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure wherever it is TLS: on loopback it is plain HTTP
			Name: access.Cookie, Value: asked.Key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: o.Certificate != nil, MaxAge: 30 * 24 * 3600,
		})
		w.WriteHeader(http.StatusNoContent)
	}
}

func writeLoginError(w http.ResponseWriter, status int, reason operations.Reason, message string) {
	httpjson.WriteError(w, status, &operations.Error{Code: operations.CodeFailed, Reason: reason, Message: message})
}

// writeAPIError responds with an error in the form of the gateway.
func writeAPIError(w http.ResponseWriter, status int, code, message string) {
	(&gateway.APIError{Status: status, Code: code, Message: message}).Write(w)
}

// serveFleet tells of the fleet, once or as a stream.
func (q *queen) serveFleet(w http.ResponseWriter, r *http.Request, t timeouts) {
	if !strings.Contains(r.Header.Get("Accept"), sse.ContentType) {
		httpjson.Write(w, http.StatusOK, q.snapshot())
		return
	}
	out := sse.NewWriter(w, t.write)
	defer out.Close()
	beat := time.NewTicker(t.heartbeat)
	defer beat.Stop()
	for {
		next := q.pool.Changed()
		data, err := json.Marshal(q.snapshot())
		if err != nil {
			return
		}
		if out.Send(sse.Event{Data: data}) != nil {
			return
		}
		select {
		case <-next:
		case <-beat.C:
		case <-q.stopping:
			return
		case <-r.Context().Done():
			return
		}
		select {
		case <-time.After(minFleetInterval):
		case <-r.Context().Done():
			return
		}
	}
}

// remoteRunner does operations that came over HTTP. What they name of this machine's
// files must lie in rbee's own directory.
type remoteRunner struct {
	runner operations.Runner
	paths  pkgmgr.Paths
}

// Run implements [operations.Runner].
func (r *remoteRunner) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	op, err := client.WithPaths(op, r.inConfigDir)
	if err != nil {
		return nil, err
	}
	return r.runner.Run(ctx, op, events)
}

// inConfigDir is a path on this machine, if it is absolute and lies in the directory
// of the config. What a relative one is meant from is known to its sender only.
func (r *remoteRunner) inConfigDir(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(r.paths.ConfigDir)
	if err != nil {
		dir = r.paths.ConfigDir
	}
	directory := strings.HasSuffix(path, string(filepath.Separator))
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(r.paths.Home, rest)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("%s is no absolute path of the queen's machine", path)
	}
	resolved := filepath.Clean(path)
	for at := resolved; ; at = filepath.Dir(at) { // what is there of it must not lead elsewhere
		target, err := filepath.EvalSymlinks(at)
		if err == nil {
			resolved = filepath.Join(target, strings.TrimPrefix(resolved, at))
			break
		}
		if !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			return "", fmt.Errorf("%s: %w", path, err)
		}
	}
	if rel, err := filepath.Rel(dir, resolved); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s lies outside of the queen's directory %s", path, dir)
	}
	if directory {
		resolved += string(filepath.Separator)
	}
	return resolved, nil
}
