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

// parallel is how many hives a command works on at once where it does an
// operation for each.
const parallel = 16

// target is one hive for an operation; an empty alias is none.
func (a *app) target(alias string) operations.Target {
	return operations.Target{HiveID: alias, ConfigPath: a.config()}
}

// configHives are the aliases of the config, of which there is at least one. No
// machine is asked.
func (a *app) configHives(ctx context.Context) ([]string, error) {
	list, err := askFor[*operations.HiveListReport](ctx, a, operations.HiveList{ConfigPath: a.config()}, nil)
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
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNoHives, Message: "the config has no hive"}
	}
	return aliases, nil
}

// oneHive is the hive that was named, or the only one of the config.
func (a *app) oneHive(ctx context.Context, named string) (string, error) {
	if named != "" {
		return named, nil
	}
	aliases, err := a.configHives(ctx)
	if err != nil {
		return "", err
	}
	if len(aliases) > 1 {
		return "", &usageError{message: "the config has several hives: " + several(aliases), hint: "say which one with --hive"}
	}
	return aliases[0], nil
}

// several lists names, all of them if they are not too many to read.
func several(names []string) string {
	const most = 20
	if left := len(names) - most; left > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), left)
	}
	return strings.Join(names, ", ")
}

// each does an operation for every one of these hives, many at once, and shows
// what they come to together.
func (a *app) each(ctx context.Context, aliases []string, op func(alias string) operations.Operation) error {
	aliases = slices.Compact(slices.Sorted(slices.Values(aliases)))
	report := &ui.MultiHive{Hives: make([]ui.HiveResult, len(aliases))}
	progress := a.draw()
	turns := make(chan struct{}, parallel)
	var all sync.WaitGroup
	for i, alias := range aliases {
		all.Go(func() {
			turns <- struct{}{}
			report.Hives[i] = a.one(ctx, alias, op(alias), progress)
			<-turns
		})
	}
	all.Wait()
	a.endDrawing()
	return a.conclude(report, nil)
}

// one does the operation of one hive among several. Its events carry its alias,
// and its drawing ends when it does.
func (a *app) one(ctx context.Context, alias string, op operations.Operation, progress ui.Progress) ui.HiveResult {
	over := false
	report, err := a.ask(ctx, op, func(e operations.Event) {
		if e.Hive == "" {
			e.Hive = alias
		}
		if e.Type == operations.EventPhase {
			over = ended(e.Phase)
		}
		progress.Handle(e)
	})
	if err == nil {
		if !over {
			progress.Handle(operations.Event{Type: operations.EventPhase, Hive: alias, Phase: operations.PhaseDone})
		}
		return ui.HiveResult{Alias: alias, Report: report}
	}
	e := classify(err)
	if !over {
		phase := operations.PhaseFailed
		if e.Code == operations.CodeUnreachable {
			phase = operations.PhaseUnreachable
		}
		progress.Handle(operations.Event{Type: operations.EventPhase, Hive: alias, Phase: phase, Error: e})
	}
	return ui.HiveResult{Alias: alias, Error: e}
}

func ended(p operations.Phase) bool {
	return p == operations.PhaseDone || p == operations.PhaseFailed || p == operations.PhaseUnreachable
}
