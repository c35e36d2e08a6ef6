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

// proxyPath is where workers are asked through the hive:
// /v1/workers/{id}/proxy/{path of the engine}. A worker that drains takes no new
// requests, and one that ends waits for those under way: for that the hive must
// know of them.
const proxyPath = "/v1/workers/{id}/proxy/{path...}"

// errorHeader marks an answer as the hive's own, and not the engine's.
const errorHeader = "X-Rbee-Error"

// engineIdleTimeout is how long a connection to an engine is kept for the next request. It is
// less than the shortest of what engines keep one, the 5 s of uvicorn and llama.cpp's
// server: a request that meets a connection which is just being closed fails.
const engineIdleTimeout = 3 * time.Second

// statusClientClosed stands for the status of an answer that nobody waits for any more.
const statusClientClosed = 499

// proxy passes requests on to workers, byte for byte, streams as they come. Each has a
// line in the log once it has ended, with the id that the queen and the engine know.
func proxy(m *workers.Manager, log *slog.Logger) http.Handler {
	transport := &http.Transport{
		DialContext:        (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: engineIdleTimeout,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		port, end, err := m.Begin(id)
		if err != nil {
			w.Header().Set(errorHeader, string(operations.CodeOf(err)))
			status := http.StatusServiceUnavailable
			if operations.CodeOf(err) == operations.CodeNotFound {
				status = http.StatusNotFound
			}
			httpjson.WriteError(w, status, err)
			return
		}
		defer end()
		begun, status, whole := time.Now(), statusClientClosed, false
		defer func() {
			log.Info("request", "worker", id, "request", r.Header.Get(client.RequestIDHeader), "path", r.PathValue("path"),
				"status", status, "whole", whole, "took", time.Since(begun).Round(time.Millisecond/10))
		}()
		// An answer may take as long as it takes: generating is slow. And one that
		// begins before the request was read to its end, if only by the bit that says
		// so, must not have net/http close the request's body under the transport's
		// hands, which then gives up the engine's connection.
		control := http.NewResponseController(w)
		_ = errors.Join(control.SetReadDeadline(time.Time{}), control.EnableFullDuplex())
		target := &url.URL{Scheme: "http", Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}
		(&httputil.ReverseProxy{
			Transport: transport, FlushInterval: -1,
			ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
			Rewrite: func(p *httputil.ProxyRequest) {
				p.SetURL(target)
				p.Out.URL.Path, p.Out.URL.RawPath = enginePath(r)
				p.Out.Header.Del("Authorization") // the hive's own
			},
			ModifyResponse: func(resp *http.Response) error {
				status = resp.StatusCode
				return nil
			},
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if r.Context().Err() != nil {
					return // nobody is there to hear of it
				}
				log.Warn("a worker did not answer", "worker", id, "request", r.Header.Get(client.RequestIDHeader), "error", err)
				w.Header().Set(errorHeader, string(operations.CodeFailed))
				status = http.StatusBadGateway
				httpjson.WriteError(w, status, &operations.Error{
					Code: operations.CodeFailed, Reason: operations.ReasonWorkerFailed, Subject: operations.SubjectWorker.Named(id), Message: "worker " + id + " did not answer: " + err.Error(), Err: err,
				})
			},
		}).ServeHTTP(w, r)
		whole = true // else it has panicked: the answer broke off
	})
}

// enginePath is the part of the path that is the engine's, and its escaped form
// where that says more.
func enginePath(r *http.Request) (path, raw string) {
	path = "/" + r.PathValue("path")
	if _, after, ok := strings.Cut(r.URL.EscapedPath(), "/proxy/"); ok && "/"+after != path {
		raw = "/" + after
	}
	return path, raw
}
