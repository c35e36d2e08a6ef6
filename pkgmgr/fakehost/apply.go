package fakehost

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// run is one `rbee hive apply`.
type run struct {
	machine *Machine
	exe     string
	in      io.Reader
	out     *wire.Writer
	req     *wire.Request
}

func (m *Machine) apply(ctx context.Context, exe string, stdin io.Reader, stdout io.Writer) error {
	req, err := wire.ReadRequest(stdin)
	if err != nil {
		return &exitError{1, err}
	}
	r := &run{machine: m, exe: exe, in: stdin, out: wire.NewWriter(stdout), req: req}
	result := &wire.Result{}
	release, locked, err := r.lock(ctx)
	switch {
	case !req.Compatible():
		result.Error = fmt.Sprintf("the request speaks protocol %d, this rbee %d", req.Schema, wire.Schema)
	case locked != nil:
		result.Locked, result.Errors = locked, notBegun(len(req.Steps))
	case err != nil:
		result.Error = err.Error()
	default:
		result.Errors = r.steps(ctx)
	}
	if release != nil {
		defer release()
	}
	if now := m.State(); now.Rbee != nil || len(now.Workers) > 0 {
		result.State = &now
	}
	return r.out.Write(wire.Message{Result: result})
}

func notBegun(n int) []string { return slices.Repeat([]string{"not begun"}, n) }

// lock takes the machine's lock, or tells who has it.
func (r *run) lock(ctx context.Context) (release func(), locked *wire.Waiting, err error) {
	m := r.machine
	take := func() func() {
		m.Edit(func(*wire.State) { m.holder = wire.Waiting{Holder: r.req.Owner, Since: time.Now()} })
		return func() { <-m.lock }
	}
	held := wire.Waiting{Holder: m.Locked, Since: time.Now()}
	if m.Locked == "" {
		select {
		case m.lock <- struct{}{}:
			return take(), nil, nil
		default:
			m.Edit(func(*wire.State) { held = m.holder })
		}
	}
	if r.req.LockWait > 0 {
		if err := r.out.Write(wire.Message{Waiting: &held}); err != nil {
			return nil, nil, err
		}
	}
	if m.Locked != "" || r.req.LockWait <= 0 {
		return nil, &held, nil
	}
	patience := time.NewTimer(r.req.LockWait)
	defer patience.Stop()
	select {
	case m.lock <- struct{}{}:
		return take(), nil, nil
	case <-patience.C:
		return nil, &held, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// steps does all steps, and gives what came of each.
func (r *run) steps(ctx context.Context) []string {
	if r.req.Settings != nil {
		settings := *r.req.Settings
		r.machine.Edit(func(s *wire.State) { s.Settings = &settings })
	}
	results := notBegun(len(r.req.Steps))
	for i, step := range r.req.Steps {
		if ctx.Err() != nil {
			break
		}
		_ = r.out.Write(wire.Message{Step: &wire.StepNote{Index: i}}) // who reads is told by the result, too
		err := r.step(i, step)
		note := &wire.StepNote{Index: i, Done: true}
		if results[i] = ""; err != nil {
			results[i], note.Error = err.Error(), err.Error()
		}
		_ = r.out.Write(wire.Message{Step: note})
		if err != nil && step.Action == wire.ActionInstallSelf {
			break
		}
	}
	return results
}

func (r *run) step(i int, step wire.Step) error {
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
	switch step.Action {
	case wire.ActionInstallSelf:
		return r.installSelf(step.Install)
	case wire.ActionInstallWorker:
		return r.installWorker(i, step.Worker)
	case wire.ActionRemoveWorker:
		m.Edit(func(s *wire.State) { removeWorker(s, worker) })
	case wire.ActionRollback:
		return r.rollback(worker)
	case wire.ActionStart:
		return r.start()
	case wire.ActionStop:
		m.Edit(func(s *wire.State) { s.Daemon = wire.Daemon{} })
	case wire.ActionRemoveSelf:
		m.Edit(func(s *wire.State) {
			s.Schema, s.Rbee, s.Broken, s.Settings, s.Daemon, s.Workers = 0, nil, "", nil, wire.Daemon{}, nil
			clear(m.files)
			clear(m.artefacts)
		})
	default:
		return fmt.Errorf("unknown action %q", step.Action)
	}
	return nil
}

func (r *run) rollback(worker string) (err error) {
	m := r.machine
	m.Edit(func(s *wire.State) {
		before, ok := m.previous[worker]
		if !ok {
			err = fmt.Errorf("no earlier version of %s is there", worker)
			return
		}
		for i, have := range s.Workers {
			if have.Type == worker {
				before.Previous, m.previous[worker] = have.Version, have
				s.Workers[i] = before
			}
		}
	})
	return err
}

func (r *run) installSelf(want *wire.Installed) (err error) {
	if want == nil {
		return errors.New("install_self without what to install")
	}
	r.machine.Edit(func(s *wire.State) {
		content, put := r.machine.files[r.exe]
		sum := sha256.Sum256(content)
		switch {
		case !put:
			err = fmt.Errorf("%s was not uploaded", r.exe)
		case hex.EncodeToString(sum[:]) != want.SHA256:
			err = fmt.Errorf("%s has SHA-256 %x, want %s", r.exe, sum, want.SHA256)
		default:
			installed := *want
			installed.InstalledAt = time.Now()
			s.Schema, s.Rbee, s.Broken = wire.Schema, &installed, ""
			delete(r.machine.files, r.exe)
		}
	})
	return err
}

func (r *run) start() (err error) {
	r.machine.Edit(func(s *wire.State) {
		if s.Rbee == nil {
			err = errors.New("rbee is not installed")
			return
		}
		port := config.DefaultHivePort
		if s.Settings != nil {
			port = s.Settings.HivePort
		}
		s.Daemon = wire.Daemon{
			Running: true, PID: 4242, Port: port, Version: s.Rbee.Version, SHA256: s.Rbee.SHA256,
			Since: time.Now(), Supervisor: "none",
		}
	})
	return err
}

func (r *run) installWorker(i int, want *wire.WorkerInstall) error {
	if want == nil {
		return errors.New("install_worker without a worker")
	}
	if !want.Force && r.installed(want) {
		r.machine.Edit(func(s *wire.State) {
			for i := range s.Workers {
				if s.Workers[i].Type == want.Type {
					s.Workers[i].Requested, s.Workers[i].Launch, s.Workers[i].Verify = want.Requested, want.Launch, want.Verify
				}
			}
		})
		return nil
	}
	w := wire.Worker{
		Type: want.Type, Version: want.Version, Requested: want.Requested,
		Variant: want.Variant, Launch: want.Launch, Verify: want.Verify, SHA256: want.SHA256, Bytes: wire.Bytes(want.Steps), InstalledAt: time.Now(),
	}
	var content []byte
	builtin := false
	for j := range want.Steps {
		builtin = builtin || want.Steps[j].Kind == wire.StepBuiltin
		for _, a := range want.Steps[j].Artefacts() {
			if a.URL != "" {
				continue
			}
			piece, err := r.receive(i, *a)
			if err != nil {
				return err
			}
			content = append(content, piece...)
			w.Bytes = int64(len(content))
		}
	}
	r.machine.Edit(func(s *wire.State) {
		if builtin && s.Rbee != nil {
			w.SHA256 = s.Rbee.SHA256
		}
		if content != nil {
			r.machine.artefacts[want.Type] = content
		}
		for _, have := range s.Workers {
			if have.Type == w.Type && have.Version != w.Version {
				w.Previous = have.Version
				m := r.machine
				if m.previous == nil {
					m.previous = map[string]wire.Worker{}
				}
				m.previous[w.Type] = have
			}
		}
		removeWorker(s, want.Type)
		s.Workers = append(s.Workers, w)
		sortWorkers(s)
	})
	return nil
}

// installed tells whether the very thing that is wanted is there, whole.
func (r *run) installed(want *wire.WorkerInstall) bool {
	have := r.machine.State()
	return slices.ContainsFunc(have.Workers, func(w wire.Worker) bool {
		return w.Type == want.Type && w.Version == want.Version && w.SHA256 == want.SHA256 && w.Corrupt == "" && !w.Foreign
	})
}

// receive asks for an artefact and checks what arrives.
func (r *run) receive(i int, want wire.Artefact) ([]byte, error) {
	if err := r.out.Write(wire.Message{Need: &wire.Need{Index: i, SHA256: want.SHA256}}); err != nil {
		return nil, err
	}
	blob, err := wire.NewBlobReader(r.in)
	if err != nil {
		return nil, fmt.Errorf("receiving the artefact: %w", err)
	}
	content, err := io.ReadAll(blob)
	if err = errors.Join(err, blob.Close()); err != nil {
		return nil, fmt.Errorf("receiving the artefact: %w", err)
	}
	if sum := sha256.Sum256(content); hex.EncodeToString(sum[:]) != want.SHA256 {
		return nil, fmt.Errorf("the artefact has SHA-256 %x, want %s", sum, want.SHA256)
	}
	return content, nil
}

func removeWorker(s *wire.State, workerType string) {
	s.Workers = slices.DeleteFunc(s.Workers, func(w wire.Worker) bool { return w.Type == workerType })
}
