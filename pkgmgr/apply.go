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

	"github.com/rbee-keeper/rbee/pkgmgr/internal/probe"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/text"
	"github.com/rbee-keeper/rbee/pkgmgr/plan"
	"github.com/rbee-keeper/rbee/pkgmgr/uv"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// DefaultLockWait is how long a run waits for a hive that another one works on.
const DefaultLockWait = 30 * time.Second

// ApplyOptions say how a plan is carried out. The zero value is the default.
type ApplyOptions struct {
	// LockWait is how long to wait for a hive's lock: 0 is [DefaultLockWait],
	// a negative value does not wait.
	LockWait time.Duration
}

// Apply carries out a plan that [Fleet.Plan] made, hives in parallel, over the
// connections that [Fleet.Read] opened. The result has one entry for each hive
// of the fleet, sorted by alias. What fails on one hive does not stop another.
//
// When ctx ends, hives stop after cleaning up what they were in the middle of;
// what was done before is in the result. Holds that an upgrade has ended are gone
// from the lock, in memory.
//
// A plan that another Fleet made, or that was saved as JSON, can be applied too, unless
// it was made by a newer rbee for which [plan.Plan.Readable] returns an error. A hive
// whose state digest is another one than when the plan was made is refused with
// [operations.ReasonStateChanged].
func (f *Fleet) Apply(ctx context.Context, p *plan.Plan, o ApplyOptions) []operations.HiveReport {
	if p == nil {
		p = plan.New(nil)
	}
	unreadable := p.Readable("the plan", plan.Schema)
	if unreadable == nil && slices.ContainsFunc(f.members, func(m *member) bool { return m.err == nil && changed(m, p.Hive(m.hive.Alias)) == nil }) {
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
		m.took += time.Since(start)
		reports[i].DurationSeconds = seconds(m.took)
		f.ended(m, reports[i])
	}, func(i int, err error) {
		m := f.members[i]
		status := operations.HiveFailed
		if errors.Is(err, context.Canceled) {
			status = operations.HiveCanceled
		}
		reports[i] = operations.HiveReport{
			Alias: m.hive.Alias, Status: status, Workers: installedTypes(m.state), DurationSeconds: seconds(m.took),
			Error: hiveError(m.hive, operations.CodeFailed, err),
		}
		if m.err != nil && status != operations.HiveCanceled {
			reports[i].Status, reports[i].Error = operations.HiveUnreachable, m.err
		}
	})
	if unreadable == nil {
		f.endPins(p)
	}
	return append(reports, f.strangers(p)...)
}

// strangers returns a failed report for each hive that a plan has steps for and that is not
// one of the fleet.
func (f *Fleet) strangers(p *plan.Plan) []operations.HiveReport {
	var reports []operations.HiveReport
	for _, s := range p.Steps {
		known := slices.ContainsFunc(f.members, func(m *member) bool { return m.hive.Alias == s.Hive }) ||
			slices.ContainsFunc(reports, func(r operations.HiveReport) bool { return r.Alias == s.Hive })
		if known {
			continue
		}
		e := &operations.Error{
			Code: operations.CodeNotFound, Reason: operations.ReasonUnknownHive, Subject: operations.SubjectHive.Named(s.Hive), Hive: s.Hive,
			Message: "cannot apply the plan: the fleet has no such hive",
		}
		r := operations.HiveReport{Alias: s.Hive, Status: operations.HiveFailed, Workers: []string{}, Error: e}
		for _, step := range p.StepsOf(s.Hive) {
			r.Failed = append(r.Failed, operations.FailedStep{Step: step, Error: e})
		}
		reports = append(reports, r)
	}
	return reports
}

// endPins removes the pins that an upgrade has ended.
func (f *Fleet) endPins(p *plan.Plan) {
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

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

func (f *Fleet) ended(m *member, r operations.HiveReport) {
	e := operations.Event{Type: operations.EventPhase, Hive: m.hive.Alias, Phase: operations.PhaseDone, Error: r.Error}
	switch r.Status {
	case operations.HiveUnreachable:
		return // said when it was read
	case operations.HiveFailed, operations.HiveLocked, operations.HiveCanceled:
		e.Phase = operations.PhaseFailed
	}
	f.emit(e)
}

func hiveError(h config.Hive, code operations.Code, err error) *operations.Error {
	reason, subject := operations.ReasonOf(err), operations.SubjectOf(err)
	switch {
	case errors.Is(err, context.Canceled):
		code, reason = operations.CodeCanceled, operations.ReasonCanceled
	case code == operations.CodeUnreachable && reason == operations.ReasonFailed:
		reason = operations.ConnectionReason(err)
	}
	if subject == (operations.Subject{}) {
		subject = operations.SubjectHive.Named(h.Alias)
	}
	e := &operations.Error{Code: code, Reason: reason, Subject: subject, Hive: h.Alias, Message: err.Error(), Err: err}
	var run *uv.Error
	if errors.As(err, &run) {
		e.Detail = run.Output
	}
	return e
}

// stepError returns the error of a step that failed. The subject is the worker of the
// step, if it has one and err has no subject of its own.
func stepError(h config.Hive, step operations.Step, err error) *operations.Error {
	e := hiveError(h, operations.CodeFailed, err)
	if step.Worker != "" && e.Subject.Kind == operations.SubjectHive {
		e.Subject = operations.SubjectWorker.Named(step.Worker)
	}
	return e
}

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
	if err := changed(m, target); err != nil {
		report.Status, report.Error = operations.HiveFailed, err
		for _, step := range steps {
			report.Failed = append(report.Failed, operations.FailedStep{Step: step, Error: err})
		}
		return report
	}
	f.phase(m, operations.PhaseApplying, "")
	s := &session{fleet: f, member: m, plan: p, target: target, steps: steps, opts: o}
	s.run(ctx)
	s.fill(&report)
	return report
}

// changed returns an error if a hive is not as it was when the plan was made.
func changed(m *member, target *plan.Hive) *operations.Error {
	refuse := func(message string) *operations.Error {
		return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonStateChanged, Subject: operations.SubjectHive.Named(m.hive.Alias), Hive: m.hive.Alias, Message: message}
	}
	switch {
	case target == nil:
		return refuse("cannot apply the plan: it does not contain the state of this hive")
	case m.state == nil:
		return refuse("cannot apply the plan: the hive has not been read")
	case plan.StateDigest(m.state) != target.State:
		return refuse("cannot apply the plan: the hive has changed since the plan was made; make a new plan")
	}
	return nil
}

func installedTypes(s *wire.State) []string {
	types := []string{}
	if s != nil {
		for _, w := range s.Workers {
			types = append(types, w.Type)
		}
	}
	return types
}

// session is one run of `rbee hive apply` on one hive.
type session struct {
	fleet  *Fleet
	member *member
	plan   *plan.Plan
	target *plan.Hive
	steps  []operations.Step
	opts   ApplyOptions

	failed  map[int]error  // by index of steps
	details map[int]string // the output of programs that steps failed with
	done    map[int]bool
	result  *wire.Result
	err     error // why the run as a whole did not work
}

// carriesBinary tells whether a step brings another rbee to the hive.
func carriesBinary(s operations.Step) bool {
	return s.Action == operations.ActionInstallHive || s.Action == operations.ActionUpdateHive
}

func (s *session) run(ctx context.Context) {
	s.failed, s.done = map[int]error{}, map[int]bool{}
	home := s.member.state.Home
	exe := path.Join(home, wire.Binary)
	var install *wire.Installed
	if carriesBinary(s.steps[0]) {
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

// fail notes that a step did not work, and says so.
func (s *session) fail(i int, err error) {
	s.failed[i] = err
	s.event(i, operations.StepFailed, stepError(s.member.hive, s.steps[i], err), "")
}

func (s *session) event(i int, status operations.StepStatus, e *operations.Error, note string) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventStep, Hive: s.member.hive.Alias, Step: &step, StepStatus: status, Error: e, Message: note,
	})
}

func (s *session) progress(i int, sent, total int64) {
	step := s.steps[i]
	s.fleet.emit(operations.Event{
		Type: operations.EventProgress, Hive: s.member.hive.Alias, Step: &step, StepPhase: operations.StepPhaseSend, Bytes: sent, Total: total,
	})
}

// upload brings the binary beside its target. The machine itself puts it in
// place, under its lock, once it is known to run there.
func (s *session) upload(ctx context.Context, home string) (exe string, install *wire.Installed, err error) {
	s.event(0, operations.StepStarted, nil, "")
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
		return "", nil, fmt.Errorf("packing the rbee binary: %w", err)
	}
	release, err := s.fleet.uploadSlot(ctx)
	if err != nil {
		return "", nil, err
	}
	defer release()
	exe = path.Join(home, wire.BinDir, ".rbee-"+binary.SHA256[:12]+"-"+rand.Text()[:8])
	body := s.counted(0, bytes.NewReader(packed.Gz), int64(len(packed.Gz)))
	if err := s.member.host.Put(ctx, exe, 0o755, body, packed.Sum); err != nil {
		sweep(ctx, s.member, false)
		return "", nil, fmt.Errorf("sending rbee: %w", err)
	}
	return exe, &wire.Installed{
		Version: cmp.Or(binary.Version, s.fleet.opts.Version), SHA256: binary.SHA256, Size: binary.Size,
		MadeDirs: s.member.state.MissingDirs,
	}, nil
}

// uploadSlot waits for a turn to send bytes.
func (f *Fleet) uploadSlot(ctx context.Context) (release func(), err error) {
	select {
	case f.uploads <- struct{}{}:
		return func() { <-f.uploads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// request turns the steps of a plan into those of the machine. index tells for
// each of them which step of the plan it stands for.
func (s *session) request(install *wire.Installed) (req *wire.Request, index []int) {
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
			s.done[i] = true // settings travel with the request itself
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
				Code: operations.CodeUnsupported, Reason: operations.ReasonUnsupported, Message: fmt.Sprintf("cannot apply the plan: this rbee does not know the action %q", step.Action),
			})
			continue
		}
		ws.Expect = s.expected(step)
		req.Steps = append(req.Steps, ws)
		index = append(index, i)
	}
	return req, index
}

// installOf returns what a step installs.
func (s *session) installOf(step operations.Step) (*plan.Install, error) {
	install := s.plan.Installs[step.Digest]
	if install == nil {
		return nil, fmt.Errorf("the plan does not contain the installation %q of %s", step.Digest, step.Worker)
	}
	return install, nil
}

func (s *session) workerInstall(step operations.Step, install *plan.Install) *wire.WorkerInstall {
	return &wire.WorkerInstall{
		Type: step.Worker, Version: install.Version, Requested: s.target.Worker(step.Worker).Requested, Variant: install.Variant,
		Force:  s.target.Worker(step.Worker).Reinstall,
		SHA256: install.SHA256, Steps: s.fleet.sent(s.member.state, install), Entry: install.Entry,
		Launch: install.Launch, LaunchDigest: install.Launch.Digest(), Verify: install.Verify,
	}
}

// expected returns the SHA-256 of what a step changes, as it was when the hive was read;
// nil where the step changes nothing that is installed, or where that is not known.
func (s *session) expected(step operations.Step) *string {
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
		if state.Schema == 0 { // a shell has read the machine, which knows no digests
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

// removed returns the state of a machine after rbee has been removed from it.
func removed(s *wire.State) *wire.State {
	now := *s
	now.Schema, now.Rbee, now.PreviousRbee, now.Broken, now.Settings, now.Daemon, now.Workers, now.Wheels = 0, nil, nil, "", nil, wire.Daemon{}, nil, nil
	return &now
}

// apply runs `rbee hive apply` and follows it to its result.
func (s *session) apply(ctx context.Context, exe string, req *wire.Request, index []int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inR, inW := io.Pipe()
	out := newMailbox()
	var stderr tailWriter
	ended := make(chan error, 1)
	go func() {
		err := s.member.host.Run(ctx, []string{exe, "hive", "apply"}, inR, out, &stderr)
		_ = inR.CloseWithError(io.ErrClosedPipe)
		out.close()
		ended <- err
	}()
	talkErr := s.talk(ctx, inW, wire.NewReader(out), req, index)
	out.discard()
	_ = inW.Close()
	runErr := <-ended
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
		return fmt.Errorf("running rbee on the machine: %w%s", runErr, text.After(": ", stderr.String()))
	default:
		return fmt.Errorf("rbee on the machine ended without a result: %w%s", talkErr, text.After(": ", stderr.String()))
	}
}

// talk sends the request, answers what the machine asks for, and returns when
// the result is there or the stream ends.
func (s *session) talk(ctx context.Context, in io.Writer, out *wire.Reader, req *wire.Request, index []int) error {
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
			s.finish(m.Result, index)
			return nil
		case m.Waiting != nil:
			s.fleet.phase(s.member, operations.PhaseWaiting, heldBy(m.Waiting))
		case m.Step != nil && known(m.Step.Index, index):
			s.note(index[m.Step.Index], m.Step)
		case m.Progress != nil && known(m.Progress.Index, index):
			s.remoteProgress(index[m.Progress.Index], m.Progress)
		case m.Need != nil && known(m.Need.Index, index):
			if err := s.send(ctx, in, index[m.Need.Index], m.Need.SHA256); err != nil {
				return err
			}
		}
	}
}

func known(i int, index []int) bool { return i >= 0 && i < len(index) }

func heldBy(w *wire.Waiting) string {
	return fmt.Sprintf("locked by %s since %s", cmp.Or(w.Holder, "another run"), w.Since.Local().Format(time.DateTime))
}

// note takes in that a step began or ended.
func (s *session) note(i int, n *wire.StepNote) {
	switch {
	case n.Error != "":
		err := s.failed[i] // why nothing could be sent, if that is what the machine complains of
		if err == nil {
			err = n.Cause.Error(n.Error)
		}
		s.fail(i, err)
	case n.Done:
		s.done[i] = true
		s.event(i, operations.StepDone, nil, n.Note)
	case !carriesBinary(s.steps[i]): // that one began with the upload
		s.event(i, operations.StepStarted, nil, n.Note)
	}
}

// finish takes in the result.
func (s *session) finish(r *wire.Result, index []int) {
	s.result = r
	for wi, text := range r.Errors {
		if !known(wi, index) {
			break
		}
		i := index[wi]
		if detail := r.Details[wi]; detail != "" {
			if s.details == nil {
				s.details = map[int]string{}
			}
			s.details[i] = detail
		}
		switch {
		case text == "":
			s.done[i] = true
		case s.failed[i] == nil:
			s.failed[i] = r.CauseOf(wi).Error(text)
		}
	}
}

// fill writes what came of the session into the hive's report.
func (s *session) fill(r *operations.HiveReport) {
	h := s.member.hive
	if s.result != nil && s.result.State != nil {
		probe.Normalize(s.result.State)
		s.member.state = s.result.State
		r.Workers = installedTypes(s.member.state)
	}
	r.Status = operations.HiveUpdated
	stored := s.err == nil && s.result != nil && s.result.Locked == nil // the settings that came with the request
	for i, step := range s.steps {
		err := s.failed[i]
		switch {
		case err == nil && s.done[i] && (stored || !settingsOnly(step)):
			r.Steps = append(r.Steps, step)
			switch step.Action {
			case operations.ActionInstallHive:
				r.Status = operations.HiveInstalled
			case operations.ActionRemoveHive:
				r.Status, r.Workers = operations.HiveUninstalled, []string{}
				s.member.state = removed(s.member.state)
			}
		default:
			e := stepError(h, step, cmp.Or[error](err, errNotBegun))
			if err == nil && s.err != nil {
				e = hiveError(h, operations.CodeFailed, s.err)
			}
			e.Detail = cmp.Or(s.details[i], e.Detail)
			r.Failed = append(r.Failed, operations.FailedStep{Step: step, Error: e})
		}
	}
	switch {
	case s.result != nil && s.result.Locked != nil:
		r.Status = operations.HiveLocked
		r.Error = &operations.Error{
			Code: operations.CodeLocked, Reason: operations.ReasonLocked, Subject: operations.SubjectHive.Named(h.Alias), Hive: h.Alias,
			Message: "another run works on it: " + heldBy(s.result.Locked),
		}
		r.Steps, r.Failed = nil, nil
	case s.err != nil && errors.Is(s.err, context.Canceled):
		r.Status, r.Error = operations.HiveCanceled, hiveError(h, operations.CodeCanceled, s.err)
	case s.err != nil:
		r.Status, r.Error = operations.HiveFailed, hiveError(h, operations.CodeFailed, s.err)
	case len(r.Failed) > 0:
		r.Status, r.Error = operations.HiveFailed, r.Failed[0].Error
	}
}

func settingsOnly(s operations.Step) bool {
	return s.Action == operations.ActionConfigureHive
}

var errNotBegun = &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotBegun, Message: "not begun"}
