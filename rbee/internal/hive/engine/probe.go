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

// Host is where workers listen.
const Host = "127.0.0.1"

// probeClient asks workers. They are on loopback, where no proxy is.
var probeClient = &http.Client{
	Timeout:       5 * time.Second,
	Transport:     &http.Transport{DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// Probe asks a worker once whether it serves.
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

// prepareClient waits for an answer for as long as it takes: a worker that is
// loading is given up for its silence elsewhere.
var prepareClient = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// Prepare asks a worker what its recipe wants it asked before it is ready.
func Prepare(ctx context.Context, port int, requests []wire.HTTPRequest) error {
	for _, r := range requests {
		address := "http://" + net.JoinHostPort(Host, strconv.Itoa(port)) + r.Path
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(r.Body))
		if err != nil {
			return fmt.Errorf("preparing it: %w", err)
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := prepareClient.Do(req)
		if err != nil {
			return fmt.Errorf("preparing it: %s: %w", r.Path, err)
		}
		answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		_ = resp.Body.Close()
		switch {
		case err != nil:
			return fmt.Errorf("preparing it: %s: %w", r.Path, err)
		case resp.StatusCode/100 != 2:
			return fmt.Errorf("preparing it: %s answers %s: %s", r.Path, resp.Status, strings.TrimSpace(string(answer[:min(len(answer), 500)])))
		}
	}
	return nil
}

// PortTaken reports whether a port of [Host] cannot be listened on.
func PortTaken(ctx context.Context, port int) bool {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(Host, strconv.Itoa(port)))
	if err != nil {
		return true
	}
	_ = ln.Close()
	return false
}
