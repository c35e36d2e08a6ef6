package workers

import "github.com/rbee-keeper/rbee/rbee/internal/hive/proc"

// Whose names the worker of each process that belongs to one, by process id, for
// whoever has no [Manager]: from the records in dir alone, with or without a hive
// that runs. It changes nothing; a record that cannot be read is passed over. It
// does not look for marks, so a process that left its group before the hive noticed
// it is nobody's. The error is why the records or the processes cannot be listed.
func Whose(dir string) (map[int]string, error) {
	records, err := listRecords(dir, nil)
	if err != nil || len(records) == 0 {
		return nil, err
	}
	running, err := proc.List()
	if err != nil {
		return nil, err
	}
	return whose(records, running), nil
}

// whose finds the workers of processes: of the ones that records name, of what is in
// the group of a worker's leader, and of the descendants of both.
func whose(records []*record, running []proc.Process) map[int]string {
	named := map[proc.ID]*record{}
	for _, r := range records {
		for _, id := range append([]proc.ID{r.Process}, r.Members...) {
			named[id] = r
		}
	}
	processes, groups := map[int]proc.Process{}, map[int]string{}
	for _, p := range running {
		processes[p.PID] = p
		if r := named[p.ID]; r != nil && p.Group > 1 && p.Group == r.Process.PID {
			groups[p.Group] = r.ID // the number is the worker's as long as one of it is there
		}
	}
	own := func(p proc.Process) string {
		if r := named[p.ID]; r != nil {
			return r.ID
		}
		return groups[p.Group]
	}
	owners := map[int]string{}
	for _, p := range running {
		above := p
		for range running { // processes came and went while they were listed: there might be a circle
			parent, there := processes[above.Parent]
			if own(above) != "" || !there {
				break
			}
			above = parent
		}
		if id := own(above); id != "" {
			owners[p.PID] = id
		}
	}
	return owners
}
