package pkgmgr_test

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
)

// TestApplyErrors applies plans that need a build or a file that the fleet does not have.
// It checks the reason and the subject of the errors: the hive or the worker of the step.
func TestApplyErrors(t *testing.T) {
	t.Parallel()
	local, _ := recipes(t, map[string]string{
		"engine.bin": "#!/bin/sh\n", "engine.yaml": "type: engine\nsources:\n- {version: \"1.0\", file: ./engine.bin}\n",
	})
	hive, engine := operations.SubjectHive.WithName("gpu-00"), operations.SubjectWorker.WithName("engine")
	for _, tt := range []struct {
		name    string
		change  func(*pkgmgr.Options)
		edit    func(*plan.Plan)
		reason  operations.Reason
		subject operations.Subject
	}{
		{"no builds", func(o *pkgmgr.Options) { o.Binaries = nil }, nil, operations.ReasonNoBinary, hive},
		{"different build", nil, func(p *plan.Plan) { p.Steps[0].Digest = strings.Repeat("0", 64) }, operations.ReasonBuildMismatch, hive},
		{"missing file", func(o *pkgmgr.Options) { o.Catalog = nil }, nil, operations.ReasonNotFound, engine},
	} {
		c, machines := echoFleet(1)
		c.Hives[0] = echoHive("gpu-00", "engine")
		f := openFleet(t, c, machines, func(o *pkgmgr.Options) { o.Catalog = local })
		f.Read(t.Context(), pkgmgr.ReadOptions{})
		original := roundTrip(f.Plan(t.Context(), plan.Options{Fetch: true}))
		if tt.edit != nil {
			tt.edit(original)
		}
		var failed []*operations.Error
		other := openFleet(t, c, machines, func(o *pkgmgr.Options) {
			o.Catalog = local
			if tt.change != nil {
				tt.change(o)
			}
			o.Events = func(e operations.Event) {
				if e.StepStatus == operations.StepFailed {
					failed = append(failed, e.Error)
				}
			}
		})
		other.Read(t.Context(), pkgmgr.ReadOptions{})
		r := other.Apply(t.Context(), original, pkgmgr.ApplyOptions{})[0]
		if r.Status != operations.HiveFailed || len(r.FailedSteps) == 0 {
			t.Errorf("%s: Apply() = %+v, want a failed step", tt.name, r)
			continue
		}
		for i, e := range append(failed, r.FailedSteps[0].Error) {
			if e.Reason != tt.reason || e.Subject != tt.subject || e.Hive != "gpu-00" {
				t.Errorf("%s: error %d is %q with reason %q and subject %+v, want %q and %+v", tt.name, i, e.Message, e.Reason, e.Subject, tt.reason, tt.subject)
			}
		}
	}
}
