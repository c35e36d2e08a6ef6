package hive

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/filelock"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/proc"
	"github.com/rbee-keeper/rbee/rbee/internal/jobs"
)

// jobBytes bounds the events that jobs keep, and the reports: the machine's memory is
// there for models.
const jobBytes = 8 << 20

// ServeOptions are the daemon's. The zero value works.
type ServeOptions struct {
	Port int          // 0: that of the settings, or 8600
	Log  *slog.Logger // nil: text on stderr
}

// Info is what the daemon says of itself at GET /v1/info.
type Info struct {
	Alias   string        `json:"alias"`
	Version string        `json:"version"`
	SHA256  string        `json:"sha256"` // of its binary, in hex
	PID     int           `json:"pid"`
	Port    int           `json:"port"`
	Since   time.Time     `json:"since"`
	Workers []wire.Worker `json:"workers"`
}

// record is run/hive.json.
type record struct {
	proc.ID
	Port       int       `json:"port"`
	Version    string    `json:"version"`
	SHA256     string    `json:"sha256"`
	Since      time.Time `json:"since"`
	Supervisor string    `json:"supervisor"`
}

// Serve is the daemon in the foreground, on loopback alone. It returns nil once
// ctx has ended and requests in flight are answered (5 s at most), and an error
// when another daemon of this home runs or the port is taken.
func (h *Hive) Serve(ctx context.Context, o ServeOptions) error {
	if err := h.checkHome(); err != nil {
		return err
	}
	if o.Log == nil {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	if o.Port == 0 {
		o.Port = h.port()
	}
	if err := os.MkdirAll(h.path(wire.RunDir), 0o700); err != nil {
		return err
	}
	lock, err := filelock.Try(h.path(daemonLock), 0o700)
	if errors.Is(err, filelock.ErrHeld) {
		return fmt.Errorf("another daemon of %s runs already", h.Home)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := h.rotateLog(); err != nil {
		o.Log.Warn("the log stays as it is", "error", err)
	}
	rotating, stop := context.WithCancel(context.WithoutCancel(ctx))
	rotated := make(chan struct{})
	go func() { defer close(rotated); h.rotateLogs(rotating, logEvery, o.Log) }()
	defer func() { stop(); <-rotated }()
	rt, err := h.newRunner(o.Log)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", loopback(o.Port))
	if err != nil {
		return fmt.Errorf("hive daemon: %w", err)
	}
	token, err := h.newToken()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	// Workers are taken over before anybody can ask for them.
	if err := rt.workers.Start(); err != nil {
		return errors.Join(err, ln.Close())
	}
	defer rt.workers.Close()
	work := jobs.New(rt, jobs.Options{Log: o.Log, MaxBytes: jobBytes, KeepBytes: jobBytes})
	rec, err := h.newRecord(o.Port)
	if err == nil {
		err = atomicfile.WriteJSON(h.path(daemonFile), rec)
	}
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	defer os.Remove(h.path(daemonFile))
	o.Log.Info("hive daemon listens", "address", ln.Addr().String(), "version", h.Version)
	watch := h.watcher(rec, rt)
	srv := &http.Server{
		Handler: h.handler(rec, token, work, proxy(rt.workers, o.Log), watch), ReadHeaderTimeout: 10 * time.Second,
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
	// Before jobs are cancelled: one that waits for a worker to load would end it.
	rt.workers.Close()
	if err := work.Close(grace); err != nil {
		o.Log.Warn("jobs are cut off", "error", err)
	}
	if srv.Shutdown(grace) != nil {
		_ = srv.Close()
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func (h *Hive) newRecord(port int) (*record, error) {
	self, err := proc.Identify(os.Getpid())
	if err != nil {
		return nil, fmt.Errorf("finding this process's start time: %w", err)
	}
	sum, _, err := hashFile(h.Exe)
	if err != nil {
		return nil, err
	}
	by := os.Getenv("RBEE_SUPERVISOR")
	if by == "" {
		by = SupervisorNone
	}
	return &record{self, port, h.Version, sum, time.Now().UTC().Truncate(time.Second), by}, nil
}

// token reads the daemon's token.
func (h *Hive) token() (string, error) {
	data, err := os.ReadFile(h.path(tokenFile))
	token := strings.TrimSpace(string(data))
	if err == nil && len(token) != 64 {
		err = errors.New("it is not whole")
	}
	if err != nil {
		return "", fmt.Errorf("reading the daemon's token: %w", err)
	}
	return token, nil
}

// newToken makes a token for this daemon's life. An old one may have been sent to
// somebody who took the port while no daemon ran.
func (h *Hive) newToken() (string, error) {
	var secret [32]byte
	_, _ = rand.Read(secret[:]) // never fails
	token := hex.EncodeToString(secret[:])
	return token, atomicfile.WriteData(h.path(tokenFile), []byte(token+"\n"), 0o600)
}

func (h *Hive) handler(rec *record, token string, work, workers, watch http.Handler) http.Handler {
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
		state, err := h.Inspect(r.Context(), InspectOptions{Deep: q.Has("deep"), Devices: q.Has("devices")})
		if err != nil {
			httpjson.WriteError(w, http.StatusInternalServerError, err)
			return
		}
		httpjson.Write(w, http.StatusOK, state)
	})))
	mux.Handle("GET /v1/info", guarded(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		workers, err := h.workers(r.Context(), false)
		if err != nil {
			httpjson.WriteError(w, http.StatusInternalServerError, err)
			return
		}
		info := Info{"", rec.Version, rec.SHA256, rec.PID, rec.Port, rec.Since, workers}
		if s, err := h.settings(); err == nil {
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

// ask gets the daemon's own word, with the token.
func (h *Hive) ask(ctx context.Context, port int) (*Info, error) {
	token, err := h.token()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+loopback(port)+"/v1/info", http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("port %d answers %s", port, resp.Status)
	}
	var info Info
	return &info, json.NewDecoder(resp.Body).Decode(&info)
}
