package hive

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
	"github.com/rbee-keeper/rbee/rbee/internal/hive/workers"
)

// proxyPath is where workers are asked through the hive:
// /v1/workers/{id}/proxy/{path of the engine}. A worker that drains takes no new
// requests, and one that ends waits for those under way: for that the hive must
// know of them.
const proxyPath = "/v1/workers/{id}/proxy/{path...}"

// hiveSays marks an answer as the hive's own, and not the engine's.
const hiveSays = "X-Rbee-Error"

// proxy passes requests on to workers, byte for byte, streams as they come.
func proxy(m *workers.Manager, log *slog.Logger) http.Handler {
	transport := &http.Transport{
		DialContext:        (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		DisableCompression: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.PathValue("id")
		port, end, err := m.Begin(id)
		if err != nil {
			w.Header().Set(hiveSays, string(operations.CodeOf(err)))
			status := http.StatusServiceUnavailable
			if operations.CodeOf(err) == operations.CodeNotFound {
				status = http.StatusNotFound
			}
			refuse(w, status, err)
			return
		}
		defer end()
		log.Debug("request", "worker", id, "request", r.Header.Get("X-Request-Id"), "path", r.PathValue("path"))
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
			ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
				if r.Context().Err() != nil {
					return // nobody is there to hear of it
				}
				log.Warn("a worker did not answer", "worker", id, "request", r.Header.Get("X-Request-Id"), "error", err)
				w.Header().Set(hiveSays, string(operations.CodeFailed))
				refuse(w, http.StatusBadGateway, &operations.Error{
					Code: operations.CodeFailed, Message: "worker " + id + " did not answer: " + err.Error(), Err: err,
				})
			},
		}).ServeHTTP(w, r)
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
