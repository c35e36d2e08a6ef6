package plan_test

import (
	"errors"

	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// inSync returns a hive named a with rbee 1.0 and worker llm 2.0, and the desired state
// that it matches.
func inSync() (plan.HiveState, plan.Desired) {
	h := config.Hive{
		Alias: "a", Hostname: "a.example", HivePort: 8600, AutoStart: true, Labels: []string{"x"},
		Workers: []config.Worker{{Type: "llm", Version: version.Latest}},
	}
	settings := h.Settings()
	s := &wire.State{
		Schema: wire.Schema, Platform: diffPlatform, Settings: &settings,
		Rbee:    &wire.BinaryRecord{Version: "1.0", SHA256: "aa"},
		Daemon:  wire.Daemon{Running: true, SHA256: "aa"},
		Workers: []wire.Worker{{Type: "llm", Version: "2.0", Requested: version.Latest, SHA256: "bb"}},
	}
	llm := plan.DesiredWorker{
		Version: "2.0", SHA256: "bb", Steps: []wire.InstallStep{{Kind: wire.StepFile, Artifact: &wire.Artifact{URL: "https://h/x", SHA256: "bb", Size: 70}}},
	}
	return plan.HiveState{Hive: h, State: s}, plan.Desired{
		Version:  "1.0",
		Binaries: map[string]plan.DesiredBinary{"linux/amd64": {Version: "1.0", SHA256: "aa", Size: 100}},
		Workers: map[plan.WorkerKey]plan.DesiredWorker{
			{Hive: "a", Type: "llm"}:  llm,
			{Hive: "a", Type: "none"}: {Err: errors.New("worker none cannot be installed")},
			{Hive: "a", Type: "echo"}: {
				Version: "1.0", SHA256: "aa", Steps: []wire.InstallStep{{Kind: wire.StepBuiltin, Builtin: "echo"}},
			},
		},
	}
}

type (
	hiveState = plan.HiveState
	want      = plan.Desired
	planOpts  = plan.Options
)

var llmKey = plan.WorkerKey{Hive: "a", Type: "llm"}

func setNeeds(w *want, n catalog.Needs) {
	llm := w.Workers[llmKey]
	llm.Needs = n
	w.Workers[llmKey] = llm
}

// setArchive makes llm an archive whose program is entry.
func setArchive(w *want, entry string) {
	llm := w.Workers[llmKey]
	llm.Steps = []wire.InstallStep{{Kind: wire.StepArchive, Format: wire.FormatTarGz, Artifact: &wire.Artifact{URL: "https://h/x", SHA256: "cc", Size: 70}}}
	llm.Entry, llm.SHA256 = entry, wire.Digest(llm.Steps, entry)
	w.Workers[llmKey] = llm
}

func setBinary(w *want, b plan.DesiredBinary) { w.Binaries["linux/amd64"] = b }
