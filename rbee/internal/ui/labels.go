package ui

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// doing words a step while it is done.
func doing(s operations.Step) string { return word(s, 0) }

// done words a step after it was done.
func done(s operations.Step) string { return word(s, 1) }

// todo words a step that could not be done, after "cannot".
func todo(s operations.Step) string { return word(s, 2) }

// word gives a step in one of three tenses.
func word(s operations.Step, tense int) string {
	verbs := map[operations.Action][3]string{
		operations.ActionInstallHive:    {"installing rbee", "installed rbee", "install rbee"},
		operations.ActionUpdateHive:     {"updating rbee", "updated rbee", "update rbee"},
		operations.ActionConfigureHive:  {"changing settings", "changed settings", "change settings"},
		operations.ActionRemoveWorker:   {"removing worker", "removed worker", "remove worker"},
		operations.ActionInstallWorker:  {"installing worker", "installed worker", "install worker"},
		operations.ActionUpdateWorker:   {"updating worker", "updated worker", "update worker"},
		operations.ActionRollbackHive:   {"rolling back rbee", "rolled back rbee", "roll back rbee"},
		operations.ActionRollbackWorker: {"rolling back worker", "rolled back worker", "roll back worker"},
		operations.ActionStartHive:      {"starting the hive", "started the hive", "start the hive"},
		operations.ActionStopHive:       {"stopping the hive", "stopped the hive", "stop the hive"},
		operations.ActionRemoveHive:     {"removing rbee", "removed rbee", "remove rbee"},
	}
	text := strings.ReplaceAll(string(s.Action), "_", " ")
	if v, ok := verbs[s.Action]; ok {
		text = v[tense]
	}
	if s.Worker != "" {
		text += " " + s.Worker
	}
	switch s.Action {
	case operations.ActionInstallHive, operations.ActionUpdateHive,
		operations.ActionInstallWorker, operations.ActionUpdateWorker:
		if s.Version != "" {
			text += " " + s.Version
		}
	}
	return oneLine(text)
}

// driftText words a difference as the workflows do: Extra worker 'comfyui'.
func driftText(d operations.Drift) string {
	about := func(what string) string {
		if d.Worker != "" {
			what = fmt.Sprintf("%s '%s'", what, d.Worker)
		}
		return what
	}
	with := func(what string) string {
		// The details are a sentence of their own, which may begin as this one.
		if d.Details == "" || strings.HasPrefix(d.Details, what) {
			return cmp.Or(d.Details, what)
		}
		return what + ": " + d.Details
	}
	switch d.Issue {
	case operations.IssueMissingHive:
		return "Hive not installed"
	case operations.IssueExtraHive:
		return "Hive not in config"
	case operations.IssueOutdatedHive:
		return with("Outdated hive")
	case operations.IssueNewerHive:
		return with("Newer hive")
	case operations.IssueHiveNotRunning:
		return with("Hive not running")
	case operations.IssueMissingWorker:
		return about("Missing worker")
	case operations.IssueExtraWorker:
		return about("Extra worker")
	case operations.IssueOutdatedWorker:
		return with(about("Outdated worker"))
	case operations.IssueCorruptWorker:
		return with(about("Corrupt worker"))
	default:
		return with(about(strings.ReplaceAll(string(d.Issue), "_", " ")))
	}
}
