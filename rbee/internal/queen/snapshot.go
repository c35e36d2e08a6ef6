package queen

import (
	"context"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// driftInterval is the time between two checks for drift.
const driftInterval = time.Minute

// snapshot returns the current state of the fleet.
func (q *queen) snapshot() operations.FleetSnapshot {
	s := operations.FleetSnapshot{
		Time: time.Now().UTC(), Version: q.version, Since: q.pool.Since(), Config: q.configPath, Hives: []operations.HiveView{},
		ConfigProblem: q.pool.Problem(), Traffic: q.traffic.Report(q.loader.Waiting()),
	}
	for _, conn := range q.pool.Connections() {
		s.Hives = append(s.Hives, conn.View(s.Time))
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	s.Drift, s.DriftAt = append([]operations.Drift{}, q.drift...), q.driftAt
	return s
}

// updateDrift checks for drift every driftInterval until ctx is done. It uses the connections
// of the pool.
func (q *queen) updateDrift(ctx context.Context) {
	tick := time.NewTicker(driftInterval)
	defer tick.Stop()
	q.pool.WaitReady(ctx)
	for {
		report, err := q.controller.Run(ctx, operations.PackageStatus{Scope: operations.Scope{ConfigPath: q.config}}, nil)
		if ctx.Err() != nil {
			return
		}
		if r, ok := report.(*operations.StatusReport); ok && err == nil {
			q.mu.Lock()
			q.drift, q.driftAt = r.Drift, time.Now().UTC().Truncate(time.Second)
			q.mu.Unlock()
			q.pool.Notify()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
