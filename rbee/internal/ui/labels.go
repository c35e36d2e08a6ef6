package ui

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// gerund describes a running step: "installing worker echo 1.0".
func gerund(s operations.Step) string { return describeStep(s, 0) }

// pastTense describes a finished step: "installed worker echo 1.0".
func pastTense(s operations.Step) string { return describeStep(s, 1) }

// infinitive describes a step after "cannot": "install worker echo 1.0".
func infinitive(s operations.Step) string { return describeStep(s, 2) }

// describeStep describes a step with form 0, 1 or 2 of its verb.
func describeStep(s operations.Step, form int) string {
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
		text = v[form]
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

// driftText describes a difference, such as "Extra worker 'comfyui'". The texts
// are part of the specification of package operations.
func driftText(d operations.Drift) string {
	withWorker := func(text string) string {
		if d.Worker != "" {
			text = fmt.Sprintf("%s '%s'", text, d.Worker)
		}
		return text
	}
	withDetails := func(text string) string {
		// The details are a sentence, which may start with the same text.
		if d.Details == "" || strings.HasPrefix(d.Details, text) {
			return cmp.Or(d.Details, text)
		}
		return text + ": " + d.Details
	}
	switch d.Issue {
	case operations.IssueMissingHive:
		return "Hive not installed"
	case operations.IssueExtraHive:
		return "Hive not in config"
	case operations.IssueOutdatedHive:
		return withDetails("Outdated hive")
	case operations.IssueNewerHive:
		return withDetails("Newer hive")
	case operations.IssueHiveNotRunning:
		return withDetails("Hive not running")
	case operations.IssueMissingWorker:
		return withWorker("Missing worker")
	case operations.IssueExtraWorker:
		return withWorker("Extra worker")
	case operations.IssueOutdatedWorker:
		return withDetails(withWorker("Outdated worker"))
	case operations.IssueCorruptWorker:
		return withDetails(withWorker("Corrupt worker"))
	default:
		return withDetails(withWorker(strings.ReplaceAll(string(d.Issue), "_", " ")))
	}
}
