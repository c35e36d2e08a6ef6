package cli

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

// maxParallelHives limits the number of operations that a command runs at a time, one
// per hive.
const maxParallelHives = 16

// target returns the target of an operation; an empty alias selects no hive.
func (a *app) target(alias string) operations.Target {
	return operations.Target{HiveID: alias, ConfigPath: a.config()}
}

// configHives returns the aliases of the hives in the config, or an error if there is
// none. It does not connect to hives.
func (a *app) configHives(ctx context.Context) ([]string, error) {
	list, err := reportOf[*operations.HiveListReport](ctx, a, operations.HiveList{ConfigPath: a.config()}, nil)
	if err != nil {
		return nil, err
	}
	var aliases []string
	for _, h := range list.Hives {
		if h.InConfig {
			aliases = append(aliases, h.Alias)
		}
	}
	if len(aliases) == 0 {
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoHives, Message: "the config has no hives"}
	}
	return aliases, nil
}

// oneHive returns alias, or the only hive of the config if alias is empty.
func (a *app) oneHive(ctx context.Context, alias string) (string, error) {
	if alias != "" {
		return alias, nil
	}
	aliases, err := a.configHives(ctx)
	if err != nil {
		return "", err
	}
	if len(aliases) > 1 {
		return "", &usageError{message: missingFlags([]string{"--hive ALIAS"}) + "; the config has " + listNames(aliases), hint: "add --hive " + aliases[0]}
	}
	return aliases[0], nil
}

// listNames joins names, up to a limit.
func listNames(names []string) string {
	const limit = 20
	if left := len(names) - limit; left > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:limit], ", "), left)
	}
	return strings.Join(names, ", ")
}

// operateEach runs an operation on each of the hives, in parallel, and prints the
// combined report.
func (a *app) operateEach(ctx context.Context, aliases []string, op func(alias string) operations.Operation) error {
	aliases = slices.Compact(slices.Sorted(slices.Values(aliases)))
	report := &ui.MultiHive{Hives: make([]ui.HiveResult, len(aliases))}
	progress := a.startProgress()
	slots := make(chan struct{}, maxParallelHives)
	var wg sync.WaitGroup
	for i, alias := range aliases {
		wg.Go(func() {
			slots <- struct{}{}
			report.Hives[i] = a.runOnHive(ctx, alias, op(alias), progress)
			<-slots
		})
	}
	wg.Wait()
	a.stopProgress()
	return a.conclude(report, nil)
}

// runOnHive runs the operation of a single hive for operateEach. It sets the alias in the
// events and finishes the progress of the hive.
func (a *app) runOnHive(ctx context.Context, alias string, op operations.Operation, progress ui.Progress) ui.HiveResult {
	finished := false
	report, err := a.runOperation(ctx, op, func(e operations.Event) {
		if e.Hive == "" {
			e.Hive = alias
		}
		if e.Type == operations.EventPhase {
			finished = isFinal(e.Phase)
		}
		progress.Handle(e)
	})
	if err == nil {
		if !finished {
			progress.Handle(operations.Event{Type: operations.EventPhase, Hive: alias, Phase: operations.PhaseDone})
		}
		return ui.HiveResult{Alias: alias, Report: report}
	}
	e := classify(err)
	if !finished {
		phase := operations.PhaseFailed
		if e.Code == operations.CodeUnreachable {
			phase = operations.PhaseUnreachable
		}
		progress.Handle(operations.Event{Type: operations.EventPhase, Hive: alias, Phase: phase, Error: e})
	}
	return ui.HiveResult{Alias: alias, Error: e}
}

// isFinal reports whether a hive in phase p is finished.
func isFinal(p operations.Phase) bool {
	return p == operations.PhaseDone || p == operations.PhaseFailed || p == operations.PhaseUnreachable
}
