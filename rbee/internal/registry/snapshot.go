package registry

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/sse"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// Snapshot contains the last report of a hive and a client of its daemon, or an error.
type Snapshot struct {
	Hive   config.Hive
	Link   operations.Link
	Client *Client                  // nil if Err is not nil
	Report *operations.HiveSnapshot // nil if Err is not nil
	Err    error
}

// fetchSnapshot connects to a hive and requests its snapshot.
func fetchSnapshot(ctx context.Context, c Connector, h config.Hive) Snapshot {
	d, err := c.Client(ctx, h)
	if err != nil {
		return Snapshot{Hive: h, Link: operations.LinkOffline, Err: err}
	}
	s, err := d.Snapshot(ctx)
	if err != nil {
		d.Close()
		return Snapshot{Hive: h, Link: operations.LinkOffline, Err: err}
	}
	return Snapshot{Hive: h, Link: operations.LinkOnline, Client: d, Report: s}
}

// currentSnapshot returns the last snapshot of the hive, or an error if it is offline.
func (c *Connection) currentSnapshot() Snapshot {
	if e := c.OfflineError(); e != nil {
		return Snapshot{Hive: c.hive, Link: operations.LinkOffline, Err: e}
	}
	view := c.View(time.Now())
	if view.Snapshot != nil {
		if d := c.Client(); d != nil {
			return Snapshot{Hive: c.hive, Link: view.Link, Client: d, Report: view.Snapshot}
		}
	}
	return Snapshot{Hive: c.hive, Link: operations.LinkOffline, Err: &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonLost, Subject: operations.SubjectHive.WithName(c.hive.Alias), Hive: c.hive.Alias, Message: "the hive disconnected"}}
}

// Snapshot requests a snapshot of the hive.
func (d *Client) Snapshot(ctx context.Context) (*operations.HiveSnapshot, error) {
	limit := cmp.Or(d.timeout, readyTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no response within %s", limit))
	defer cancel()
	return d.WaitSnapshot(ctx, func(*operations.HiveSnapshot) bool { return true })
}

// WaitSnapshot returns the first snapshot of the hive that satisfies cond. It waits as
// long as the hive keeps sending data.
func (d *Client) WaitSnapshot(ctx context.Context, cond func(*operations.HiveSnapshot) bool) (*operations.HiveSnapshot, error) {
	var last *operations.HiveSnapshot
	if err := d.watchSnapshots(ctx, "cannot read the state of the hive", func(s *operations.HiveSnapshot) bool {
		last = s
		return s != nil && cond(s)
	}); err != nil {
		return nil, err
	}
	return last, nil
}

// watchSnapshots calls handle with each snapshot that the hive sends, and with nil for
// each keep-alive comment, until handle returns true or the hive is silent for
// [offlineAfter]. Errors start with message.
func (d *Client) watchSnapshots(ctx context.Context, message string, handle func(*operations.HiveSnapshot) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // ends the stream
	silent := time.AfterFunc(offlineAfter, func() { cancel(fmt.Errorf("no data for %s", offlineAfter)) })
	defer silent.Stop()
	fail := func(err error) error {
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, context.Canceled):
			return OperationError(cause)
		case cause != nil:
			err = cause
		case errors.Is(err, io.EOF):
			err = errors.New("the hive closed the stream")
		}
		return d.withHive(&operations.Error{Code: operations.CodeUnreachable, Reason: watchFailureReason(err), Message: message + ": " + err.Error(), Err: err})
	}
	resp, err := d.openWatch(ctx)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	events := sse.NewReader(resp.Body, maxSnapshotSize)
	for {
		e, err := events.Next()
		if err != nil {
			return fail(err)
		}
		silent.Reset(offlineAfter)
		s, err := parseSnapshot(e, d.Hive.Alias)
		if err != nil || handle(s) {
			return err
		}
	}
}

// errDaemonVersion is the error for a daemon of another rbee version, which cannot send
// snapshots.
var errDaemonVersion = &operations.Error{
	Code: operations.CodeUnreachable, Reason: operations.ReasonVersionMismatch, Message: "the daemon runs another version of rbee: run `rbee sync` to update it",
}

// watchFailureReason returns the reason for an error of watchSnapshots.
func watchFailureReason(err error) operations.Reason {
	if errors.Is(err, errDaemonVersion) {
		return operations.ReasonVersionMismatch
	}
	return operations.ReasonDaemon
}

// openWatch opens the stream of snapshots.
func (d *Client) openWatch(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.API.URL+operations.WatchPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(d.API.Token))
	resp, err := d.API.HTTP.Do(req)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		_ = resp.Body.Close()
		return nil, errDaemonVersion
	case resp.StatusCode != http.StatusOK:
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the hive returned %s", resp.Status)
	}
	return resp, nil
}

// parseSnapshot parses an event of the stream. It returns nil for a comment.
func parseSnapshot(e sse.Event, alias string) (*operations.HiveSnapshot, error) {
	if e.Comment {
		return nil, nil
	}
	s := new(operations.HiveSnapshot)
	if err := json.Unmarshal(e.Data, s); err != nil {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectHive.WithName(alias), Hive: alias, Message: "cannot read the hive's snapshot: " + err.Error(), Err: err}
	}
	s.Machine.Alias = alias
	for i := range s.Workers {
		s.Workers[i].Hive = alias
	}
	for i := range s.Models {
		s.Models[i].Hive = alias
	}
	return s, nil
}
