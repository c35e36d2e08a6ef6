package queen

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sourcegraph/conc/pool"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
)

// view is what one hive says of itself, with a way to it, or why there is none.
type view struct {
	hive     config.Hive
	door     *door                    // nil if err is set
	snapshot *operations.HiveSnapshot // likewise
	err      error
}

// views asks the hives of a target at once, or takes what is held of them. What it
// gives is closed with closeViews.
func (q *Queen) views(ctx context.Context, t operations.Target) ([]view, error) {
	hives, err := q.hives(t)
	if err != nil {
		return nil, err
	}
	list := make([]view, len(hives))
	p := pool.New().WithMaxGoroutines(maxAsked)
	for i, h := range hives {
		list[i].hive = h
		p.Go(func() { list[i].door, list[i].snapshot, list[i].err = q.look(ctx, h) })
	}
	p.Wait()
	return list, nil
}

func closeViews(list []view) {
	for _, v := range list {
		if v.door != nil {
			v.door.close()
		}
	}
}

// refresh asks those anew whose words were held: they may be half a second old, and
// somebody may have done something since. One that does not answer in time counts as
// away.
func (q *Queen) refresh(ctx context.Context, list []view) {
	if q.registry == nil {
		return // they are fresh
	}
	p := pool.New().WithMaxGoroutines(maxAsked)
	for i := range list {
		v := &list[i]
		if v.door != nil && v.door.shared {
			p.Go(func() { v.snapshot, v.err = v.door.snapshot(ctx) })
		}
	}
	p.Wait()
}

// look is what a hive says of itself now, or what it said last.
func (q *Queen) look(ctx context.Context, h config.Hive) (*door, *operations.HiveSnapshot, error) {
	if q.registry != nil {
		if l := q.registry.find(h); l != nil && !l.unknown() {
			return l.look()
		}
	}
	d, err := q.knock(ctx, h)
	if err != nil {
		return nil, nil, err
	}
	s, err := d.snapshot(ctx)
	if err != nil {
		d.close()
		return nil, nil, err
	}
	return d, s, nil
}

// look is what the hive said last, if it is there.
func (l *link) look() (*door, *operations.HiveSnapshot, error) {
	if e := l.trouble(); e != nil {
		return nil, nil, e
	}
	l.mu.Lock()
	s := l.snapshot
	l.mu.Unlock()
	if s != nil {
		if d := l.lendDoor(); d != nil {
			return d, s, nil
		}
	}
	return nil, nil, &operations.Error{Code: operations.CodeUnreachable, Hive: l.hive.Alias, Message: "the hive went away just now"}
}

// snapshot asks the hive once.
func (d *door) snapshot(ctx context.Context) (*operations.HiveSnapshot, error) {
	limit := cmp.Or(d.patience, settling)
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
	defer cancel()
	return d.await(ctx, func(*operations.HiveSnapshot) bool { return true })
}

// await listens to the hive until what it says is as wanted, for as long as it says
// something.
func (d *door) await(ctx context.Context, wanted func(*operations.HiveSnapshot) bool) (*operations.HiveSnapshot, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil) // the stream would go on
	silent := time.AfterFunc(offlineAfter, func() { cancel(fmt.Errorf("not a word for %s", offlineAfter)) })
	defer silent.Stop()
	fail := func(err error) (*operations.HiveSnapshot, error) {
		switch cause := context.Cause(ctx); {
		case errors.Is(cause, context.Canceled):
			return nil, asError(cause)
		case cause != nil:
			err = cause
		}
		return nil, d.explain(&operations.Error{Code: operations.CodeUnreachable, Reason: reasonDaemon, Message: "asking the hive: " + err.Error(), Err: err})
	}
	resp, err := d.watch(ctx)
	if err != nil {
		return fail(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReaderSize(resp.Body, watchBuffered)
	for {
		line, err := readLine(lines, maxSnapshot)
		if err != nil {
			return fail(err)
		}
		silent.Reset(offlineAfter)
		s, err := readSnapshot(line, d.hive.Alias)
		if err != nil || s != nil && wanted(s) {
			return s, err
		}
	}
}

// errOldHive is a daemon of an rbee that does not tell of itself.
var errOldHive = errors.New("the daemon runs another rbee; `rbee sync` brings it this one")

// watch begins to listen to the hive.
func (d *door) watch(ctx context.Context) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, d.client.URL+operations.WatchPath, http.NoBody)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+string(d.client.Token))
	resp, err := d.client.HTTP.Do(req)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusNotFound:
		_ = resp.Body.Close()
		return nil, errOldHive
	case resp.StatusCode != http.StatusOK:
		_ = resp.Body.Close()
		return nil, fmt.Errorf("it answers %s", resp.Status)
	}
	return resp, nil
}

// readSnapshot reads a line of the stream; nil for one that says nothing.
func readSnapshot(line []byte, alias string) (*operations.HiveSnapshot, error) {
	data, ok := bytes.CutPrefix(line, []byte("data: "))
	if !ok {
		return nil, nil
	}
	s := new(operations.HiveSnapshot)
	if err := json.Unmarshal(data, s); err != nil {
		return nil, &operations.Error{Code: operations.CodeFailed, Hive: alias, Message: "what the hive says cannot be read: " + err.Error(), Err: err}
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
