package workers

import "github.com/rbee-keeper/rbee/rbee/internal/hive/proc"

// ProcessOwners returns the ID of the worker to which each process belongs, by PID, for
// programs without a [Manager]. It only reads the records in dir, may be called while a hive
// daemon runs, and skips records that it cannot read. It does not search environments, so it
// misses processes that left their group before the daemon recorded them. The error means
// that the records or the processes cannot be listed.
func ProcessOwners(dir string) (map[int]string, error) {
	records, err := listRecords(dir, nil)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	running, err := proc.List()
	if err != nil {
		return nil, err
	}
	return findOwners(records, running), nil
}

// findOwners returns the worker IDs of the running processes, by PID: of the recorded
// processes, of the processes in the group of a worker's leader, and of the descendants of
// both.
func findOwners(records []*record, running []proc.Process) map[int]string {
	recorded := map[proc.ID]*record{}
	for _, r := range records {
		for _, id := range append([]proc.ID{r.Process}, r.Members...) {
			recorded[id] = r
		}
	}
	processes, groups := map[int]proc.Process{}, map[int]string{}
	for _, p := range running {
		processes[p.PID] = p
		if r := recorded[p.ID]; r != nil && p.Group > 1 && p.Group == r.Process.PID {
			groups[p.Group] = r.ID // the system does not reuse the group ID while a member runs
		}
	}
	ownerOf := func(p proc.Process) string {
		if r := recorded[p.ID]; r != nil {
			return r.ID
		}
		return groups[p.Group]
	}
	owners := map[int]string{}
	for _, p := range running {
		ancestor := p
		for range running { // bounded: parents that changed during the listing may form a cycle
			parent, ok := processes[ancestor.Parent]
			if ownerOf(ancestor) != "" || !ok {
				break
			}
			ancestor = parent
		}
		if id := ownerOf(ancestor); id != "" {
			owners[p.PID] = id
		}
	}
	return owners
}
