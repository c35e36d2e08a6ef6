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

// DefaultAddr is the default address of a queen.
const DefaultAddr = "127.0.0.1:8500"

// Timeouts and limits of the server.
const (
	defaultIdleTimeout = 15 * time.Minute       // default of [Options].Idle
	shutdownTimeout    = 30 * time.Second       // for requests in progress at shutdown
	cancelTimeout      = 5 * time.Second        // part of shutdownTimeout, for canceled jobs to end
	idleConnTimeout    = 2 * time.Minute        // for keep-alive connections without a request
	maxHeader          = 64 << 10               // bytes of a request header
	maxBody            = 64 << 20               // bytes of a request body
	maxLogin           = 4 << 10                // bytes of the body of POST /login
	minFleetInterval   = 500 * time.Millisecond // minimum time between two snapshots
)

// timeouts limit how long clients may take.
type timeouts struct {
	header    time.Duration // to send the header of a request
	read      time.Duration // to send a complete request; the gateway extends it
	write     time.Duration // to read a response, or a piece of a stream
	heartbeat time.Duration // maximum time between two snapshots of the fleet
}

func defaultTimeouts() timeouts {
	return timeouts{header: 10 * time.Second, read: 30 * time.Second, write: time.Minute, heartbeat: 5 * time.Second}
}

// Options configure a server. The zero value serves the default config on loopback.
type Options struct {
	Addr   string // empty means [DefaultAddr]
	Config string // path of the config; empty means the default config

	// Keys are the API keys of clients. Nil disables authentication, which requires a
	// loopback address and no Hosts.
	Keys *access.Keys

	// Idle is the time after which an idle on-demand worker is evicted; 0 means 15 minutes,
	// a negative value disables eviction.
	Idle time.Duration

	// Certificate enables TLS; nil means plain HTTP.
	Certificate *tls.Certificate

	// Origins are the origins of web pages that may send requests. Without Keys they may only
	// use the OpenAI API.
	Origins []string

	// Hosts are additional host names of the server. On a loopback address they belong to a
	// proxy, which forwards requests of other machines.
	Hosts []string

	Log *slog.Logger // nil logs text to stderr

	// Ready is called with the address once the server listens; may be nil.
	Ready func(addr net.Addr)

	timeouts timeouts // zero selects the defaults

	// dial, responseTimeout and staleAfter override the settings of the pool in tests.
	dial            func(context.Context, config.Hive) (pkgmgr.Host, error)
	responseTimeout time.Duration
	staleAfter      time.Duration
}

// Serve runs the queen until ctx is done. Then requests in progress have 30 seconds to
// complete. Jobs are canceled if they have not ended after 25 seconds.
func Serve(ctx context.Context, c controller.Options, o Options) error {
	if o.Addr == "" {
		o.Addr = DefaultAddr
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.timeouts == (timeouts{}) {
		o.timeouts = defaultTimeouts()
	}
	switch {
	case o.Keys == nil && !OnLoopback(o.Addr):
		return fmt.Errorf("cannot listen on %s without API keys: other machines can reach the address", o.Addr)
	case o.Keys == nil && len(o.Hosts) > 0:
		return fmt.Errorf("cannot serve host %s without API keys: other machines can reach it through a proxy", o.Hosts[0])
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
	poolDone := make(chan struct{})
	go func() { defer close(poolDone); q.run(background) }()
	defer func() { stop(); <-poolDone }()
	jobsServer := jobs.New(&remoteRunner{q.controller, q.paths}, jobs.Options{Log: o.Log})
	shutdownGate := &gate{next: q.handler(o, ln.Addr(), jobsServer)}
	srv := newServer(shutdownGate, o)
	if o.Certificate != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*o.Certificate}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}})
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	o.Log.Info("queen listening", "address", ln.Addr().String(), "version", q.version)
	if o.Ready != nil {
		o.Ready(ln.Addr())
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	o.Log.Info("queen stopping")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	shutdownGate.closed.Store(true)
	close(q.stopping)
	drainCtx, cancelDrain := context.WithTimeout(grace, shutdownTimeout-cancelTimeout)
	defer cancelDrain()
	if err := jobsServer.Drain(drainCtx); err != nil {
		o.Log.Warn("jobs canceled", "error", err)
	}
	if err := jobsServer.Close(grace); err != nil {
		o.Log.Warn("jobs still running", "error", err)
	}
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	return nil
}

// listenError returns the error for a queen that cannot listen on an address.
func listenError(addr string, err error) error {
	cause := err
	if call := (*os.SyscallError)(nil); errors.As(err, &call) {
		cause = call.Err // without the address, which the message contains
	}
	e := &operations.Error{
		Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectQueen.WithName(addr), Message: fmt.Sprintf("cannot listen on %s: %v", addr, cause), Err: err,
	}
	if operations.ReasonOf(err) == operations.ReasonPortInUse {
		e.Reason = operations.ReasonPortInUse
	}
	return e
}

// gate rejects new requests once it is closed, except requests for jobs: a client may still
// cancel its job, or watch it over a new connection.
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

// newServer returns a server that disconnects slow clients. The gateway and streams extend
// their own deadlines.
func newServer(h http.Handler, o Options) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: o.timeouts.header, ReadTimeout: o.timeouts.read, WriteTimeout: o.timeouts.write, IdleTimeout: idleConnTimeout,
		MaxHeaderBytes: maxHeader, ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
}

// OnLoopback reports whether an address is reachable only from this machine.
func OnLoopback(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// handler returns the handler of the server. It also starts the eviction of idle workers.
func (q *queen) handler(o Options, addr net.Addr, jobsServer http.Handler) http.Handler {
	go q.loader.EvictIdle(cmp.Or(o.Idle, defaultIdleTimeout))
	apiGateway := gateway.New(gateway.Options{Router: q.balancer, Observer: q.traffic, Log: o.Log, MaxBody: maxBody, ShowDetail: isAdmin})
	mux := http.NewServeMux()
	mux.Handle("/v1/jobs", jobsServer)
	mux.Handle("/v1/jobs/", jobsServer)
	mux.HandleFunc("GET "+operations.FleetPath, func(w http.ResponseWriter, r *http.Request) { q.serveFleet(w, r, o.timeouts) })
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
	mux.Handle("/v1/", apiGateway)
	mux.Handle("/", dashboard.Handler())
	guard := access.Guard(access.Options{
		Keys: o.Keys, Addr: addr.String(), Origins: o.Origins, Hosts: o.Hosts, Scope: requiredScope, MaxBody: maxBody, DrainTimeout: o.timeouts.read, Log: o.Log,
		WriteDenial: func(w http.ResponseWriter, r *http.Request, status int, code, message string) {
			if requiredScope(r) == access.ScopeInfer {
				writeAPIError(w, status, code, message)
				return
			}
			httpjson.WriteError(w, status, &operations.Error{Code: operations.CodeFailed, Reason: operations.Reason(code), Message: message})
		},
	})
	return guard(mux)
}

// isAdmin reports whether the client has the scope admin, which permits reading the names and
// addresses of hives.
func isAdmin(ctx context.Context) bool {
	return access.ScopeFrom(ctx).Includes(access.ScopeAdmin)
}

// requiredScope returns the scope that a request needs; empty for public paths.
func requiredScope(r *http.Request) access.Scope {
	path := r.URL.Path
	adminPaths := []string{"/v1/jobs", "/v1/jobs/", operations.FleetPath, "/v1/info"}
	switch {
	case path == "/metrics":
		return access.ScopeAdmin
	case strings.HasPrefix(path, "/v1/"):
		for _, p := range adminPaths {
			if path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p) {
				return access.ScopeAdmin
			}
		}
		return access.ScopeInfer
	default:
		return "" // the dashboard's static files, /login and /health
	}
}

// login checks the API key of the dashboard and stores it in a cookie that scripts cannot
// read.
func login(w http.ResponseWriter, r *http.Request, o Options) {
	var body struct {
		Key string `json:"key"`
	}
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLogin)).Decode(&body); err != nil || o.Keys == nil {
		writeLoginError(w, http.StatusBadRequest, operations.ReasonInvalidOperation, "cannot log in: the request is not a JSON object with a key, or the queen has no API keys")
		return
	}
	key, ok, err := o.Keys.Check(body.Key)
	switch {
	case err != nil:
		writeLoginError(w, http.StatusInternalServerError, operations.ReasonFailed, "cannot read the API keys")
	case !ok || !key.Scope.Includes(access.ScopeAdmin):
		writeLoginError(w, http.StatusUnauthorized, operations.ReasonAuth, "invalid key: want an API key with the scope admin")
	default:
		http.SetCookie(w, &http.Cookie{ //nolint:gosec // Secure with TLS; on loopback the queen may use plain HTTP
			Name: access.Cookie, Value: body.Key, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: o.Certificate != nil, MaxAge: 30 * 24 * 3600,
		})
		w.WriteHeader(http.StatusNoContent)
	}
}

func writeLoginError(w http.ResponseWriter, status int, reason operations.Reason, message string) {
	httpjson.WriteError(w, status, &operations.Error{Code: operations.CodeFailed, Reason: reason, Message: message})
}

// writeAPIError responds with an error in OpenAI's format.
func writeAPIError(w http.ResponseWriter, status int, code, message string) {
	(&gateway.APIError{Status: status, Code: code, Message: message}).Write(w)
}

// serveFleet responds with a snapshot of the fleet, or with a stream of snapshots.
func (q *queen) serveFleet(w http.ResponseWriter, r *http.Request, t timeouts) {
	if !strings.Contains(r.Header.Get("Accept"), sse.ContentType) {
		httpjson.Write(w, http.StatusOK, q.snapshot())
		return
	}
	out := sse.NewWriter(w, t.write)
	defer out.Close()
	heartbeat := time.NewTicker(t.heartbeat)
	defer heartbeat.Stop()
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
		case <-heartbeat.C:
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

// remoteRunner runs operations that were received over HTTP. It rejects file paths outside
// rbee's config directory.
type remoteRunner struct {
	runner operations.Runner
	paths  pkgmgr.Paths
}

// Run implements [operations.Runner].
func (r *remoteRunner) Run(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	op, err := client.MapPaths(op, r.inConfigDir)
	if err != nil {
		return nil, err
	}
	return r.runner.Run(ctx, op, events)
}

// inConfigDir returns the resolved path if it is absolute and inside the config directory.
// Relative paths are invalid, because the working directory of the client is unknown.
func (r *remoteRunner) inConfigDir(path string) (string, error) {
	dir, err := filepath.EvalSymlinks(r.paths.ConfigDir)
	if err != nil {
		dir = r.paths.ConfigDir
	}
	isDir := strings.HasSuffix(path, string(filepath.Separator))
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		path = filepath.Join(r.paths.Home, rest)
	}
	if !filepath.IsAbs(path) {
		return "", fmt.Errorf("invalid path %s: want an absolute path on the queen's machine", path)
	}
	resolved := filepath.Clean(path)
	for at := resolved; ; at = filepath.Dir(at) { // resolve symbolic links in the part that exists
		target, err := filepath.EvalSymlinks(at)
		if err == nil {
			resolved = filepath.Join(target, strings.TrimPrefix(resolved, at))
			break
		}
		if !errors.Is(err, os.ErrNotExist) || at == filepath.Dir(at) {
			return "", fmt.Errorf("cannot resolve %s: %w", path, err)
		}
	}
	if rel, err := filepath.Rel(dir, resolved); err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("invalid path %s: want a path inside the queen's directory %s", path, dir)
	}
	if isDir {
		resolved += string(filepath.Separator)
	}
	return resolved, nil
}
