package pkgmgr

// MachinesOfTable gives the machines of the decision tables to tests of another
// package, by name.
func MachinesOfTable() map[string]*State {
	all := map[string]*State{}
	for _, m := range testMachines() {
		all[m.name] = m.state()
	}
	return all
}
