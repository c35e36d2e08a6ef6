package cli

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
)

// found is a worker or a model on a hive that may be the one that was asked for.
type found struct {
	hive, id string
	exact    bool // it cannot be more so
}

// kind is what pick chooses from.
type kind struct {
	subject            operations.SubjectKind
	missing, ambiguous operations.Reason
}

var (
	workerKind = kind{operations.SubjectWorker, operations.ReasonWorkerNotFound, operations.ReasonWorkerAmbiguous}
	modelKind  = kind{operations.SubjectModel, operations.ReasonModelNotFound, operations.ReasonModelAmbiguous}
)

// findWorker says where a worker is and which one is meant. Without a hive all
// hives of the config are asked; only one with that id or process id will do.
func (a *app) findWorker(ctx context.Context, hive, asked string) (t operations.Target, ref operations.WorkerRef, err error) {
	if ref, err = workerRef(asked); err != nil || hive != "" {
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
	var near []found
	var others []string
	for _, w := range list.Workers {
		if w.State != operations.WorkerStopped {
			others = append(others, w.ID+" on "+w.Hive)
		}
		if ref.PID != 0 && w.PID == ref.PID || ref.ID != "" && strings.HasPrefix(w.ID, ref.ID) {
			near = append(near, found{w.Hive, w.ID, w.ID == ref.ID})
		}
	}
	one, err := pick(workerKind, asked, near, others, list.Errors)
	if ref.ID != "" {
		ref.ID = one.id
	}
	return a.target(one.hive), ref, err
}

// workerRef reads a worker's id, the beginning of one, or a process id.
func workerRef(asked string) (operations.WorkerRef, error) {
	if asked == "" {
		return operations.WorkerRef{}, &usageError{message: "the worker's id is empty", hint: "`rbee list-workers` shows the workers there are"}
	}
	if strings.Trim(asked, "0123456789") != "" {
		return operations.WorkerRef{ID: asked}, nil
	}
	pid, err := strconv.Atoi(asked)
	if err != nil || pid < 1 {
		return operations.WorkerRef{}, &usageError{message: asked + " is no process id", hint: "`rbee list-workers` shows the workers there are"}
	}
	return operations.WorkerRef{PID: pid}, nil
}

// findModel says on which hive a model is. Without a hive all hives of the
// config are asked. The hive itself decides which model an id means, so any
// model of the repository will do where no id is the same.
func (a *app) findModel(ctx context.Context, hive, asked string) (operations.Target, error) {
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
	var near []found
	var others []string
	for _, m := range list.Models {
		others = append(others, m.ID+" on "+m.Hive)
		if m.ID == asked || repository(m.ID) == repository(asked) {
			near = append(near, found{m.Hive, asked, m.ID == asked})
		}
	}
	one, err := pick(modelKind, asked, near, others, list.Errors)
	return a.target(one.hive), err
}

// repository is what comes before the file and the revision of a model's id.
func repository(id string) string {
	if end := strings.IndexAny(id, ":@"); end >= 0 {
		return id[:end]
	}
	return id
}

// listAll asks all hives and shows that it does.
func listAll[R operations.Report](ctx context.Context, a *app, op operations.Operation) (R, error) {
	progress := a.draw()
	defer a.endDrawing()
	return askFor[R](ctx, a, op, progress.Handle)
}

// pick chooses the one that is meant. Anything but the exact id may fit on a
// hive that could not be asked as well, so that it takes the answers of all.
func pick(kind kind, asked string, near []found, others []string, silent []*operations.Error) (found, error) {
	if slices.ContainsFunc(near, func(f found) bool { return f.exact }) {
		near = slices.DeleteFunc(near, func(f found) bool { return !f.exact })
	}
	near = slices.Compact(near)
	switch {
	case len(near) > 1:
		return found{}, &operations.Error{
			Code: operations.CodeNotFound, Reason: kind.ambiguous, Subject: kind.subject.Named(asked), Message: fmt.Sprintf("%q may be %s", asked, places(near)),
		}
	case len(near) == 1 && (near[0].exact || len(silent) == 0):
		return near[0], nil
	case len(near) == 1:
		message := fmt.Sprintf("%q may be %s, but not every hive could be asked: %s", asked, places(near), reasons(silent))
		return found{}, &hintedError{
			&operations.Error{Code: silent[0].Code, Reason: silent[0].Reason, Subject: silent[0].Subject, Message: message},
			"name the hive with --hive " + near[0].hive,
		}
	case len(silent) > 0:
		message := fmt.Sprintf("there is no %s %q on the hives that answered (%s); not asked: %s", kind.subject, asked, there(others), reasons(silent))
		e := &operations.Error{Code: silent[0].Code, Reason: silent[0].Reason, Subject: silent[0].Subject, Message: message}
		return found{}, &hintedError{e, "name the hive with --hive if it is one of those that answered not"}
	default:
		message := fmt.Sprintf("there is no %s %q on any hive (%s)", kind.subject, asked, there(others))
		return found{}, &operations.Error{Code: operations.CodeNotFound, Reason: kind.missing, Subject: kind.subject.Named(asked), Message: message}
	}
}

// places words where several things are.
func places(list []found) string {
	words := make([]string, len(list))
	for i, f := range list {
		words[i] = f.id + " on " + f.hive
	}
	return strings.Join(words, " or ")
}

func there(others []string) string {
	if len(others) == 0 {
		return "there are none"
	}
	return "there are " + several(others)
}

func reasons(errs []*operations.Error) string {
	words := make([]string, len(errs))
	for i, e := range errs {
		words[i] = e.Hive + " (" + e.Message + ")"
	}
	return strings.Join(words, ", ")
}
