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

// Snapshot is what one hive reports, with a client of its daemon, or why there is none.
type Snapshot struct {
	Hive   config.Hive
	Link   operations.Link
	Client *Client                  // nil if Err is set
	Report *operations.HiveSnapshot // likewise
	Err    error
}

// fetchSnapshot is what a hive says of itself now.
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

// currentSnapshot is what the hive said last, if it is there.
func (l *Connection) currentSnapshot() Snapshot {
	if e := l.OfflineError(); e != nil {
		return Snapshot{Hive: l.hive, Link: operations.LinkOffline, Err: e}
	}
	v := l.View(time.Now())
	if v.Snapshot != nil {
		if d := l.Client(); d != nil {
			return Snapshot{Hive: l.hive, Link: v.Link, Client: d, Report: v.Snapshot}
		}
	}
	return Snapshot{Hive: l.hive, Link: operations.LinkOffline, Err: &operations.Error{Code: operations.CodeUnreachable, Reason: operations.ReasonLost, Subject: operations.SubjectHive.Named(l.hive.Alias), Hive: l.hive.Alias, Message: "the hive went away just now"}}
}

// Snapshot asks the hive once.
func (d *Client) Snapshot(ctx context.Context) (*operations.HiveSnapshot, error) {
	limit := cmp.Or(d.timeout, settleTimeout)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	return d.WaitSnapshot(ctx, func(*operations.HiveSnapshot) bool { return true })
}

// WaitSnapshot listens to the hive until what it says is as wanted, for as long as it says
// something.
func (d *Client) WaitSnapshot(ctx context.Context, wanted func(*operations.HiveSnapshot) bool) (*operations.HiveSnapshot, error) {
	var last *operations.HiveSnapshot
	if err := d.watchSnapshots(ctx, "asking the hive", func(s *operations.HiveSnapshot) bool {
		last = s
		return s != nil && wanted(s)
	}); err != nil {
		return nil, err
	}
	return last, nil
}

// applyConfig calls take with each snapshot that the hive sends, and with nil for each sign
// of life in between, until take returns true or the hive is silent for [offlineAfter].
// doing names in errors what the caller does.
func (d *Client) watchSnapshots(ctx context.Context, doing string, take func(*operations.HiveSnapshot) bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // the stream would go on
	silent := time.AfterFunc(offlineAfter, func() { cancel(fmt.Errorf("not a word for %s", offlineAfter)) })
	defer silent.Stop()
	fail := func(err error) error {
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, context.Canceled):
			return OperationError(cause)
		case cause != nil:
			err = cause
		case errors.Is(err, io.EOF):
			err = errors.New("it hung up")
		}
		return d.withHive(&operations.Error{Code: operations.CodeUnreachable, Reason: watchFailureReason(err), Message: doing + ": " + err.Error(), Err: err})
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
		if err != nil || take(s) {
			return err
		}
	}
}

// errDaemonVersion is a daemon of an rbee that does not tell of itself.
var errDaemonVersion = &operations.Error{
	Code: operations.CodeUnreachable, Reason: operations.ReasonOtherVersion, Message: "the daemon runs another rbee; `rbee sync` brings it this one",
}

// watchFailureReason returns the reason of a daemon that sends nothing of itself.
func watchFailureReason(err error) operations.Reason {
	if errors.Is(err, errDaemonVersion) {
		return operations.ReasonOtherVersion
	}
	return operations.ReasonDaemon
}

// openWatch begins to listen to the hive.
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
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	return resp, nil
}

// parseSnapshot reads an event of the stream; nil for one that says nothing.
func parseSnapshot(e sse.Event, alias string) (*operations.HiveSnapshot, error) {
	if e.Comment {
		return nil, nil
	}
	s := new(operations.HiveSnapshot)
	if err := json.Unmarshal(e.Data, s); err != nil {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectHive.Named(alias), Hive: alias, Message: "what the hive says cannot be read: " + err.Error(), Err: err}
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
