package pkgmgr

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/probe"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// DefaultLockWait limits how long a run waits for a hive that another run has locked.
const DefaultLockWait = 30 * time.Second

// ApplyOptions are the options of [Fleet.Apply]. The zero value means the defaults.
type ApplyOptions struct {
	// LockWait is the time to wait for the lock of a hive. 0 means [DefaultLockWait];
	// a negative value means do not wait.
	LockWait time.Duration
}

// Apply applies a plan from [Fleet.Plan] to all hives in parallel, over the connections
// that [Fleet.Read] opened. The result has one entry for each hive of the fleet, sorted
// by alias. A failure on one hive does not stop the others.
//
// If ctx is canceled, each hive cleans up the current step and stops. The result contains
// the completed steps. Apply also removes the pins of upgraded workers from the lockfile, in
// memory.
//
// Apply accepts plans that another Fleet made or that were saved as JSON. A plan that only
// a newer rbee can read fails with [operations.ReasonNewerFile]. A hive whose state digest
// changed since the plan was made fails with [operations.ReasonStateChanged].
func (f *Fleet) Apply(ctx context.Context, p *plan.Plan, o ApplyOptions) []operations.HiveReport {
	if p == nil {
		p = plan.New(nil)
	}
	unreadable := p.CheckReadable("the plan", plan.Schema)
	if unreadable == nil && slices.ContainsFunc(f.members, func(m *member) bool { return m.err == nil && checkUnchanged(m, p.Hive(m.hive.Alias)) == nil }) {
		f.opts.Lock.Merge(p.Lock)
	}
	reports := make([]operations.HiveReport, len(f.members))
	forEach(ctx, len(f.members), f.opts.Parallel, func(ctx context.Context, i int) {
		m := f.members[i]
		start := time.Now()
		if unreadable != nil {
			reports[i] = operations.HiveReport{
				Alias: m.hive.Alias, Status: operations.HiveFailed, Workers: installedTypes(m.state), Error: hiveError(m.hive, operations.CodeFailed, unreadable),
			}
		} else {
			reports[i] = f.applyHive(ctx, m, p, o)
		}
		m.duration += time.Since(start)
		reports[i].DurationSeconds = seconds(m.duration)
		f.emitResult(m, reports[i])
	}, func(i int, err error) {
		m := f.members[i]
		status := operations.HiveFailed
		if errors.Is(err, context.Canceled) {
			status = operations.HiveCanceled
		}
		reports[i] = operations.HiveReport{
			Alias: m.hive.Alias, Status: status, Workers: installedTypes(m.state), DurationSeconds: seconds(m.duration),
			Error: hiveError(m.hive, operations.CodeFailed, err),
		}
		if m.err != nil && status != operations.HiveCanceled {
			reports[i].Status, reports[i].Error = operations.HiveUnreachable, m.err
		}
	})
	if unreadable == nil {
		f.removePins(p)
	}
	return append(reports, f.unknownHives(p)...)
}

// unknownHives returns a failed report for each hive of the plan that has steps and is not
// in the fleet.
func (f *Fleet) unknownHives(p *plan.Plan) []operations.HiveReport {
	var reports []operations.HiveReport
	for _, s := range p.Steps {
		seen := slices.ContainsFunc(f.members, func(m *member) bool { return m.hive.Alias == s.Hive }) ||
			slices.ContainsFunc(reports, func(r operations.HiveReport) bool { return r.Alias == s.Hive })
		if seen {
			continue
		}
		e := &operations.Error{
			Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.WithName(s.Hive), Hive: s.Hive,
			Message: "cannot apply the plan: the hive is not in this fleet",
		}
		r := operations.HiveReport{Alias: s.Hive, Status: operations.HiveFailed, Workers: []string{}, Error: e}
		for _, step := range p.StepsOf(s.Hive) {
			r.FailedSteps = append(r.FailedSteps, operations.FailedStep{Step: step, Error: e})
		}
		reports = append(reports, r)
	}
	return reports
}

// removePins removes the pins of workers that were upgraded from the lockfile.
func (f *Fleet) removePins(p *plan.Plan) {
	for _, m := range f.members {
		h := p.Hive(m.hive.Alias)
		if m.state == nil || h == nil {
			continue
		}
		for _, w := range m.state.Workers {
			if want := h.Worker(w.Type); want.Unpin && want.Version == w.Version {
				f.opts.Lock.Unpin(m.hive.Alias, w.Type)
			}
		}
	}
}

// seconds returns d in seconds, rounded to milliseconds.
func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

// emitResult emits the final phase of a hive.
func (f *Fleet) emitResult(m *member, r operations.HiveReport) {
	e := operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: operations.PhaseDone, Error: r.Error}
	switch r.Status {
	case operations.HiveUnreachable:
		return // Read has emitted it
	case operations.HiveFailed, operations.HiveLocked, operations.HiveCanceled:
		e.Phase = operations.PhaseFailed
	}
	f.emit(e)
}

// applyHive applies the steps of one hive.
func (f *Fleet) applyHive(ctx context.Context, m *member, p *plan.Plan, o ApplyOptions) operations.HiveReport {
	steps := p.StepsOf(m.hive.Alias)
	report := operations.HiveReport{Alias: m.hive.Alias, Status: operations.HiveAlreadyInstalled, Workers: installedTypes(m.state)}
	switch {
	case m.err != nil:
		report.Status, report.Error = operations.HiveUnreachable, m.err
		if m.err.Code == operations.CodeCanceled {
			report.Status = operations.HiveCanceled
		}
		return report
	case len(steps) == 0:
		if m.state != nil && m.state.Rbee == nil {
			report.Status = operations.HiveNotInstalled
		}
		return report
	}
	target := p.Hive(m.hive.Alias)
	if err := checkUnchanged(m, target); err != nil {
		report.Status, report.Error = operations.HiveFailed, err
		for _, step := range steps {
			report.FailedSteps = append(report.FailedSteps, operations.FailedStep{Step: step, Error: err})
		}
		return report
	}
	f.emitPhase(m, operations.PhaseApplying, "")
	s := &stepRunner{fleet: f, member: m, plan: p, target: target, steps: steps, opts: o}
	s.run(ctx)
	s.fillReport(&report)
	return report
}

// installedTypes returns the types of the installed workers; never nil.
func installedTypes(s *wire.State) []string {
	types := []string{}
	if s != nil {
		for _, w := range s.Workers {
			types = append(types, w.Type)
		}
	}
	return types
}

// stepRunner applies the steps of a plan to one hive, with one run of `rbee hive apply`.
type stepRunner struct {
	fleet  *Fleet
	member *member
	plan   *plan.Plan
	target *plan.Hive
	steps  []operations.Step
	opts   ApplyOptions

	failed  map[int]error  // by index in steps
	details map[int]string // output of the program that failed, by index in steps
	done    map[int]bool   // by index in steps
	result  *wire.Result
	err     error // the error of the complete run
}

// installsRbee reports whether a step installs or updates rbee.
func installsRbee(s operations.Step) bool {
	return s.Action == operations.ActionInstallHive || s.Action == operations.ActionUpdateHive
}

// run uploads rbee if the first step needs it, and applies the steps.
func (s *stepRunner) run(ctx context.Context) {
	s.failed, s.done = map[int]error{}, map[int]bool{}
	home := s.member.state.Home
	exe := path.Join(home, wire.Binary)
	var install *wire.BinaryRecord
	if installsRbee(s.steps[0]) {
		var err error
		if exe, install, err = s.upload(ctx, home); err != nil {
			s.fail(0, err)
			s.err = err
			return
		}
	}
	req, index := s.request(install)
	if err := s.apply(ctx, exe, req, index); err != nil {
		s.err = err
	}
}

// fail records the error of a step and emits it.
func (s *stepRunner) fail(i int, err error) {
	s.failed[i] = err
	s.emitStep(i, operations.StepFailed, stepError(s.member.hive, s.steps[i], err), "")
}

func (s *stepRunner) emitStep(i int, status operations.StepStatus, e *operations.Error, note string) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventStep, Hive: s.member.hive.Alias, Step: &step, StepStatus: status, Error: e, Message: note,
	})
}

func (s *stepRunner) emitSent(i int, sent, total int64) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventProgress, Hive: s.member.hive.Alias, Step: &step, StepPhase: operations.StepPhaseSend, Bytes: sent, Total: total,
	})
}

// upload sends the rbee binary to a temporary file next to its target. The uploaded binary
// then runs the steps. The first step installs it, under the lock of the hive.
func (s *stepRunner) upload(ctx context.Context, home string) (exe string, install *wire.BinaryRecord, err error) {
	s.emitStep(0, operations.StepStarted, nil, "")
	if s.fleet.opts.Binaries == nil {
		return "", nil, errNoBinaries
	}
	binary, err := s.fleet.opts.Binaries.Binary(ctx, s.member.state.Platform, true)
	if err != nil {
		return "", nil, err
	}
	if want := s.steps[0].Digest; want != "" && binary.SHA256 != want {
		return "", nil, &buildMismatchError{Version: s.steps[0].Version, Want: want, Got: binary.SHA256}
	}
	packed, err := s.fleet.packed.Get(binary)
	if err != nil {
		return "", nil, fmt.Errorf("cannot compress the rbee binary: %w", err)
	}
	release, err := s.fleet.acquireUploadSlot(ctx)
	if err != nil {
		return "", nil, err
	}
	defer release()
	exe = path.Join(home, wire.BinDir, ".rbee-"+binary.SHA256[:12]+"-"+rand.Text()[:8])
	body := s.countSent(0, bytes.NewReader(packed.Gz), int64(len(packed.Gz)))
	if err := s.member.host.Put(ctx, exe, 0o755, body, packed.Sum); err != nil {
		cleanUp(ctx, s.member, false)
		return "", nil, fmt.Errorf("cannot send rbee: %w", err)
	}
	return exe, &wire.BinaryRecord{
		Version: cmp.Or(binary.Version, s.fleet.opts.Version), SHA256: binary.SHA256, Size: binary.Size,
		MadeDirs: s.member.state.MissingDirs,
	}, nil
}

// acquireUploadSlot waits until fewer than [Options.Uploads] uploads are running. The
// caller calls release after the upload.
func (f *Fleet) acquireUploadSlot(ctx context.Context) (release func(), err error) {
	select {
	case f.uploads <- struct{}{}:
		return func() { <-f.uploads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// request returns the request for `rbee hive apply`. index maps the steps of the request
// to steps of the plan.
func (s *stepRunner) request(install *wire.BinaryRecord) (req *wire.Request, index []int) {
	wait := s.opts.LockWait
	if wait == 0 {
		wait = DefaultLockWait
	}
	req = &wire.Request{Schema: wire.Schema, MinReader: wire.MinReader, Owner: s.fleet.opts.Owner, LockWait: max(wait, 0)}
	req.Settings = s.target.Settings
	for i, step := range s.steps {
		ws := wire.Step{}
		switch step.Action {
		case operations.ActionConfigureHive:
			s.done[i] = true // the settings are part of the request
			continue
		case operations.ActionInstallHive, operations.ActionUpdateHive:
			ws.Action, ws.Install = wire.ActionInstallSelf, install
		case operations.ActionInstallWorker, operations.ActionUpdateWorker:
			install, err := s.installOf(step)
			if err != nil {
				s.fail(i, err)
				continue
			}
			ws.Action, ws.Worker = wire.ActionInstallWorker, s.workerInstall(step, install)
		case operations.ActionRemoveWorker:
			ws.Action, ws.Worker = wire.ActionRemoveWorker, &wire.WorkerInstall{Type: step.Worker}
		case operations.ActionRollbackHive:
			ws.Action = wire.ActionRollbackSelf
		case operations.ActionRollbackWorker:
			ws.Action, ws.Worker = wire.ActionRollback, &wire.WorkerInstall{Type: step.Worker}
		case operations.ActionStartHive:
			ws.Action = wire.ActionStart
		case operations.ActionStopHive:
			ws.Action = wire.ActionStop
		case operations.ActionRemoveHive:
			ws.Action, req.Settings = wire.ActionRemoveSelf, nil
		default:
			s.fail(i, &operations.Error{
				Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("cannot apply the plan: unknown action %q", step.Action),
			})
			continue
		}
		ws.Expect = s.expectedDigest(step)
		req.Steps = append(req.Steps, ws)
		index = append(index, i)
	}
	return req, index
}

// installOf returns the installation that a step refers to.
func (s *stepRunner) installOf(step operations.Step) (*plan.Install, error) {
	install := s.plan.Installs[step.Digest]
	if install == nil {
		return nil, fmt.Errorf("cannot install %s: the plan does not contain the installation %q", step.Worker, step.Digest)
	}
	return install, nil
}

// workerInstall returns an installation in the form that is sent to the hive.
func (s *stepRunner) workerInstall(step operations.Step, install *plan.Install) *wire.WorkerInstall {
	return &wire.WorkerInstall{
		Type: step.Worker, Version: install.Version, Requested: s.target.Worker(step.Worker).Requested, Variant: install.Variant,
		Force:  s.target.Worker(step.Worker).Reinstall,
		SHA256: install.SHA256, Steps: s.fleet.hiveSteps(s.member.state, install), Entry: install.Entry,
		Launch: install.Launch, LaunchDigest: install.Launch.Digest(), Verify: install.Verify,
	}
}

// expectedDigest returns the SHA-256 of the component that a step replaces, as it was when
// the hive was read; "" if the component was not installed. It returns nil if the digest
// is not known, or if the step replaces no component.
func (s *stepRunner) expectedDigest(step operations.Step) *string {
	state, have := s.member.state, ""
	switch step.Action {
	case operations.ActionInstallHive, operations.ActionUpdateHive:
		if state.Broken != "" || state.Rbee != nil && state.Rbee.SHA256 == "" {
			return nil
		}
		if state.Rbee != nil {
			have = state.Rbee.SHA256
		}
	case operations.ActionInstallWorker, operations.ActionUpdateWorker, operations.ActionRemoveWorker, operations.ActionRollbackWorker:
		if state.Schema == 0 { // read by a shell script, which reports no digests
			return nil
		}
		for _, w := range state.Workers {
			if w.Type == step.Worker {
				have = w.SHA256
			}
		}
	default:
		return nil
	}
	return &have
}

// withoutRbee returns the state of a machine after rbee is removed.
func withoutRbee(s *wire.State) *wire.State {
	out := *s
	out.Schema, out.Rbee, out.PreviousRbee, out.Broken, out.Settings, out.Daemon, out.Workers, out.Wheels = 0, nil, nil, "", nil, wire.Daemon{}, nil, nil
	return &out
}

// apply runs `rbee hive apply` and waits for its result.
func (s *stepRunner) apply(ctx context.Context, exe string, req *wire.Request, index []int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inR, inW := io.Pipe()
	out := newPipeBuffer()
	var stderr tailWriter
	runDone := make(chan error, 1)
	go func() {
		err := s.member.host.Run(ctx, []string{exe, "hive", "apply"}, inR, out, &stderr)
		_ = inR.CloseWithError(io.ErrClosedPipe)
		out.close()
		runDone <- err
	}()
	exchangeErr := s.exchange(ctx, inW, wire.NewReader(out), req, index)
	out.discard()
	_ = inW.Close()
	runErr := <-runDone
	switch {
	case s.result != nil && s.result.Error != "":
		return s.result.Cause.Error(s.result.Error)
	case s.result != nil && len(s.done) == len(s.steps):
		return nil
	case s.result != nil:
		return ctx.Err()
	case ctx.Err() != nil:
		return ctx.Err()
	case runErr != nil:
		return fmt.Errorf("`rbee hive apply` failed on the machine: %w%s", runErr, text.WithPrefix(": ", stderr.String()))
	default:
		return fmt.Errorf("`rbee hive apply` exited without a result: %w%s", exchangeErr, text.WithPrefix(": ", stderr.String()))
	}
}

// exchange sends the request and handles the messages of the machine until the result
// arrives or the stream ends.
func (s *stepRunner) exchange(ctx context.Context, in io.Writer, out *wire.Reader, req *wire.Request, index []int) error {
	if err := wire.WriteRequest(in, req); err != nil {
		return err
	}
	for {
		var m wire.Message
		if err := out.Read(&m); err != nil {
			return err
		}
		switch {
		case m.Result != nil:
			s.handleResult(m.Result, index)
			return nil
		case m.Waiting != nil:
			s.fleet.emitPhase(s.member, operations.PhaseWaiting, lockedBy(m.Waiting))
		case m.Step != nil && validIndex(m.Step.Index, index):
			s.handleStep(index[m.Step.Index], m.Step)
		case m.Progress != nil && validIndex(m.Progress.Index, index):
			s.emitProgress(index[m.Progress.Index], m.Progress)
		case m.Need != nil && validIndex(m.Need.Index, index):
			if err := s.send(ctx, in, index[m.Need.Index], m.Need.SHA256); err != nil {
				return err
			}
		}
	}
}

// validIndex reports whether i is an index of a step in the request.
func validIndex(i int, index []int) bool { return i >= 0 && i < len(index) }

// lockedBy formats the holder of the lock of a hive.
func lockedBy(w *wire.LockInfo) string {
	return fmt.Sprintf("locked by %s since %s", cmp.Or(w.Holder, "another run"), w.Since.Local().Format(time.DateTime))
}

// handleStep handles a message that step i started, completed or failed.
func (s *stepRunner) handleStep(i int, n *wire.StepStatus) {
	switch {
	case n.Error != "":
		err := s.failed[i] // the cause, if this machine could not send an artifact
		if err == nil {
			err = n.Cause.Error(n.Error)
		}
		s.fail(i, err)
	case n.Done:
		s.done[i] = true
		s.emitStep(i, operations.StepDone, nil, n.Note)
	case !installsRbee(s.steps[i]): // upload has already emitted the start of those steps
		s.emitStep(i, operations.StepStarted, nil, n.Note)
	}
}

// handleResult stores the result and the errors of the steps. index maps the steps of the
// request to steps of the plan.
func (s *stepRunner) handleResult(r *wire.Result, index []int) {
	s.result = r
	for ri, text := range r.Errors {
		if !validIndex(ri, index) {
			break
		}
		i := index[ri]
		if detail := r.Details[ri]; detail != "" {
			if s.details == nil {
				s.details = map[int]string{}
			}
			s.details[i] = detail
		}
		switch {
		case text == "":
			s.done[i] = true
		case s.failed[i] == nil:
			s.failed[i] = r.CauseOf(ri).Error(text)
		}
	}
}

// fillReport sets the status, the steps and the errors of the hive's report.
func (s *stepRunner) fillReport(r *operations.HiveReport) {
	h := s.member.hive
	if s.result != nil && s.result.State != nil {
		probe.Normalize(s.result.State)
		s.member.state = s.result.State
		r.Workers = installedTypes(s.member.state)
	}
	r.Status = operations.HiveUpdated
	settingsStored := s.err == nil && s.result != nil && s.result.Locked == nil
	for i, step := range s.steps {
		err := s.failed[i]
		switch {
		case err == nil && s.done[i] && (settingsStored || !settingsOnly(step)):
			r.Steps = append(r.Steps, step)
			switch step.Action {
			case operations.ActionInstallHive:
				r.Status = operations.HiveInstalled
			case operations.ActionRemoveHive:
				r.Status, r.Workers = operations.HiveUninstalled, []string{}
				s.member.state = withoutRbee(s.member.state)
			}
		default:
			e := stepError(h, step, cmp.Or[error](err, errNotStarted))
			if err == nil && s.err != nil {
				e = hiveError(h, operations.CodeFailed, s.err)
			}
			e.Detail = cmp.Or(s.details[i], e.Detail)
			r.FailedSteps = append(r.FailedSteps, operations.FailedStep{Step: step, Error: e})
		}
	}
	switch {
	case s.result != nil && s.result.Locked != nil:
		r.Status = operations.HiveLocked
		r.Error = &operations.Error{
			Code: operations.CodeLocked, Reason: operations.ReasonLocked, Subject: operations.SubjectHive.WithName(h.Alias), Hive: h.Alias,
			Message: "another run is in progress: " + lockedBy(s.result.Locked),
		}
		r.Steps, r.FailedSteps = nil, nil
	case s.err != nil && errors.Is(s.err, context.Canceled):
		r.Status, r.Error = operations.HiveCanceled, hiveError(h, operations.CodeCanceled, s.err)
	case s.err != nil:
		r.Status, r.Error = operations.HiveFailed, hiveError(h, operations.CodeFailed, s.err)
	case len(r.FailedSteps) > 0:
		r.Status, r.Error = operations.HiveFailed, r.FailedSteps[0].Error
	}
}

// settingsOnly reports whether a step only changes the settings of a hive.
func settingsOnly(s operations.Step) bool {
	return s.Action == operations.ActionConfigureHive
}
