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

// maxJobBytes bounds the events that jobs keep, and the reports: the machine's memory is
// there for models.
const maxJobBytes = 8 << 20

// Options are the daemon's. The zero value works.
type Options struct {
	Port int          // 0: that of the settings, or 8600
	Log  *slog.Logger // nil: text on stderr
}

// Serve is the daemon in the foreground, on loopback alone. It returns nil once
// ctx has ended and requests in flight are answered (5 s at most), and an error
// when another daemon of this home runs or the port is taken.
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
	if errors.Is(err, filelock.ErrHeld) {
		return fmt.Errorf("another daemon of %s runs already", sv.Home.Root)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sv.Home.RotateLog(); err != nil {
		o.Log.Warn("the log stays as it is", "error", err)
	}
	rotating, stop := context.WithCancel(context.WithoutCancel(ctx))
	rotated := make(chan struct{})
	go func() { defer close(rotated); sv.Home.RotateLogs(rotating, home.LogCheckInterval, o.Log) }()
	defer func() { stop(); <-rotated }()
	rt, err := sv.NewRuntime(o.Log)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", control.Loopback(o.Port))
	if err != nil {
		return fmt.Errorf("hive daemon: %w", err)
	}
	token, err := sv.newToken()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	// Workers are taken over before anybody can ask for them.
	if err := rt.Workers.Start(); err != nil {
		return errors.Join(err, ln.Close())
	}
	defer rt.Workers.Close()
	work := jobs.New(rt, jobs.Options{Log: o.Log, MaxBytes: maxJobBytes, KeepBytes: maxJobBytes})
	rec, err := sv.newRecord(o.Port)
	if err == nil {
		err = statefile.Write(sv.Home.Path(home.DaemonFile), rec)
	}
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer os.Remove(sv.Home.Path(home.DaemonFile))
	o.Log.Info("hive daemon listens", "address", ln.Addr().String(), "version", sv.Store.Version)
	watch := sv.newWatcher(rec, rt)
	srv := &http.Server{
		Handler: sv.handler(rec, token, work, proxy(rt.Workers, o.Log), watch), ReadHeaderTimeout: 10 * time.Second,
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
	o.Log.Info("hive daemon stops")
	close(watch.stop)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	// Before jobs are canceled: one that waits for a worker to load would end it.
	rt.Workers.Close()
	if err := work.Close(grace); err != nil {
		o.Log.Warn("jobs are cut off", "error", err)
	}
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	return nil
}

func (sv *Server) newRecord(port int) (*control.Record, error) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("finding this process's start time: %w", err)
	}
	sum, _, err := fetch.HashFile(sv.Store.Exe)
	if err != nil {
		return nil, err
	}
	by := os.Getenv(service.ManagerVariable)
	if by == "" {
		by = service.Detached
	}
	return &control.Record{ID: self, Port: port, Version: sv.Store.Version, SHA256: sum, Since: time.Now().UTC().Truncate(time.Second), Supervisor: by}, nil
}

// newToken makes a token for this daemon's life. An old one may have been sent to
// somebody who took the port while no daemon ran.
func (sv *Server) newToken() (string, error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := hex.EncodeToString(secret[:])
	return token, atomicfile.WriteData(sv.Home.Path(home.TokenFile), []byte(token+"\n"), 0o600)
}

func (sv *Server) handler(rec *control.Record, token string, work, workers, watch http.Handler) http.Handler {
	mux := http.NewServeMux()
	guarded := func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			given, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok || subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
				httpjson.WriteError(w, http.StatusUnauthorized, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonAuth, Message: "the token is missing or wrong"})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
	mux.Handle("/v1/jobs", guarded(work))
	mux.Handle("/v1/jobs/", guarded(work))
	mux.Handle(proxyPath, guarded(workers))
	mux.Handle("GET "+operations.WatchPath, guarded(watch))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		httpjson.Write(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.Handle("GET "+wire.StatePath, guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetReadDeadline(time.Time{}) // a deep look takes its time
		q := r.URL.Query()
		state, err := sv.Inspector.Inspect(r.Context(), inspect.Options{Deep: q.Has("deep"), Devices: q.Has("devices")})
		if err != nil {
			httpjson.WriteError(w, http.StatusInternalServerError, err)
			return
		}
		httpjson.Write(w, http.StatusOK, state)
	})))
	mux.Handle("GET /v1/info", guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
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
		httpjson.WriteError(w, http.StatusNotFound, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotFound, Message: "there is nothing here"})
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// A web page can make a browser ask this port under a name of its own.
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			httpjson.WriteError(w, http.StatusForbidden, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonHostRefused, Message: "the Host header names no loopback address"})
			return
		}
		mux.ServeHTTP(w, r)
	})
}
