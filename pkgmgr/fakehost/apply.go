package fakehost

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// uploadPrefix is the name prefix of files that match [wire.UploadGlob].
const uploadPrefix = ".rbee-"

// errDisconnected is the error of a run whose stdin was closed.
var errDisconnected = errors.New("canceled: the other side closed the connection")

// run is a run of `rbee hive apply`.
type run struct {
	machine *Machine
	exe     string
	in      io.Reader
	out     *wire.Writer
	req     *wire.Request
}

// apply implements `rbee hive apply`. The end of stdin cancels the run. apply returns an error
// if the request is invalid or the run was canceled.
func (m *Machine) apply(ctx context.Context, exe string, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer m.removeUpload(exe)
	r := &run{machine: m, exe: exe, in: watchStdin(ctx, cancel, stdin), out: wire.NewWriter(stdout)}
	var err error
	if r.req, err = wire.ReadRequest(r.in); err == nil {
		err = r.check()
	}
	if err != nil {
		return &exitError{1, errors.Join(err, r.out.Write(wire.Message{Result: &wire.Result{Error: err.Error(), Cause: wire.CauseOf(err)}}))}
	}
	result := r.do(ctx)
	cause := context.Cause(ctx)
	if err := errors.Join(cause, r.out.Write(wire.Message{Result: result})); err != nil {
		return &exitError{1, err}
	}
	return nil
}

// watchStdin forwards stdin to the returned reader and calls cancel at the end of stdin.
func watchStdin(ctx context.Context, cancel context.CancelCauseFunc, stdin io.Reader) io.Reader {
	r, w := io.Pipe()
	context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
	go func() {
		_, err := io.Copy(w, stdin)
		_ = w.CloseWithError(cmp.Or(err, io.ErrUnexpectedEOF))
		cancel(errDisconnected)
	}()
	return r
}

// removeUpload removes exe if it is an uploaded binary.
func (m *Machine) removeUpload(exe string) {
	m.Edit(func(s *wire.State) {
		if path.Dir(exe) == path.Join(s.Home, wire.BinDir) && strings.HasPrefix(path.Base(exe), uploadPrefix) {
			delete(m.files, exe)
		}
	})
}

// check returns an error if the machine cannot apply the request.
func (r *run) check() error {
	if !r.req.Compatible() {
		return &operations.Error{
			Code: operations.CodeUnsupported, Reason: r.req.IncompatibleReason(),
			Message: fmt.Sprintf("the request has schema %d, this rbee supports %d", r.req.Schema, wire.Schema),
		}
	}
	if r.req.Settings != nil {
		return r.req.Settings.Validate()
	}
	return nil
}

// do acquires the lock, runs the steps and returns the result with the final state.
func (r *run) do(ctx context.Context) *wire.Result {
	result := &wire.Result{Errors: make([]string, len(r.req.Steps))}
	skipFrom := func(first int, reason string) {
		for i := first; i < len(r.req.Steps); i++ {
			result.Fail(i, "not started: "+reason, &operations.Error{Reason: operations.ReasonNotStarted})
		}
	}
	release, locked, err := r.lock(ctx)
	switch {
	case locked != nil:
		result.Locked = locked
		skipFrom(0, "locked by "+locked.Holder)
		return result
	case err != nil:
		result.Error, result.Cause = err.Error(), wire.CauseOf(err)
		skipFrom(0, err.Error())
		return result
	}
	defer release()
	if r.req.Settings != nil {
		settings := *r.req.Settings
		r.machine.Edit(func(s *wire.State) { s.Settings = &settings })
	}
	removed := false
	for i, step := range r.req.Steps {
		if ctx.Err() != nil {
			skipFrom(i, context.Cause(ctx).Error())
			break
		}
		err := r.runStep(ctx, i, step)
		removed = step.Action == wire.ActionRemoveSelf && err == nil
		if err == nil {
			continue
		}
		result.Fail(i, err.Error(), err)
		if step.Action == wire.ActionInstallSelf {
			skipFrom(i+1, "installing rbee failed")
			break
		}
	}
	if !removed {
		state := r.machine.inspect(false)
		result.State = &state
	}
	return result
}

// lock acquires the machine's lock. If another run still holds the lock after the request's
// LockWait, locked describes that run.
func (r *run) lock(ctx context.Context) (release func(), locked *wire.LockInfo, err error) {
	m := r.machine
	recordHolder := func() func() {
		m.Edit(func(*wire.State) { m.holder = wire.LockInfo{Holder: r.req.Owner, Since: time.Now()} })
		return func() { <-m.lock }
	}
	holder := wire.LockInfo{Holder: m.LockHolder, Since: time.Now()}
	if m.LockHolder == "" {
		m.Edit(func(*wire.State) {}) // creates the lock
		select {
		case m.lock <- struct{}{}:
			return recordHolder(), nil, nil
		default:
			m.Edit(func(*wire.State) { holder = m.holder })
		}
	}
	if r.req.LockWait > 0 {
		if err := r.out.Write(wire.Message{Waiting: &holder}); err != nil {
			return nil, nil, err
		}
	}
	if m.LockHolder != "" || r.req.LockWait <= 0 {
		return nil, &holder, nil
	}
	timeout := time.NewTimer(r.req.LockWait)
	defer timeout.Stop()
	select {
	case m.lock <- struct{}{}:
		return recordHolder(), nil, nil
	case <-timeout.C:
		return nil, &holder, nil
	case <-ctx.Done():
		return nil, nil, fmt.Errorf("cannot acquire the lock: %w", context.Cause(ctx))
	}
}

// runStep runs a step and reports its start and end to the client.
func (r *run) runStep(ctx context.Context, i int, step wire.Step) error {
	_ = r.out.Write(wire.Message{Step: &wire.StepStatus{Index: i}}) // optional: the result reports the outcome
	err := r.runAction(i, step)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	status := &wire.StepStatus{Index: i, Done: true}
	if err != nil {
		status.Error, status.Cause = err.Error(), wire.CauseOf(err)
	}
	_ = r.out.Write(wire.Message{Step: status})
	return err
}

// runAction performs the action of a step.
func (r *run) runAction(i int, step wire.Step) error {
	m, worker := r.machine, ""
	if step.Worker != nil {
		worker = step.Worker.Type
	}
	if m.OnStep != nil {
		if err := m.OnStep(step); err != nil {
			return err
		}
	}
	if err := m.FailStep[worker]; err != nil {
		return err
	}
	if err := step.Validate(); err != nil {
		return err
	}
	if err := r.checkExpected(&step); err != nil {
		return err
	}
	switch step.Action {
	case wire.ActionInstallSelf:
		return r.installSelf(step.Install)
	case wire.ActionInstallWorker:
		return r.installWorker(i, step.Worker)
	case wire.ActionRemoveWorker:
		m.Edit(func(s *wire.State) {
			removeWorker(s, worker)
			delete(m.previous, worker)
		})
	case wire.ActionRollback:
		return r.rollback(worker)
	case wire.ActionRollbackSelf:
		return r.rollbackSelf()
	case wire.ActionStart:
		return r.start()
	case wire.ActionStop:
		m.Edit(func(s *wire.State) { s.Daemon = wire.Daemon{} })
	case wire.ActionRemoveSelf:
		m.Edit(func(s *wire.State) {
			s.Schema, s.Rbee, s.PreviousRbee, s.Broken, s.Settings, s.Daemon, s.Workers = 0, nil, nil, "", nil, wire.Daemon{}, nil
			clear(m.files)
			clear(m.artifacts)
			clear(m.previous)
		})
	default: // rejected by Validate
	}
	return nil
}

// rollback restores the previous version of a worker.
func (r *run) rollback(worker string) (err error) {
	m := r.machine
	m.Edit(func(s *wire.State) {
		i := slices.IndexFunc(s.Workers, func(w wire.Worker) bool { return w.Type == worker && !w.Unmanaged })
		if i < 0 {
			err = fmt.Errorf("cannot roll back worker type %s: it was not installed by rbee", worker)
			return
		}
		if !m.swapPrevious(s, worker) {
			err = fmt.Errorf("cannot roll back worker type %s %s: no previous version", worker, s.Workers[i].Version)
		}
	})
	return err
}

// swapPrevious swaps the installed and the previous version of a worker. It returns false if
// the worker has no previous version. The caller holds m.mu.
func (m *Machine) swapPrevious(s *wire.State, worker string) bool {
	previous, ok := m.previous[worker]
	i := slices.IndexFunc(s.Workers, func(w wire.Worker) bool { return w.Type == worker })
	if !ok || i < 0 {
		return false
	}
	current := s.Workers[i]
	previous.Previous, current.Previous = current.Version, ""
	m.previous[worker], s.Workers[i] = current, previous
	return true
}

// installSelf installs the running rbee binary.
func (r *run) installSelf(want *wire.BinaryRecord) (err error) {
	r.machine.Edit(func(s *wire.State) {
		content, isUpload := r.machine.files[r.exe]
		sum, size := sha256.Sum256(content), int64(len(content))
		digest := hex.EncodeToString(sum[:])
		if !isUpload && s.Rbee != nil { // the installed binary is running
			digest, size = s.Rbee.SHA256, s.Rbee.Size
		}
		if digest != want.SHA256 {
			err = fmt.Errorf("the uploaded rbee has SHA-256 %s, want %s", digest, want.SHA256)
			return
		}
		installed := *want
		installed.Size, installed.InstalledAt = size, time.Now()
		if s.Rbee != nil && s.Rbee.SHA256 == digest && s.Broken == "" && !s.Rbee.InstalledAt.IsZero() {
			installed.InstalledAt = s.Rbee.InstalledAt
		}
		if s.Rbee != nil && (s.Rbee.SHA256 != digest || s.Broken != "") {
			s.PreviousRbee = s.Rbee
		}
		s.Schema, s.Rbee, s.Broken = wire.Schema, &installed, ""
	})
	return err
}

// rollbackSelf swaps the installed and the previous rbee.
func (r *run) rollbackSelf() (err error) {
	r.machine.Edit(func(s *wire.State) {
		if s.Rbee == nil || s.PreviousRbee == nil {
			err = &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonNoPreviousVersion, Subject: operations.SubjectFile.WithName(wire.PrevBinary),
				Message: "cannot roll back rbee: this machine has no previous rbee",
			}
			return
		}
		s.Rbee, s.PreviousRbee = s.PreviousRbee, s.Rbee
	})
	return err
}

// start starts the daemon unless it already runs with the installed binary on the configured
// port.
func (r *run) start() (err error) {
	r.machine.Edit(func(s *wire.State) {
		if s.Rbee == nil {
			err = errors.New("cannot start the daemon: rbee is not installed")
			return
		}
		port := config.DefaultHivePort
		if s.Settings != nil {
			port = s.Settings.HivePort
		}
		if d := s.Daemon; d.Running && d.SHA256 == s.Rbee.SHA256 && d.Port == port {
			return
		}
		s.Daemon = wire.Daemon{
			Running: true, PID: 4242, Port: port, Version: s.Rbee.Version, SHA256: s.Rbee.SHA256,
			Since: time.Now(), Supervisor: "none",
		}
	})
	return err
}

// installWorker receives the artifacts of a worker and installs the worker.
func (r *run) installWorker(i int, want *wire.WorkerInstall) error {
	digest, err := r.digest(want)
	if err != nil {
		return err
	}
	if !want.Force && r.reuse(want, digest) {
		return nil
	}
	w := wire.Worker{
		Type: want.Type, Version: want.Version, Requested: want.Requested,
		Variant: want.Variant, Launch: want.Launch, LaunchDigest: want.LaunchDigest, Verify: want.Verify, SHA256: digest, Bytes: wire.TotalSize(want.Steps), InstalledAt: time.Now(),
	}
	var content []byte
	for j := range want.Steps {
		for _, a := range want.Steps[j].Artifacts() {
			if a.URL != "" {
				continue
			}
			data, err := r.receive(i, *a)
			if err != nil {
				return err
			}
			content = append(content, data...)
			w.Bytes = int64(len(content))
		}
	}
	m := r.machine
	m.Edit(func(s *wire.State) {
		if content != nil {
			m.artifacts[want.Type] = content
		}
		for _, have := range s.Workers {
			if have.Type == w.Type && have.Version != w.Version && !have.Unmanaged {
				have.Previous = ""
				m.previous[w.Type] = have
			}
		}
		if previous := m.previous[w.Type]; previous.Version != w.Version {
			w.Previous = previous.Version
		}
		removeWorker(s, want.Type)
		s.Workers = append(s.Workers, w)
		sortWorkers(s)
	})
	return nil
}

// digest returns the SHA-256 that identifies an install.
func (r *run) digest(want *wire.WorkerInstall) (digest string, err error) {
	if want.Steps[0].Kind != wire.StepBuiltin {
		return wire.Digest(want.Steps, want.Entry), nil
	}
	r.machine.Edit(func(s *wire.State) {
		if s.Rbee == nil {
			err = errors.New("cannot install a built-in worker: rbee is not installed")
			return
		}
		digest = s.Rbee.SHA256
	})
	return digest, err
}

// reuse activates the current or previous install of a worker if it matches want and is
// undamaged, and updates its record. It returns false if neither install matches.
func (r *run) reuse(want *wire.WorkerInstall, digest string) (ok bool) {
	matches := func(w wire.Worker) bool {
		return w.Type == want.Type && w.Version == want.Version && w.SHA256 == digest && w.Corrupt == "" && !w.Unmanaged
	}
	m := r.machine
	m.Edit(func(s *wire.State) {
		if ok = slices.ContainsFunc(s.Workers, matches); !ok && matches(m.previous[want.Type]) {
			ok = m.swapPrevious(s, want.Type)
		}
		if !ok {
			return
		}
		for i := range s.Workers {
			if s.Workers[i].Type == want.Type {
				s.Workers[i].Requested, s.Workers[i].Variant, s.Workers[i].Launch, s.Workers[i].LaunchDigest, s.Workers[i].Verify = want.Requested, want.Variant, want.Launch, want.LaunchDigest, want.Verify
			}
		}
	})
	return ok
}

// receive requests an artifact and verifies its checksum.
func (r *run) receive(i int, want wire.Artifact) ([]byte, error) {
	if err := r.out.Write(wire.Message{Need: &wire.Need{Index: i, SHA256: want.SHA256}}); err != nil {
		return nil, err
	}
	blob, err := wire.NewBlobReader(r.in)
	if err != nil {
		return nil, fmt.Errorf("cannot receive the artifact: %w", err)
	}
	content, err := io.ReadAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil {
		return nil, fmt.Errorf("cannot receive the artifact: %w", err)
	}
	if sum := sha256.Sum256(content); !strings.EqualFold(hex.EncodeToString(sum[:]), want.SHA256) {
		return nil, &operations.Error{
			Code: operations.CodeFailed, Reason: operations.ReasonChecksum, Message: fmt.Sprintf("the artifact has SHA-256 %x, want %s", sum, want.SHA256),
		}
	}
	return content, nil
}

// removeWorker removes a worker type from a state.
func removeWorker(s *wire.State, workerType string) {
	s.Workers = slices.DeleteFunc(s.Workers, func(w wire.Worker) bool { return w.Type == workerType })
}

// checkExpected returns an error if the machine changed after the step was planned.
func (r *run) checkExpected(step *wire.Step) error {
	if step.Expect == nil {
		return nil
	}
	state, current, target := r.machine.State(), "", ""
	switch step.Action {
	case wire.ActionInstallSelf:
		if state.Rbee != nil {
			current = state.Rbee.SHA256
		}
		target = step.Install.SHA256
	case wire.ActionInstallWorker, wire.ActionRemoveWorker, wire.ActionRollback:
		for _, w := range state.Workers {
			if w.Type == step.Worker.Type {
				current = w.SHA256
			}
		}
		if step.Action == wire.ActionInstallWorker {
			sum, err := r.digest(step.Worker)
			if err != nil {
				return err
			}
			target = sum
		}
	default:
		return nil
	}
	return step.CheckExpected(current, target)
}
