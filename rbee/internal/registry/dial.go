package registry

import (
	"bytes"
	"context"
	_ "embed" // the script
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/client"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// idleConnTimeout is shorter than the time after which a hive closes idle connections, so
// that no request is sent on a connection that the hive is closing.
const idleConnTimeout = 45 * time.Second

// daemonScript prints rbee's directory, the daemon's token and the daemon's record. Each
// part starts with a record separator (\036), so that the output of the shell's start-up
// files is ignored.
//
// The record is empty if the daemon's process has exited: another process may listen on
// its port, and must not receive the token. A process is the same if it has the same ID
// and, where there is a /proc (proc(5), field 22 of stat), the same start time and boot ID.
//
//go:embed daemon.sh
var daemonScript string

// Client is a client of a hive's daemon.
type Client struct {
	Hive config.Hive
	API  *client.Client

	port   int
	host   pkgmgr.Host
	shared bool // other clients use the same HTTP connections

	timeout time.Duration // for one response of the hive; 0 selects the default
}

// openClient connects to a hive and finds its daemon. Every error is an
// [*operations.Error] that names the hive.
func openClient(ctx context.Context, h config.Hive, dial func(context.Context, config.Hive) (pkgmgr.Host, error)) (*Client, error) {
	host, err := dial(ctx, h)
	if err != nil {
		return nil, UnreachableError(h.Alias, err)
	}
	d, err := findDaemon(ctx, h, host)
	if err != nil {
		_ = host.Close()
	}
	return d, err
}

// findDaemon finds the daemon of a connected hive.
func findDaemon(ctx context.Context, h config.Hive, host pkgmgr.Host) (*Client, error) {
	var out bytes.Buffer
	if err := host.Script(ctx, daemonScript, &out, nil); err != nil {
		return nil, UnreachableError(h.Alias, fmt.Errorf("cannot find the hive daemon: %w", err))
	}
	home, token, port, err := parseDaemon(out.String())
	if err != nil {
		var e *operations.Error
		if errors.As(err, &e) {
			e.Hive, e.Subject = h.Alias, operations.SubjectHive.WithName(h.Alias)
		}
		return nil, err
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			conn, err := host.Dial(ctx, "tcp", address)
			if err != nil && isForwardingProhibited(err) {
				conn, err = dialCommand(host, home+"/"+wire.Binary, port), nil
			}
			if err != nil {
				return nil, fmt.Errorf("cannot connect to port %d of the hive daemon: %w", port, err)
			}
			return conn, nil
		},
		DisableCompression: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: idleConnTimeout,
	}
	return &Client{
		Hive: h, host: host, port: port,
		API: &client.Client{URL: "http://" + address, Token: token, HTTP: &http.Client{Transport: transport}},
	}, nil
}

// Close closes the connection, or releases a shared one.
func (d *Client) Close() {
	if !d.shared {
		d.API.HTTP.CloseIdleConnections()
	}
	_ = d.host.Close() // nothing depends on the error
}

// WorkerURL returns the base URL below which the hive forwards requests to a worker.
func (d *Client) WorkerURL(id string) string {
	return d.API.URL + "/v1/workers/" + url.PathEscape(id) + "/proxy"
}

// isForwardingProhibited reports whether the SSH server does not allow port forwarding
// (AllowTcpForwarding no), as opposed to a port that does not respond.
func isForwardingProhibited(err error) bool {
	return operations.ReasonOf(err) == operations.ReasonProhibited
}

// dialCommand connects to a port of the hive through `rbee hive connect`. It needs a
// process on the hive for each connection, so it is used only if forwarding is
// prohibited.
func dialCommand(host pkgmgr.Host, exe string, port int) net.Conn {
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		defer cancel()
		// The reader sees the closed connection, so the error is not needed.
		_ = host.Run(ctx, []string{exe, "hive", "connect", strconv.Itoa(port)}, far, far, nil)
		_ = far.Close()
	}()
	return &commandConn{near, cancel}
}

// commandConn stops the command when it is closed.
type commandConn struct {
	net.Conn
	cancel context.CancelFunc
}

func (c *commandConn) Close() error {
	defer c.cancel()
	return c.Conn.Close()
}

// parseDaemon parses the output of daemonScript.
func parseDaemon(out string) (home string, token operations.Secret, port int, err error) {
	fail := func(e *operations.Error) (string, operations.Secret, int, error) { return "", "", 0, e }
	daemonError := func(message string) (string, operations.Secret, int, error) {
		return fail(&operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonDaemon, Message: message})
	}
	if strings.Contains(out, "\x1eabsent") {
		return fail(&operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Message: "rbee is not installed on the hive"})
	}
	between := func(from, to string) (string, bool) {
		_, after, found := strings.Cut(out, from)
		text, _, complete := strings.Cut(after, to)
		return strings.TrimSpace(text), found && complete
	}
	home, ok1 := between("\x1ehome ", "\n")
	secret, ok2 := between("\x1etoken ", "\n")
	text, ok3 := between("\x1erecord ", "\x1eend")
	var record struct {
		Port int `json:"port"`
	}
	switch {
	case !ok1 || !ok2 || !ok3 || home == "":
		return fail(&operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Message: "cannot parse the output of the hive's shell"})
	case text == "":
		return daemonError("the hive daemon is not running")
	case json.Unmarshal([]byte(text), &record) != nil || record.Port < 1:
		return daemonError("cannot read the hive daemon's record")
	case secret == "":
		return daemonError("the hive daemon's token is missing")
	}
	return home, operations.Secret(secret), record.Port, nil
}

// UnreachableError returns err if it is an [*operations.Error]. Otherwise it converts err to
// one with code unreachable, or canceled for [context.Canceled].
func UnreachableError(alias string, err error) error {
	var known *operations.Error
	if errors.As(err, &known) {
		return err
	}
	e := &operations.Error{
		Code: operations.CodeUnreachable, Reason: operations.ConnectionReason(err), Subject: operations.SubjectHive.WithName(alias), Hive: alias, Message: err.Error(), Err: err,
	}
	if errors.Is(err, context.Canceled) {
		e.Code, e.Reason = operations.CodeCanceled, operations.ReasonCanceled
	}
	return e
}

// Do runs an operation on the hive. Events and errors name the hive.
func (d *Client) Do(ctx context.Context, op operations.Operation, events operations.Handler) (operations.Report, error) {
	report, err := d.API.Run(ctx, op, func(e operations.Event) {
		if events == nil {
			return
		}
		e.Hive = d.Hive.Alias
		if e.Worker != nil {
			e.Worker.Hive = d.Hive.Alias
		}
		events(e)
	})
	return report, d.withHive(err)
}

// withHive adds the hive to an error, and distinguishes an unreachable daemon from an
// unreachable hive.
func (d *Client) withHive(err error) error {
	var e *operations.Error
	if !errors.As(err, &e) {
		return err
	}
	hiveErr := *e
	hiveErr.Hive = d.Hive.Alias
	if hiveErr.Subject.Kind == "" || hiveErr.Subject.Kind == operations.SubjectQueen {
		hiveErr.Subject = operations.SubjectHive.WithName(d.Hive.Alias) // the client has set only the address
	}
	if hiveErr.Code == operations.CodeUnreachable && operations.ConnectionReason(hiveErr.Err) == operations.ReasonRefused {
		hiveErr.Reason, hiveErr.Message = operations.ReasonDaemon, fmt.Sprintf("the hive daemon is not running: port %d refused the connection", d.port)
	}
	return &hiveErr
}
