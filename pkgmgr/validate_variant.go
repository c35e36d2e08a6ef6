package pkgmgr

import "github.com/rbee-keeper/rbee/pkgmgr/wire"

// cpuOnly returns why a machine with accelerators gets the build of a version that
// uses none of them; empty if it gets another build. version may be empty, for any.
func (r *Recipe) cpuOnly(version string, m Machine) string {
	if len(m.Devices) == 0 {
		return ""
	}
	choice, err := r.Choose(version, m, "")
	if err != nil || choice.Source.GPU != wire.NoGPU {
		return ""
	}
	return choice.Reason
}
