package scheduler

import (
	"sort"
	"time"

	"github.com/rbee-keeper/rbee/operations"
)

// MinIdle is the minimum idle time of a worker that may be evicted to free memory.
const MinIdle = 5 * time.Second

// Victim is a worker that may be evicted.
type Victim struct {
	Hive   int // index into the hives passed to [Victims]
	Worker operations.WorkerProcess
	Cost   float64 // see [ReloadCost]
}

// Victims returns the workers that may be evicted to free device memory, cheapest first:
//
//  1. Only workers that were started on demand and are ready.
//  2. Only workers that use a device.
//  3. Only workers that have been idle for [MinIdle] or longer.
//  4. The worker with the lowest [ReloadCost] comes first.
//
// idle returns how long a worker has been idle.
func Victims(hives []Hive, idle func(operations.WorkerProcess) time.Duration) (list []Victim) {
	for i := range hives {
		if hives[i].Report == nil {
			continue
		}
		for _, w := range hives[i].Report.Workers {
			if !Evictable(w) || len(w.Devices) == 0 { // (1), (2)
				continue
			}
			if d := idle(w); d >= MinIdle { // (3)
				list = append(list, Victim{i, w, ReloadCost(w, d)})
			}
		}
	}
	sort.Slice(list, func(i, j int) bool { return list[i].Cost < list[j].Cost }) // (4)
	return list
}

// Evictable reports whether a worker may be evicted once it is idle.
func Evictable(w operations.WorkerProcess) bool {
	return w.OnDemand && w.State == operations.WorkerReady
}

// ReloadCost estimates the cost of evicting a worker, in seconds: the time that it took
// to load, divided by the idle time, because an idle worker is less likely to be needed.
func ReloadCost(w operations.WorkerProcess, idle time.Duration) float64 {
	return w.ReadyAt.Sub(w.StartedAt).Seconds() / max(idle.Seconds(), 1)
}
