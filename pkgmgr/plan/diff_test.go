package plan_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// diffCase is one hive, in sync unless edit changes it, and the expected result of Diff.
type diffCase struct {
	name string
	edit func(*plan.HiveState, *plan.Desired, *plan.Options)

	steps   []string // "action worker from>to"
	drift   []string // prefixes of "issue worker: details"
	blocked []string // prefixes of "worker: reason"
}

var diffPlatform = wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}

var diffCases = []diffCase{
	{name: "in sync", edit: func(*hiveState, *want, *planOpts) {}},
	{
		name:  "bare machine",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State = &wire.State{Platform: diffPlatform} },
		steps: []string{"install_hive  >1.0", "install_worker llm >2.0", "start_hive  >"},
		drift: []string{"missing_hive : Hive not installed", "missing_worker llm: Worker 'llm' not installed"},
	},
	{
		name: "bare machine, no auto_start",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State, s.Hive.AutoStart = &wire.State{Platform: diffPlatform}, false
		},
		steps: []string{"install_hive  >1.0", "install_worker llm >2.0"},
		drift: []string{"missing_hive", "missing_worker llm"},
	},
	{
		name: "bare machine, unsupported platform",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State, w.Binaries = &wire.State{Platform: diffPlatform}, nil
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": no rbee build for linux/amd64 is available"},
	},
	{
		name: "bare machine, rbee not available",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform}
			setBinary(w, plan.DesiredBinary{Err: errors.New("the release does not exist")})
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": the release does not exist"},
	},
	{
		name: "bare machine, home mounted noexec",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform, Noexec: "/home"}
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": /home is mounted noexec: programs in it cannot run; set RBEE_HOME to another directory"},
	},
	{
		name: "outdated, home mounted noexec",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Rbee, s.State.Broken, s.State.Noexec, o.Force = &wire.BinaryRecord{}, "permission denied", "/home", true
		},
		drift:   []string{"outdated_hive : The installed rbee does not work"},
		blocked: []string{": /home is mounted noexec"},
	},
	{
		name: "workers without rbee",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform, Workers: []wire.Worker{{Type: "llm", Unmanaged: true}}}
		},
		steps: []string{"install_hive  >1.0", "start_hive  >"},
		drift: []string{"missing_hive"},
	},
	{
		name: "older version of rbee",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Rbee = &wire.BinaryRecord{Version: "0.9", SHA256: "a9"}
		},
		steps: []string{"update_hive  0.9>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee is 0.9, want 1.0"},
	},
	{
		name:  "different build of rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Rbee.SHA256 = "a9" },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee 1.0 is a different build"},
	},
	{
		name: "different build, checksum not known",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee.SHA256, s.State.Daemon.SHA256, w.Binaries = "a9", "a9", nil
		},
	},
	{
		name: "older version, checksum not known",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee = &wire.BinaryRecord{Version: "0.9", SHA256: "aa"}
			w.Binaries = nil
		},
		drift:   []string{"outdated_hive : rbee is 0.9, want 1.0"},
		blocked: []string{": no rbee build for linux/amd64 is available"},
	},
	{
		name: "no desired version and no known binary",
		edit: func(_ *hiveState, w *want, _ *planOpts) { w.Version, w.Binaries = "", nil },
	},
	{
		name: "outdated and blocked, but usable",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee.Version, s.State.Workers = "0.9", nil
			w.Binaries = nil
		},
		steps:   []string{"install_worker llm >2.0"},
		drift:   []string{"outdated_hive", "missing_worker llm"},
		blocked: []string{": no rbee build"},
	},
	{
		name: "broken and blocked",
		edit: func(s *hiveState, w *want, o *planOpts) {
			s.State.Broken, s.State.Workers = "exec format error", []wire.Worker{{Type: "old"}}
			w.Binaries, o.RemoveExtra = nil, true
		},
		drift:   []string{"outdated_hive : The installed rbee does not work: exec format error", "missing_worker llm", "extra_worker old"},
		blocked: []string{": no rbee build"},
	},
	{
		name:  "broken rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Broken = "exec format error" },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : The installed rbee does not work"},
	},
	{
		name:  "incompatible protocol version",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Schema = wire.MinReader - 1 },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : The installed rbee 1.0 uses an incompatible protocol version"},
	},
	{
		name: "newer rbee is kept",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Rbee, s.State.Daemon.SHA256 = &wire.BinaryRecord{Version: "1.1", SHA256: "zz"}, "zz"
		},
		drift: []string{"newer_hive : rbee 1.1 on the hive is newer than this one, 1.0"},
	},
	{
		name: "newer rbee is kept and its workers are updated, with force",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Schema, s.State.MinReader, o.Force = wire.Schema+1, wire.Schema, true
			s.State.Daemon.SHA256 = ""
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"newer_hive : rbee 1.0 on the hive is newer than this one: its protocol has schema 3"},
	},
	{
		name: "newer rbee with an incompatible protocol",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Schema, s.State.MinReader = wire.Schema+1, wire.Schema+1
		},
		drift:   []string{"newer_hive : rbee 1.0 on the hive is newer than this one: its protocol has schema 3"},
		blocked: []string{": rbee 1.0 on the hive is newer than this one: its protocol has schema 3, this one has 2"},
	},
	{
		name: "newer rbee is replaced with downgrade",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Rbee, o.Downgrade = &wire.BinaryRecord{Version: "1.1", SHA256: "zz"}, true
		},
		steps: []string{"update_hive  1.1>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee is 1.1, want 1.0"},
	},
	{
		name: "changed settings of a hive with a newer rbee",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Rbee.Version, s.State.Rbee.SHA256, s.State.Daemon.SHA256, s.State.Settings.Labels = "1.1", "zz", "zz", nil
		},
		steps: []string{"configure_hive  >"},
		drift: []string{"outdated_hive : labels are [], want [x]", "newer_hive : rbee 1.1"},
	},
	{
		name:  "no settings",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Settings = nil },
		steps: []string{"configure_hive  >", "start_hive  >"},
		drift: []string{"outdated_hive : The hive has no stored settings"},
	},
	{
		name:  "alias and labels changed",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Settings.Alias, s.State.Settings.Labels = "b", nil },
		steps: []string{"configure_hive  >"},
		drift: []string{"outdated_hive : alias is b, want a; labels are [], want [x]"},
	},
	{
		name:  "port changed",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Settings.HivePort = 1 },
		steps: []string{"configure_hive  >", "start_hive  >"},
		drift: []string{"outdated_hive : hive_port is 1, want 8600"},
	},
	{
		name: "auto_start disabled while the daemon runs",
		edit: func(s *hiveState, _ *want, _ *planOpts) { s.Hive.AutoStart = false },
		// The daemon is restarted with the new settings, not stopped: it may be in use.
		steps: []string{"configure_hive  >", "start_hive  >"},
		drift: []string{"outdated_hive : auto_start is true, want false"},
	},
	{
		name:  "daemon not running",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Daemon = wire.Daemon{Problem: "port in use"} },
		steps: []string{"start_hive  >"},
		drift: []string{"hive_not_running : Hive not running: port in use"},
	},
	{
		name: "daemon not running, no auto_start",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Daemon, s.Hive.AutoStart, s.State.Settings.AutoStart = wire.Daemon{}, false, false
		},
	},
	{
		name:  "daemon runs the previous rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Daemon.SHA256 = "a9" },
		steps: []string{"start_hive  >"},
		drift: []string{"outdated_hive : The hive daemon still runs the previous rbee"},
	},
	{
		name: "running without auto_start, outdated",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.AutoStart, s.State.Settings.AutoStart, s.State.Rbee.SHA256 = false, false, "a9"
		},
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive"},
	},
	{
		name: "machine does not meet the requirements of a worker",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Workers, s.State.Noexec, s.State.Commands = nil, "/home", []string{"sh"}
			setNeeds(w, catalog.Needs{Glibc: "2.38", Commands: []string{"cc"}})
		},
		drift: []string{"missing_worker llm"},
		blocked: []string{"llm: worker 'llm' cannot run on this hive: glibc 2.36 is older than 2.38; " +
			"cc is not in PATH: engines compile kernels with a C compiler when they start (install gcc or clang); " +
			"/home is mounted noexec: programs in it cannot run; set RBEE_HOME to another directory"},
	},
	{
		name: "machine does not meet the requirements of an installed worker",
		edit: func(_ *hiveState, w *want, _ *planOpts) { setNeeds(w, catalog.Needs{Glibc: "2.38"}) },
	},
	{
		name: "different program of the same archive",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			setArchive(w, "bin/llm")
			s.State.Workers[0].SHA256 = w.Workers[llmKey].SHA256
			setArchive(w, "bin/llm-server")
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 was installed from a different source"},
	},
	{
		name: "disk space below the requirement of the recipe",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree, s.State.Home = nil, 5<<30, "/home/bee/rbee"
			setNeeds(w, catalog.Needs{Disk: 6 << 30})
		},
		drift:   []string{"missing_worker llm"},
		blocked: []string{"llm: insufficient disk space in /home/bee/rbee: 5.0 GiB free, 6.0 GiB needed"},
	},
	{
		name: "disk space below twice the artifact size",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree = nil, 139
		},
		drift:   []string{"missing_worker llm"},
		blocked: []string{"llm: insufficient disk space in : 139 B free"},
	},
	{
		name: "sufficient disk space",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree = nil, 140
		},
		steps: []string{"install_worker llm >2.0"},
		drift: []string{"missing_worker llm"},
	},
	{
		name: "different variant of the same version",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			llm := w.Workers[llmKey]
			llm.Variant, llm.SHA256 = "cuda", "cc"
			w.Workers[llmKey], s.State.Workers[0].Variant = llm, "cpu"
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is cpu, want cuda"},
	},
	{
		name: "lookup failed, worker installed",
		edit: func(_ *hiveState, w *want, _ *planOpts) {
			w.Workers[llmKey] = plan.DesiredWorker{Err: &plan.LookupError{Err: errors.New("llm.yaml:3: the API is limited")}}
		},
		blocked: []string{"llm: llm.yaml:3: the API is limited"},
	},
	{
		name: "lookup failed, worker damaged",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			w.Workers[llmKey] = plan.DesiredWorker{Err: &plan.LookupError{Err: errors.New("llm.yaml:3: the API is limited")}}
			s.State.Workers[0].Corrupt = "run is missing"
		},
		drift:   []string{"corrupt_worker llm"},
		blocked: []string{"llm: llm.yaml:3: the API is limited"},
	},
	{
		name:  "missing worker",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers = nil },
		steps: []string{"install_worker llm >2.0"},
		drift: []string{"missing_worker llm: Worker 'llm' not installed"},
	},
	{
		name: "missing worker that cannot be installed",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers = append(s.Hive.Workers, config.Worker{Type: "none", Version: version.Latest})
		},
		drift:   []string{"missing_worker none"},
		blocked: []string{"none: worker none cannot be installed"},
	},
	{
		name:  "older version of a worker",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].Version = "1.9" },
		steps: []string{"update_worker llm 1.9>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' is 1.9, want 2.0"},
	},
	{
		name:  "worker from a different source",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].SHA256 = "b9" },
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 was installed from a different source than the recipe's"},
	},
	{
		name: "recipe with different launch settings",
		edit: func(_ *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}}
				w.Workers[k] = have
			}
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 has different launch settings than the recipe"},
	},
	{
		name: "launch default set by another version of rbee",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}, ReadyStatus: wire.DefaultReadyStatus}
				w.Workers[k] = have
			}
			s.State.Workers[0].Launch = &wire.Launch{Args: []string{"serve"}}
			s.State.Workers[0].LaunchDigest = s.State.Workers[0].Launch.Digest()
		},
	},
	{
		name: "launch default set by another version of rbee, no digest",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}, ReadyStatus: wire.DefaultReadyStatus}
				w.Workers[k] = have
			}
			s.State.Workers[0].Launch = &wire.Launch{Args: []string{"serve"}}
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 has different launch settings than the recipe"},
	},
	{
		name: "recipe with a different launch digest",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}}
				w.Workers[k] = have
			}
			s.State.Workers[0].LaunchDigest = (&wire.Launch{Args: []string{"run"}}).Digest()
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 has different launch settings than the recipe"},
	},
	{
		name:  "corrupt worker",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].Corrupt = "bin/x is missing" },
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"corrupt_worker llm: Worker 'llm' is damaged: bin/x is missing"},
	},
	{
		name: "foreign worker, adopted as the latest",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers[0] = wire.Worker{Type: "llm", Unmanaged: true}
		},
	},
	{
		name: "foreign worker, exact version configured",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers[0], s.Hive.Workers[0].Version = wire.Worker{Type: "llm", Unmanaged: true}, "2.0"
		},
		steps: []string{"update_worker llm >2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' was not installed by rbee, want version 2.0"},
	},
	{
		name: "installed worker without a recipe, latest configured",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers[0].Type, s.State.Workers[0].Type = "none", "none"
		},
	},
	{
		name: "installed worker without a recipe, other version configured",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers[0] = config.Worker{Type: "none", Version: "9"}
			s.State.Workers[0].Type = "none"
		},
		drift:   []string{"outdated_worker none: Worker 'none' is 2.0, want 9"},
		blocked: []string{"none: worker none cannot be installed"},
	},
	{
		name: "builtin worker of the previous rbee",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers[0].Type = "echo"
			s.State.Workers[0] = wire.Worker{Type: "echo", Version: "1.0", SHA256: "a9"}
		},
		steps: []string{"update_worker echo 1.0>1.0"},
		drift: []string{"outdated_worker echo"},
	},
	{
		name: "extra worker",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers = append(s.State.Workers, wire.Worker{Type: "old", Version: "1"})
		},
		drift: []string{"extra_worker old: Extra worker 'old'"},
	},
	{
		name: "extra worker is removed before others are installed",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Workers, o.RemoveExtra = []wire.Worker{{Type: "old", Version: "1"}}, true
		},
		steps: []string{"remove_worker old 1>", "install_worker llm >2.0"},
		drift: []string{"missing_worker llm", "extra_worker old"},
	},
	{
		name:  "extra hive",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.Extra = true },
		drift: []string{"extra_hive : Hive not in config"},
	},
	{
		name:  "extra hive is removed",
		edit:  func(s *hiveState, _ *want, o *planOpts) { s.Extra, o.RemoveExtra = true, true },
		steps: []string{"remove_hive  1.0>"},
		drift: []string{"extra_hive"},
	},
	{
		name: "broken extra hive is updated before it is removed",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, o.RemoveExtra, s.State.Broken = true, true, "exec format error"
		},
		steps: []string{"update_hive  1.0>1.0", "remove_hive  1.0>"},
		drift: []string{"extra_hive"},
	},
	{
		name: "broken extra hive, version to install not known",
		edit: func(s *hiveState, w *want, o *planOpts) {
			s.Extra, o.RemoveExtra, s.State.Broken, w.Version = true, true, "exec format error", ""
		},
		steps: []string{"update_hive  1.0>", "remove_hive  1.0>"},
		drift: []string{"extra_hive"},
	},
	{
		name: "extra hive without rbee",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, o.RemoveExtra, s.State = true, true, &wire.State{Platform: diffPlatform}
		},
	},
	{
		name:  "unreachable extra hive",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.Extra, s.State = true, nil },
		drift: []string{"extra_hive : Hive not in config and unreachable"},
	},
	{
		name: "unreachable extra hive to remove",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, s.State, o.RemoveExtra = true, nil, true
			s.Err = &operations.Error{Code: operations.CodeUnreachable, Message: "timeout"}
		},
		drift: []string{"unreachable : Hive unreachable: timeout", "extra_hive"},
	},
	{
		name: "unreachable hive gets no steps",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State, s.Err = nil, &operations.Error{Code: operations.CodeUnreachable, Message: "no route"}
			o.RemoveExtra, o.Force = true, true
		},
		drift: []string{"unreachable : Hive unreachable: no route"},
	},
	{
		name:  "state not read",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State = nil },
		drift: []string{"unreachable : Hive was not read"},
	},
	{
		name:  "force",
		edit:  func(_ *hiveState, _ *want, o *planOpts) { o.Force = true },
		steps: []string{"update_hive  1.0>1.0", "update_worker llm 2.0>2.0", "start_hive  >"},
	},
	{
		name: "force, no binary and no recipe",
		edit: func(s *hiveState, w *want, o *planOpts) {
			o.Force, w.Binaries, s.Hive.Workers[0].Type, s.State.Workers[0].Type = true, nil, "none", "none"
		},
	},
}

func TestDiff(t *testing.T) {
	t.Parallel()
	for _, c := range diffCases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, w := inSync()
			var o plan.Options
			c.edit(&s, &w, &o)
			plan := plan.Diff([]plan.HiveState{s}, w, o)
			var steps, drift, blocked []string
			for _, p := range plan.Steps {
				if p.Hive != "a" || p.Reason == "" {
					t.Errorf("Diff() returned step %+v, want hive a and a reason", p)
				}
				steps = append(steps, fmt.Sprintf("%s %s %s>%s", p.Action, p.Worker, p.From, p.Version))
			}
			for _, d := range plan.Drift {
				drift = append(drift, fmt.Sprintf("%s %s: %s", d.Issue, d.Worker, d.Details))
				if d.Issue == operations.IssueUnreachable && d.Error != s.Err {
					t.Errorf("Diff() returned drift with error %v, want %v", d.Error, s.Err)
				}
			}
			for _, b := range plan.Blocked {
				blocked = append(blocked, b.Worker+": "+b.Reason)
			}
			if !slices.Equal(steps, c.steps) {
				t.Errorf("Diff() returned steps\n got %q\nwant %q", steps, c.steps)
			}
			if !slices.EqualFunc(drift, c.drift, strings.HasPrefix) {
				t.Errorf("Diff() returned drift\n got %q\nwant prefixes %q", drift, c.drift)
			}
			if !slices.EqualFunc(blocked, c.blocked, strings.HasPrefix) {
				t.Errorf("Diff() returned blocked\n got %q\nwant prefixes %q", blocked, c.blocked)
			}
			if plan.Steps == nil || plan.Drift == nil {
				t.Errorf("Diff() returned steps %#v and drift %#v, want empty lists instead of nil", plan.Steps, plan.Drift)
			}
		})
	}
}
