package pkgmgr_test

import (
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// The plan tells apart what this machine sends and what a hive downloads itself.
func TestPlanSeparatesDownloads(t *testing.T) {
	t.Parallel()
	for name, push := range map[string]bool{"downloaded by the hive": false, "sent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newLockFleet(t)
			f.release("1.0")
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push = push })
			installs := 0
			for _, s := range r.Plan.Steps {
				want := int64(0)
				if s.Worker == "engine" && s.Action == operations.ActionInstallWorker {
					installs++
					if s.Bytes == 0 {
						t.Errorf("%s: Bytes = 0", s.Hive)
					}
					if !push {
						want = s.Bytes
					}
				}
				if s.DownloadBytes != want {
					t.Errorf("%s %s: DownloadBytes = %d, want %d of %d", s.Hive, s.Action, s.DownloadBytes, want, s.Bytes)
				}
			}
			if installs == 0 {
				t.Errorf("no engine is installed: %+v", r.Plan)
			}
		})
	}
}
