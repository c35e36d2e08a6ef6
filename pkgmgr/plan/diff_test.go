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

// diffCase is one hive, in sync unless edit changes that, and what Diff says.
type diffCase struct {
	name string
	edit func(*plan.HiveState, *plan.Desired, *plan.Options)

	steps   []string // "action worker from>to"
	drift   []string // "issue worker: details", or a beginning of it
	blocked []string // "worker: reason", or a beginning of it
}

var diffPlatform = wire.Platform{OS: "linux", Arch: "amd64", Libc: "glibc", LibcVersion: "2.36"}

var diffCases = []diffCase{
	{name: "in sync", edit: func(*hiveState, *want, *planOpts) {}},
	{
		name:  "fresh machine",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State = &wire.State{Platform: diffPlatform} },
		steps: []string{"install_hive  >1.0", "install_worker llm >2.0", "start_hive  >"},
		drift: []string{"missing_hive : Hive not installed", "missing_worker llm: Worker 'llm' not installed"},
	},
	{
		name: "fresh machine, no auto_start",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State, s.Hive.AutoStart = &wire.State{Platform: diffPlatform}, false
		},
		steps: []string{"install_hive  >1.0", "install_worker llm >2.0"},
		drift: []string{"missing_hive", "missing_worker llm"},
	},
	{
		name: "fresh machine, no rbee for it",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State, w.Binaries = &wire.State{Platform: diffPlatform}, nil
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": there is no rbee for linux/amd64"},
	},
	{
		name: "fresh machine, rbee cannot be had",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform}
			setBinary(w, plan.DesiredBinary{Err: errors.New("the release is gone")})
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": the release is gone"},
	},
	{
		name: "fresh machine, and no program runs there",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform, Noexec: "/home"}
		},
		drift:   []string{"missing_hive", "missing_worker llm"},
		blocked: []string{": /home is mounted noexec: programs in it cannot run; set RBEE_HOME to another directory"},
	},
	{
		name: "outdated, and no program runs there any more",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Rbee, s.State.Broken, s.State.Noexec, o.Force = &wire.Installed{}, "permission denied", "/home", true
		},
		drift:   []string{"outdated_hive : The installed rbee does not work"},
		blocked: []string{": /home is mounted noexec"},
	},
	{
		name: "workers without rbee",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State = &wire.State{Platform: diffPlatform, Workers: []wire.Worker{{Type: "llm", Foreign: true}}}
		},
		steps: []string{"install_hive  >1.0", "start_hive  >"},
		drift: []string{"missing_hive"},
	},
	{
		name:  "another version of rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Rbee = &wire.Installed{Version: "0.9", SHA256: "a9"} },
		steps: []string{"update_hive  0.9>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee is 0.9, want 1.0"},
	},
	{
		name:  "another build of rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Rbee.SHA256 = "a9" },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee 1.0 is another build than this one"},
	},
	{
		name: "another build, only the version is known",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee.SHA256, s.State.Daemon.SHA256, w.Binaries = "a9", "a9", nil
		},
	},
	{
		name: "another version, only the version is known",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee = &wire.Installed{Version: "0.9", SHA256: "aa"}
			w.Binaries = nil
		},
		drift:   []string{"outdated_hive : rbee is 0.9, want 1.0"},
		blocked: []string{": there is no rbee for linux/amd64"},
	},
	{
		name: "no version wanted and no binary known",
		edit: func(_ *hiveState, w *want, _ *planOpts) { w.Version, w.Binaries = "", nil },
	},
	{
		name: "outdated and blocked, yet able to work",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Rbee.Version, s.State.Workers = "0.9", nil
			w.Binaries = nil
		},
		steps:   []string{"install_worker llm >2.0"},
		drift:   []string{"outdated_hive", "missing_worker llm"},
		blocked: []string{": there is no rbee"},
	},
	{
		name: "broken and blocked",
		edit: func(s *hiveState, w *want, o *planOpts) {
			s.State.Broken, s.State.Workers = "exec format error", []wire.Worker{{Type: "old"}}
			w.Binaries, o.RemoveExtra = nil, true
		},
		drift:   []string{"outdated_hive : The installed rbee does not work: exec format error", "missing_worker llm", "extra_worker old"},
		blocked: []string{": there is no rbee"},
	},
	{
		name:  "broken rbee",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Broken = "exec format error" },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : The installed rbee does not work"},
	},
	{
		name:  "another protocol",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Schema = wire.MinReader - 1 },
		steps: []string{"update_hive  1.0>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : The installed rbee 1.0 speaks another protocol"},
	},
	{
		name: "a newer rbee stays",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Rbee, s.State.Daemon.SHA256 = &wire.Installed{Version: "1.1", SHA256: "zz"}, "zz"
		},
		drift: []string{"newer_hive : rbee 1.1 on the hive is newer than this one, 1.0"},
	},
	{
		name: "a newer rbee stays, its workers are updated, even with force",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Schema, s.State.MinReader, o.Force = wire.Schema+1, wire.Schema, true
			s.State.Daemon.SHA256 = ""
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"newer_hive : rbee 1.0 on the hive is newer than this one: its protocol has schema 3"},
	},
	{
		name: "a newer rbee that cannot be read",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Schema, s.State.MinReader = wire.Schema+1, wire.Schema+1
		},
		drift:   []string{"newer_hive : rbee 1.0 on the hive is newer than this one: its protocol has schema 3"},
		blocked: []string{": rbee 1.0 on the hive is newer than this one: its protocol has schema 3, this one has 2"},
	},
	{
		name: "a newer rbee is replaced with downgrade",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State.Rbee, o.Downgrade = &wire.Installed{Version: "1.1", SHA256: "zz"}, true
		},
		steps: []string{"update_hive  1.1>1.0", "start_hive  >"},
		drift: []string{"outdated_hive : rbee is 1.1, want 1.0"},
	},
	{
		name: "settings of a hive with a newer rbee",
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
		drift: []string{"outdated_hive : The hive does not know its settings"},
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
		name: "auto_start taken away from a daemon that runs",
		edit: func(s *hiveState, _ *want, _ *planOpts) { s.Hive.AutoStart = false },
		// It is told, and not stopped: somebody may be using it.
		steps: []string{"configure_hive  >", "start_hive  >"},
		drift: []string{"outdated_hive : auto_start is true, want false"},
	},
	{
		name:  "daemon down",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Daemon = wire.Daemon{Problem: "port taken"} },
		steps: []string{"start_hive  >"},
		drift: []string{"hive_not_running : Hive not running: port taken"},
	},
	{
		name: "daemon down, as wanted",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Daemon, s.Hive.AutoStart, s.State.Settings.AutoStart = wire.Daemon{}, false, false
		},
	},
	{
		name:  "daemon of the rbee before",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Daemon.SHA256 = "a9" },
		steps: []string{"start_hive  >"},
		drift: []string{"outdated_hive : The daemon still runs the rbee that was replaced"},
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
		name: "a worker that would not run there",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Workers, s.State.Noexec, s.State.Commands = nil, "/home", []string{"sh"}
			setNeeds(w, catalog.Needs{Glibc: "2.38", Commands: []string{"cc"}})
		},
		drift: []string{"missing_worker llm"},
		blocked: []string{"llm: worker 'llm' would not run there: glibc 2.36 is older than 2.38; " +
			"cc is not in PATH: engines compile kernels with a C compiler when they start (install gcc or clang); " +
			"/home is mounted noexec: programs in it cannot run; set RBEE_HOME to another directory"},
	},
	{
		name: "a worker that runs, and would not be installed there again",
		edit: func(_ *hiveState, w *want, _ *planOpts) { setNeeds(w, catalog.Needs{Glibc: "2.38"}) },
	},
	{
		name: "another program of the same archive",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			setArchive(w, "bin/llm")
			s.State.Workers[0].SHA256 = w.Workers[llmKey].SHA256
			setArchive(w, "bin/llm-server")
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is of another source"},
	},
	{
		name: "no room for it",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree, s.State.Home = nil, 5<<30, "/home/bee/rbee"
			setNeeds(w, catalog.Needs{Disk: 6 << 30})
		},
		drift:   []string{"missing_worker llm"},
		blocked: []string{"llm: /home/bee/rbee has 5.0 GiB free, and what is to be installed there needs 6.0 GiB"},
	},
	{
		name: "no room for twice what is sent",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree = nil, 139
		},
		drift:   []string{"missing_worker llm"},
		blocked: []string{"llm:  has 139 B free"},
	},
	{
		name: "just room enough",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers, s.State.DiskFree = nil, 140
		},
		steps: []string{"install_worker llm >2.0"},
		drift: []string{"missing_worker llm"},
	},
	{
		name: "another variant of the same version",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			llm := w.Workers[llmKey]
			llm.Variant, llm.SHA256 = "cuda", "cc"
			w.Workers[llmKey], s.State.Workers[0].Variant = llm, "cpu"
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is cpu, want cuda"},
	},
	{
		name: "what is published could not be asked for: what is there stays",
		edit: func(_ *hiveState, w *want, _ *planOpts) {
			w.Workers[llmKey] = plan.DesiredWorker{Err: &plan.LookupError{Err: errors.New("llm.yaml:3: the API is limited")}}
		},
		blocked: []string{"llm: llm.yaml:3: the API is limited"},
	},
	{
		name: "what is published could not be asked for, and what is there is damaged",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			w.Workers[llmKey] = plan.DesiredWorker{Err: &plan.LookupError{Err: errors.New("llm.yaml:3: the API is limited")}}
			s.State.Workers[0].Corrupt = "run is gone"
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
		name: "missing worker without a way to install it",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers = append(s.Hive.Workers, config.Worker{Type: "none", Version: version.Latest})
		},
		drift:   []string{"missing_worker none"},
		blocked: []string{"none: worker none cannot be installed"},
	},
	{
		name:  "another version of a worker",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].Version = "1.9" },
		steps: []string{"update_worker llm 1.9>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' is 1.9, want 2.0"},
	},
	{
		name:  "a worker of another source",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].SHA256 = "b9" },
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is of another source than the recipe's"},
	},
	{
		name: "a recipe that starts the worker otherwise",
		edit: func(_ *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}}
				w.Workers[k] = have
			}
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is started otherwise than the recipe says"},
	},
	{
		name: "a default that another rbee filled in",
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
		name: "a default that another rbee filled in, without a digest",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}, ReadyStatus: wire.DefaultReadyStatus}
				w.Workers[k] = have
			}
			s.State.Workers[0].Launch = &wire.Launch{Args: []string{"serve"}}
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is started otherwise than the recipe says"},
	},
	{
		name: "a recipe with another launch digest",
		edit: func(s *hiveState, w *want, _ *planOpts) {
			for k, have := range w.Workers {
				have.Launch = &wire.Launch{Args: []string{"serve"}}
				w.Workers[k] = have
			}
			s.State.Workers[0].LaunchDigest = (&wire.Launch{Args: []string{"run"}}).Digest()
		},
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' 2.0 is started otherwise than the recipe says"},
	},
	{
		name:  "corrupt worker",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0].Corrupt = "bin/x is missing" },
		steps: []string{"update_worker llm 2.0>2.0"},
		drift: []string{"corrupt_worker llm: Worker 'llm' is damaged: bin/x is missing"},
	},
	{
		name: "foreign worker, adopted as the latest",
		edit: func(s *hiveState, _ *want, _ *planOpts) { s.State.Workers[0] = wire.Worker{Type: "llm", Foreign: true} },
	},
	{
		name: "foreign worker, a version wanted",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.State.Workers[0], s.Hive.Workers[0].Version = wire.Worker{Type: "llm", Foreign: true}, "2.0"
		},
		steps: []string{"update_worker llm >2.0"},
		drift: []string{"outdated_worker llm: Worker 'llm' was not installed by rbee, want version 2.0"},
	},
	{
		name: "installed worker whose recipe is gone, latest wanted",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers[0].Type, s.State.Workers[0].Type = "none", "none"
		},
	},
	{
		name: "installed worker whose recipe is gone, another version wanted",
		edit: func(s *hiveState, _ *want, _ *planOpts) {
			s.Hive.Workers[0] = config.Worker{Type: "none", Version: "9"}
			s.State.Workers[0].Type = "none"
		},
		drift:   []string{"outdated_worker none: Worker 'none' is 2.0, want 9"},
		blocked: []string{"none: worker none cannot be installed"},
	},
	{
		name: "builtin worker of the rbee before",
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
		name: "extra worker, to be removed before others are installed",
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
		name:  "extra hive, to be removed",
		edit:  func(s *hiveState, _ *want, o *planOpts) { s.Extra, o.RemoveExtra = true, true },
		steps: []string{"remove_hive  1.0>"},
		drift: []string{"extra_hive"},
	},
	{
		name: "extra hive that is broken is brought a working rbee to remove itself",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, o.RemoveExtra, s.State.Broken = true, true, "no"
		},
		steps: []string{"update_hive  1.0>1.0", "remove_hive  1.0>"},
		drift: []string{"extra_hive"},
	},
	{
		name: "extra hive that is gone already",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, o.RemoveExtra, s.State = true, true, &wire.State{Platform: diffPlatform}
		},
	},
	{
		name:  "extra hive that cannot be read",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.Extra, s.State = true, nil },
		drift: []string{"extra_hive : Hive not in config, and it could not be read"},
	},
	{
		name: "extra hive that cannot be read, to be removed",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.Extra, s.State, o.RemoveExtra = true, nil, true
			s.Err = &operations.Error{Code: operations.CodeUnreachable, Message: "timeout"}
		},
		drift: []string{"unreachable : Hive unreachable: timeout", "extra_hive"},
	},
	{
		name: "unreachable is not empty",
		edit: func(s *hiveState, _ *want, o *planOpts) {
			s.State, s.Err = nil, &operations.Error{Code: operations.CodeUnreachable, Message: "no route"}
			o.RemoveExtra, o.Force = true, true
		},
		drift: []string{"unreachable : Hive unreachable: no route"},
	},
	{
		name:  "not read at all",
		edit:  func(s *hiveState, _ *want, _ *planOpts) { s.State = nil },
		drift: []string{"unreachable : Hive was not read"},
	},
	{
		name:  "forced",
		edit:  func(_ *hiveState, _ *want, o *planOpts) { o.Force = true },
		steps: []string{"update_hive  1.0>1.0", "update_worker llm 2.0>2.0", "start_hive  >"},
	},
	{
		name: "forced, with nothing to force with",
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
					t.Errorf("step %+v names no hive or no reason", p)
				}
				steps = append(steps, fmt.Sprintf("%s %s %s>%s", p.Action, p.Worker, p.From, p.Version))
			}
			for _, d := range plan.Drift {
				drift = append(drift, fmt.Sprintf("%s %s: %s", d.Issue, d.Worker, d.Details))
				if d.Issue == operations.IssueUnreachable && d.Error != s.Err {
					t.Errorf("drift has error %v", d.Error)
				}
			}
			for _, b := range plan.Blocked {
				blocked = append(blocked, b.Worker+": "+b.Reason)
			}
			if !slices.Equal(steps, c.steps) {
				t.Errorf("steps\n got %q\nwant %q", steps, c.steps)
			}
			if !slices.EqualFunc(drift, c.drift, strings.HasPrefix) {
				t.Errorf("drift\n got %q\nwant %q", drift, c.drift)
			}
			if !slices.EqualFunc(blocked, c.blocked, strings.HasPrefix) {
				t.Errorf("blocked\n got %q\nwant %q", blocked, c.blocked)
			}
			if plan.Steps == nil || plan.Drift == nil {
				t.Error("an empty list is written as null")
			}
		})
	}
}
