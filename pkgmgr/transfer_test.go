package pkgmgr_test

import (
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// TestPlanSeparatesDownloads checks that DownloadBytes counts only the artifacts that the
// hive itself downloads.
func TestPlanSeparatesDownloads(t *testing.T) {
	t.Parallel()
	for name, push := range map[string]bool{"downloaded by the hive": false, "sent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newLockFleet(t)
			f.addRelease("1.0")
			r := f.sync(plan.Options{}, func(o *pkgmgr.Options) { o.Push = push })
			installs := 0
			for _, s := range r.Plan.Steps {
				want := int64(0)
				if s.Worker == "engine" && s.Action == operations.ActionInstallWorker {
					installs++
					if s.Bytes == 0 {
						t.Errorf("%s: Bytes = 0, want the size of the engine", s.Hive)
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
				t.Errorf("sync has plan %+v, want a step that installs the engine", r.Plan)
			}
		})
	}
}
