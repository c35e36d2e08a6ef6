package engine

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Host is the address on which workers listen.
const Host = "127.0.0.1"

// probeClient sends probes to workers. It uses no proxy, because workers listen on
// loopback.
var probeClient = &http.Client{
	Timeout:       5 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Probe reports whether a worker is ready. It sends one request to the ready path of
// the recipe, or connects to the port if the recipe has no ready path.
func Probe(ctx context.Context, port int, l wire.Launch) bool {
	address := net.JoinHostPort(Host, strconv.Itoa(port))
	if l.ReadyPath == "" {
		conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "tcp", address)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+l.ReadyPath, http.NoBody)
	if err != nil {
		return false
	}
	resp, err := probeClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == l.ReadyStatus || l.ReadyStatus == 0 && resp.StatusCode == http.StatusOK
}

// prepareClient sends prepare requests. It has no timeout: package workers stops a
// worker that makes no progress while it loads.
var prepareClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Prepare sends the prepare requests of a recipe to a worker, in order.
func Prepare(ctx context.Context, port int, requests []wire.HTTPRequest) error {
	for _, r := range requests {
		address := "http://" + net.JoinHostPort(Host, strconv.Itoa(port)) + r.Path
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(r.Body))
		if err != nil {
			return fmt.Errorf("cannot prepare the worker: %w", err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := prepareClient.Do(req)
		if err != nil {
			return fmt.Errorf("cannot prepare the worker: %s: %w", r.Path, err)
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return fmt.Errorf("cannot prepare the worker: %s: %w", r.Path, err)
		case resp.StatusCode/100 != 2:
			return fmt.Errorf("cannot prepare the worker: %s: status %s: %s", r.Path, resp.Status, strings.TrimSpace(string(body[:min(len(body), 500)])))
		}
	}
	return nil
}

// PortInUse reports whether listening on a port of [Host] fails.
func PortInUse(ctx context.Context, port int) bool {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(Host, strconv.Itoa(port)))
	if err != nil {
		return true
	}
	_ = ln.Close()
	return false
}
