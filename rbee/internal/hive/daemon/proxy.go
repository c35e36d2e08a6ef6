package daemon

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/operations/httpjson"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// proxyPath is the pattern of the paths that the hive forwards to a worker. All requests to
// workers go through the hive, so that it can reject new requests to a draining worker, and
// wait for running requests before it stops the worker.
const proxyPath = "/v1/workers/{id}/proxy/{path...}"

// errorHeader marks an error response of the hive itself, as opposed to the engine.
const errorHeader = "X-Rbee-Error"

// engineIdleTimeout limits how long an idle connection to an engine is kept for reuse. It
// is less than the shortest keep-alive timeout of an engine, 5 s in uvicorn and the
// llama.cpp server, because a request on a connection that the engine is closing fails.
const engineIdleTimeout = 3 * time.Second

// statusClientClosed is the logged status of a request whose client closed the connection.
const statusClientClosed = 499

// proxy returns a handler that forwards requests to workers unchanged and flushes streamed
// responses immediately. It logs each request when it ends, with the same request ID as
// the queen and the engine.
func proxy(m *workers.Manager, log *slog.Logger) http.Handler {
	transport := &http.Transport{
		DialContext:        (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: engineIdleTimeout,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		port, done, err := m.BeginRequest(id)
		if err != nil {
			w.Header().Set(errorHeader, string(operations.CodeOf(err)))
			status := http.StatusServiceUnavailable
			if operations.CodeOf(err) == operations.CodeNotFound {
				status = http.StatusNotFound
			}
			httpjson.WriteError(w, status, err)
			return
		}
		defer done()
		start, status, complete := time.Now(), statusClientClosed, false
		defer func() {
			log.Info("request", "worker", id, "request", r.Header.Get(client.RequestIDHeader), "path", r.PathValue("path"),
				"status", status, "complete", complete, "duration", time.Since(start).Round(time.Millisecond/10))
		}()
		// Remove the read deadline, because generation may take long. Enable full duplex,
		// because a response may start before the request body is read to EOF. Otherwise
		// net/http closes the body while the transport still reads it, and the transport
		// drops the connection to the engine.
		control := http.NewResponseController(w)
		_ = errors.Join(control.SetReadDeadline(time.Time{}), control.EnableFullDuplex())
		target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
		(&httputil.ReverseProxy{
			Transport: transport, FlushInterval: -1,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(target)
				p.Out.URL.Path, p.Out.URL.RawPath = enginePath(r)
				p.Out.Header.Del("Authorization") // the token of the hive
			},
			ModifyResponse: func(resp *http.Response) error {
				status = resp.StatusCode
				return nil
			},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if r.Context().Err() != nil {
					return // the client has disconnected
				}
				log.Warn("worker request failed", "worker", id, "request", r.Header.Get(client.RequestIDHeader), "error", err)
				w.Header().Set(errorHeader, string(operations.CodeFailed))
				status = http.StatusBadGateway
				httpjson.WriteError(w, status, &operations.Error{
					Code: operations.CodeFailed, Reason: operations.ReasonWorkerFailed, Subject: operations.SubjectWorker.WithName(id), Message: "worker " + id + " did not respond: " + err.Error(), Err: err,
				})
			},
		}).ServeHTTP(w, r)
		complete = true // ReverseProxy panics if the response is interrupted
	})
}

// enginePath returns the path of the request to the engine. raw is its escaped form, if it
// differs from path.
func enginePath(r *http.Request) (path, raw string) {
	path = "/" + r.PathValue("path")
	if _, after, ok := strings.Cut(r.URL.EscapedPath(), "/proxy/"); ok && "/"+after != path {
		raw = "/" + after
	}
	return path, raw
}
