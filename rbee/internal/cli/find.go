package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// match is a worker or a model on a hive that matches the requested one.
type match struct {
	hive, id string
	exact    bool // the ID is the requested one
}

// kind describes the objects that pick chooses from, with the reasons of its errors.
type kind struct {
	subject            operations.SubjectKind
	missing, ambiguous operations.Reason
}

var (
	workerKind = kind{operations.SubjectWorker, operations.ReasonWorkerNotFound, operations.ReasonWorkerAmbiguous}
	modelKind  = kind{operations.SubjectModel, operations.ReasonModelNotFound, operations.ReasonModelAmbiguous}
)

// findWorker returns the hive and the reference of the requested worker. Without a
// hive it searches all hives of the config, where the ID, its prefix or the process
// ID must match exactly one worker.
func (a *app) findWorker(ctx context.Context, hive, requested string) (t operations.Target, ref operations.WorkerRef, err error) {
	if ref, err = workerRef(requested); err != nil || hive != "" {
		return a.target(hive), ref, err
	}
	aliases, err := a.configHives(ctx)
	if err != nil || len(aliases) == 1 {
		return a.target(strings.Join(aliases, "")), ref, err
	}
	list, err := listAll[*operations.WorkerListReport](ctx, a, operations.WorkerProcessList{Target: a.target(""), All: true})
	if err != nil {
		return t, ref, err
	}
	var matches []match
	var others []string
	for _, w := range list.Workers {
		if w.State != operations.WorkerStopped {
			others = append(others, w.ID+" on "+w.Hive)
		}
		if ref.PID != 0 && w.PID == ref.PID || ref.ID != "" && strings.HasPrefix(w.ID, ref.ID) {
			matches = append(matches, match{w.Hive, w.ID, w.ID == ref.ID})
		}
	}
	selected, err := pick(workerKind, requested, matches, others, list.Errors)
	if ref.ID != "" {
		ref.ID = selected.id
	}
	return a.target(selected.hive), ref, err
}

// workerRef parses a worker ID, a prefix of one, or a PID.
func workerRef(requested string) (operations.WorkerRef, error) {
	if requested == "" {
		return operations.WorkerRef{}, &usageError{message: "the worker ID is empty", hint: "run `rbee list-workers` to list the workers"}
	}
	if strings.Trim(requested, "0123456789") != "" {
		return operations.WorkerRef{ID: requested}, nil
	}
	pid, err := strconv.Atoi(requested)
	if err != nil || pid < 1 {
		return operations.WorkerRef{}, &usageError{message: "invalid PID " + requested, hint: "run `rbee list-workers` to list the workers"}
	}
	return operations.WorkerRef{PID: pid}, nil
}

// findModel returns the hive of the requested model. Without a hive it searches all
// hives of the config. The hive decides which model an ID refers to, so if no ID is
// equal, any model of the repository matches.
func (a *app) findModel(ctx context.Context, hive, requested string) (operations.Target, error) {
	if hive != "" {
		return a.target(hive), nil
	}
	aliases, err := a.configHives(ctx)
	if err != nil || len(aliases) == 1 {
		return a.target(strings.Join(aliases, "")), err
	}
	list, err := listAll[*operations.ModelListReport](ctx, a, operations.ModelList{Target: a.target("")})
	if err != nil {
		return operations.Target{}, err
	}
	var matches []match
	var others []string
	for _, m := range list.Models {
		others = append(others, m.ID+" on "+m.Hive)
		if m.ID == requested || repository(m.ID) == repository(requested) {
			matches = append(matches, match{m.Hive, requested, m.ID == requested})
		}
	}
	selected, err := pick(modelKind, requested, matches, others, list.Errors)
	return a.target(selected.hive), err
}

// repository returns the ID of a model without file and revision.
func repository(id string) string {
	if end := strings.IndexAny(id, ":@"); end >= 0 {
		return id[:end]
	}
	return id
}

// listAll runs an operation on all hives and prints its progress.
func listAll[R operations.Report](ctx context.Context, a *app, op operations.Operation) (R, error) {
	progress := a.startProgress()
	defer a.stopProgress()
	return reportOf[R](ctx, a, op, progress.Handle)
}

// pick returns the only match. An inexact match counts only if all hives responded,
// since it may match something on the other hives too.
func pick(kind kind, requested string, matches []match, others []string, failures []*operations.Error) (match, error) {
	if slices.ContainsFunc(matches, func(m match) bool { return m.exact }) {
		matches = slices.DeleteFunc(matches, func(m match) bool { return !m.exact })
	}
	matches = slices.Compact(matches)
	switch {
	case len(matches) > 1:
		return match{}, &operations.Error{
			Code: operations.CodeNotFound, Reason: kind.ambiguous, Subject: kind.subject.WithName(requested), Message: fmt.Sprintf("%d %ss match %q: %s", len(matches), kind.subject, requested, places(matches)),
		}
	case len(matches) == 1 && (matches[0].exact || len(failures) == 0):
		return matches[0], nil
	case len(matches) == 1:
		message := fmt.Sprintf("%q matches %s, but some hives did not respond: %s", requested, places(matches), reasons(failures))
		return match{}, &hintedError{
			&operations.Error{Code: failures[0].Code, Reason: failures[0].Reason, Subject: failures[0].Subject, Message: message},
			"add --hive " + matches[0].hive,
		}
	case len(failures) > 0:
		message := fmt.Sprintf("no %s %q on the hives that responded (%s); no response from %s", kind.subject, requested, describeOthers(others), reasons(failures))
		e := &operations.Error{Code: failures[0].Code, Reason: failures[0].Reason, Subject: failures[0].Subject, Message: message}
		return match{}, &hintedError{e, fmt.Sprintf("if the %s is on a hive that did not respond, add --hive", kind.subject)}
	default:
		message := fmt.Sprintf("no %s %q on any hive (%s)", kind.subject, requested, describeOthers(others))
		return match{}, &operations.Error{Code: operations.CodeNotFound, Reason: kind.missing, Subject: kind.subject.WithName(requested), Message: message}
	}
}

// places lists matches with their hives.
func places(matches []match) string {
	texts := make([]string, len(matches))
	for i, m := range matches {
		texts[i] = m.id + " on " + m.hive
	}
	return strings.Join(texts, ", ")
}

// describeOthers lists the objects that were found instead of the requested one.
func describeOthers(others []string) string {
	if len(others) == 0 {
		return "found none"
	}
	return "found " + listNames(others)
}

// reasons lists hives with their errors.
func reasons(errs []*operations.Error) string {
	texts := make([]string, len(errs))
	for i, e := range errs {
		texts[i] = e.Hive + " (" + e.Message + ")"
	}
	return strings.Join(texts, ", ")
}
