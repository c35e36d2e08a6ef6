package daemon

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/fetch"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/control"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/inspect"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// maxJobBytes limits the memory for job events and, separately, for job reports. The limit
// is low, because models need the memory of the machine.
const maxJobBytes = 8 << 20

// Options are the options of [Server.Serve]. The zero value uses the defaults.
type Options struct {
	Port int          // 0 means the port in the settings, or 8600
	Log  *slog.Logger // nil means text on stderr
}

// Serve runs the daemon in the foreground. It listens only on loopback. When ctx ends, it
// waits up to 5 s for running requests and returns nil. It fails if another daemon of this
// rbee directory is running or if the port is in use.
func (sv *Server) Serve(ctx context.Context, o Options) error {
	if err := sv.Home.Check(); err != nil {
		return err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.Port == 0 {
		var err error
		if o.Port, err = sv.Home.Port(); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(sv.Home.Path(wire.RunDir), 0o700); err != nil {
		return err
	}
	lock, err := filelock.Try(sv.Home.Path(home.DaemonLock), 0o700)
	if errors.Is(err, filelock.ErrLocked) {
		return fmt.Errorf("cannot start the hive daemon: a daemon of %s is already running", sv.Home.Root)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sv.Home.RotateLog(); err != nil {
		o.Log.Warn("log rotation failed", "error", err)
	}
	rotateCtx, stopRotation := context.WithCancel(context.WithoutCancel(ctx))
	rotationDone := make(chan struct{})
	go func() {
		defer close(rotationDone)
		sv.Home.RotateLogs(rotateCtx, home.LogCheckInterval, o.Log)
	}()
	defer func() { stopRotation(); <-rotationDone }()
	rt, err := sv.NewRuntime(o.Log)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", control.Loopback(o.Port))
	if err != nil {
		return fmt.Errorf("cannot start the hive daemon: %w", err)
	}
	token, err := sv.newToken()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	// Adopt running workers before the first request.
	if err := rt.Workers.Start(); err != nil {
		return errors.Join(err, ln.Close())
	}
	defer rt.Workers.Close()
	jobServer := jobs.New(rt, jobs.Options{Log: o.Log, MaxBytes: maxJobBytes, KeepBytes: maxJobBytes})
	rec, err := sv.newRecord(o.Port)
	if err == nil {
		err = statefile.Write(sv.Home.Path(home.DaemonFile), rec)
	}
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer os.Remove(sv.Home.Path(home.DaemonFile))
	o.Log.Info("hive daemon listening", "address", ln.Addr().String(), "version", sv.Store.Version)
	watch := sv.newWatcher(rec, rt)
	srv := &http.Server{
		Handler: sv.handler(rec, token, jobServer, proxy(rt.Workers, o.Log), watch), ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	o.Log.Info("hive daemon stopping")
	close(watch.stop)
	graceCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// Close the workers before the jobs: otherwise, canceling a spawn job would stop the
	// worker that is loading.
	rt.Workers.Close()
	if err := jobServer.Close(graceCtx); err != nil {
		o.Log.Warn("jobs interrupted", "error", err)
	}
	if srv.Shutdown(graceCtx) != nil {
		_ = srv.Close()
	}
	return nil
}

func (sv *Server) newRecord(port int) (*control.Record, error) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("cannot find the start time of this process: %w", err)
	}
	sum, _, err := fetch.HashFile(sv.Store.Exe)
	if err != nil {
		return nil, err
	}
	supervisor := os.Getenv(service.ManagerVariable)
	if supervisor == "" {
		supervisor = service.Detached
	}
	return &control.Record{ID: self, Port: port, Version: sv.Store.Version, SHA256: sum, Since: time.Now().UTC().Truncate(time.Second), Supervisor: supervisor}, nil
}

// newToken creates the token of this daemon process and stores it. It does not reuse the
// old token: while the daemon was not running, a client may have sent it to another program
// that listened on the port.
func (sv *Server) newToken() (string, error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := hex.EncodeToString(secret[:])
	return token, atomicfile.WriteData(sv.Home.Path(home.TokenFile), []byte(token+"\n"), 0o600)
}

func (sv *Server) handler(rec *control.Record, token string, jobServer, workers, watch http.Handler) http.Handler {
	mux := http.NewServeMux()
	requireToken := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok || subtle.ConstantTimeCompare([]byte(got), []byte(token)) != 1 {
				httpjson.WriteError(w, http.StatusUnauthorized, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Message: "missing or invalid token"})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux.Handle("/v1/jobs", requireToken(jobServer))
	mux.Handle("/v1/jobs/", requireToken(jobServer))
	mux.Handle(proxyPath, requireToken(workers))
	mux.Handle("GET "+operations.WatchPath, requireToken(watch))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.Handle("GET "+wire.StatePath, requireToken(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a deep inspection takes long
		q := r.URL.Query()
		state, err := sv.Inspector.Inspect(r.Context(), inspect.Options{Deep: q.Has("deep"), Devices: q.Has("devices")})
		if err != nil {
			httpjson.WriteError(w, http.StatusInternalServerError, err)
			return
		}
		httpjson.Write(w, http.StatusOK, state)
	})))
	mux.Handle("GET /v1/info", requireToken(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		workers, err := sv.Store.Workers(r.Context(), false)
		if err != nil {
			httpjson.WriteError(w, http.StatusInternalServerError, err)
			return
		}
		info := control.Info{Version: rec.Version, SHA256: rec.SHA256, PID: rec.PID, Port: rec.Port, Since: rec.Since, Workers: workers}
		if s, err := sv.Home.Settings(); err == nil {
			info.Alias = s.Alias
		}
		httpjson.Write(w, http.StatusOK, info)
	})))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.WriteError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotFound, Message: "unknown path"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Prevent DNS rebinding: a web page could send requests to this port through its
		// own host name, if it resolves to 127.0.0.1.
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			httpjson.WriteError(w, http.StatusForbidden, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonHostRefused, Message: "invalid Host header: want a loopback address"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}
