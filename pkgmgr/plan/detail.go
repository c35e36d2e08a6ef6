package plan

import (
	"cmp"

	"github.com/rbee-keeper/rbee/operations"
)

// Detail returns the state of the hive in the form that reports contain.
func (s HiveState) Detail() operations.HiveDetail {
	d := operations.HiveDetail{Alias: s.Hive.Alias, Error: s.Err, Workers: []operations.WorkerDetail{}}
	st := s.State
	if st == nil {
		return d
	}
	d.Installed, d.Version = st.Rbee != nil, InstalledVersion(st)
	d.OS, d.Arch, d.Hostname, d.Home, d.DiskFree = st.OS, st.Arch, st.Hostname, st.Home, st.DiskFree
	if d.Libc = st.Libc; st.LibcVersion != "" {
		d.Libc += " " + st.LibcVersion
	}
	if st.Rbee != nil {
		d.Daemon = st.Daemon.Detail()
	}
	for _, w := range st.Workers {
		problem := w.Corrupt
		if w.Unmanaged {
			problem = cmp.Or(problem, "not installed by rbee")
		}
		d.Workers = append(d.Workers, operations.WorkerDetail{
			Type: w.Type, Version: w.Version, Bytes: w.Bytes, InstalledAt: w.InstalledAt, Problem: problem,
		})
	}
	return d
}
