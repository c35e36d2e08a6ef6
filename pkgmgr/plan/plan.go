package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Schema is the version of the format of a saved [Plan]. Apply a saved plan only if
// [wire.Versioned.CheckReadable] returns nil for Schema.
const Schema = 1

// Plan contains the steps that users see and everything that is needed to apply them. It
// contains no local path and no credential. It can be encoded as JSON, so that one
// program can make it and another one can apply it.
type Plan struct {
	wire.Versioned
	operations.Plan

	// Hives describes the hives that the plan was made for, sorted by alias.
	Hives []Hive `json:"hives"`

	// Installs contains each distinct installation once, by [Install.Digest]. The steps
	// that install workers refer to these digests.
	Installs map[string]*Install `json:"installs,omitempty"`

	// Builds contains the builds of rbee, by the SHA-256 (hex) of the binary. The steps
	// that install rbee refer to these checksums.
	Builds map[string]Build `json:"builds,omitempty"`

	// Lock contains the changes to hives.lock.
	Lock lockfile.Changes `json:"lock,omitzero"`
}

// Hive is one hive of a plan.
type Hive struct {
	Alias string `json:"alias"`

	// State is the [StateDigest] of the hive when the plan was made; empty if the
	// hive could not be read.
	State string `json:"state,omitempty"`

	// Extra means that the config does not contain the hive.
	Extra bool `json:"extra,omitempty"`

	// Settings are the settings of the config; nil for an extra hive.
	Settings *wire.Settings `json:"settings,omitempty"`

	// Workers are the workers of the config.
	Workers []Worker `json:"workers,omitempty"`
}

// Worker is a worker that the config installs on a hive.
type Worker struct {
	Type string `json:"type"`

	// Requested is the version constraint of the config.
	Requested string `json:"requested"`

	// Version is the version that the constraint resolved to; empty if it did not.
	Version string `json:"version,omitempty"`

	// Unpin means that the worker is pinned to another version. Installing Version
	// removes the pin.
	Unpin bool `json:"ends_pin,omitempty"`

	// Reinstall means that Version is already installed and is installed again, because
	// its files are damaged or because a reinstall was requested.
	Reinstall bool `json:"reinstall,omitempty"`

	// Warning describes a limitation of the installation on this hive; empty for none.
	Warning string `json:"warning,omitempty"`
}

// Install describes how a hive installs one version of a worker.
type Install struct {
	Type    string `json:"type"`
	Version string `json:"version"`
	Variant string `json:"variant,omitempty"`

	// SHA256 identifies the installed files, as [wire.Digest]. It may be empty for a
	// server inside rbee.
	SHA256 string             `json:"sha256,omitempty"`
	Steps  []wire.InstallStep `json:"steps"`
	Entry  string             `json:"entry,omitempty"`
	Launch *wire.Launch       `json:"launch,omitempty"`
	Verify *wire.Verify       `json:"verify,omitempty"`

	// Private lists the SHA-256 of artifacts whose query and credentials were removed from
	// the URL in Steps, because they may be secret. The program that applies the plan takes
	// them from the recipe.
	Private []string `json:"private,omitempty"`

	// Unstable lists the SHA-256 of artifacts whose URL may later return different content,
	// such as archives that a server generates. The client sends them to the hive.
	Unstable []string `json:"unstable,omitempty"`
}

// Digest returns the SHA-256 (hex) of the installation.
func (i *Install) Digest() string {
	data, err := json.Marshal(i)
	if err != nil {
		return "" // impossible: it contains only strings, numbers and maps of strings
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// Build is a build of rbee for one platform.
type Build struct {
	Platform string `json:"platform"` // "os/arch"
	Version  string `json:"version"`
	Bytes    int64  `json:"bytes,omitempty"` // size of the binary
}

// Hive returns the hive with an alias; nil if the plan does not contain it.
func (p *Plan) Hive(alias string) *Hive {
	i := slices.IndexFunc(p.Hives, func(h Hive) bool { return h.Alias == alias })
	if i < 0 {
		return nil
	}
	return &p.Hives[i]
}

// Worker returns the worker of a type; the zero value, which has no Type, if the config
// does not contain it.
func (h *Hive) Worker(typ string) Worker {
	i := slices.IndexFunc(h.Workers, func(w Worker) bool { return w.Type == typ })
	if i < 0 {
		return Worker{}
	}
	return h.Workers[i]
}

// StepsOf returns the steps of one hive, in the order in which they are applied.
func (p *Plan) StepsOf(alias string) []operations.Step {
	var steps []operations.Step
	for _, s := range p.Steps {
		if s.Hive == alias {
			steps = append(steps, s)
		}
	}
	return steps
}

// StateDigest returns a SHA-256 (hex) over the rbee build, the settings, and the
// installed workers with their digests and variants. It does not cover measured values,
// such as free disk space, PIDs or temperatures. It returns "" for nil.
func StateDigest(s *wire.State) string {
	if s == nil {
		return ""
	}
	type worker struct{ Type, Version, Requested, Variant, SHA256 string }
	digested := struct {
		Build    *wire.BinaryRecord
		Broken   string
		Settings *wire.Settings
		Workers  []worker
	}{Broken: s.Broken, Settings: s.Settings}
	if s.Rbee != nil {
		digested.Build = &wire.BinaryRecord{Version: s.Rbee.Version, SHA256: s.Rbee.SHA256}
	}
	for _, w := range s.Workers {
		digested.Workers = append(digested.Workers, worker{w.Type, w.Version, w.Requested, w.Variant, w.SHA256})
	}
	data, err := json.Marshal(digested)
	if err != nil {
		return "" // impossible: it contains only strings and numbers
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// New returns a plan for hives that has no steps yet. Use it for steps that do not result
// from a comparison, such as starting the hive daemon. Use [Diff] for all others.
func New(states []HiveState) *Plan {
	p := newPlan()
	for _, s := range states {
		p.Hives = append(p.Hives, hiveOf(s, Desired{}))
	}
	slices.SortStableFunc(p.Hives, func(a, b Hive) int { return strings.Compare(a.Alias, b.Alias) })
	return p
}

// newPlan returns a plan without hives.
func newPlan() *Plan {
	return &Plan{
		Versioned: wire.Versioned{Schema: Schema, MinReader: Schema},
		Plan:      operations.Plan{Steps: []operations.Step{}, Drift: []operations.Drift{}},
	}
}

// hiveOf describes a hive for a plan.
func hiveOf(s HiveState, desired Desired) Hive {
	h := Hive{Alias: s.Hive.Alias, State: StateDigest(s.State), Extra: s.Extra}
	if s.Extra {
		return h
	}
	settings := s.Hive.Settings()
	h.Settings = &settings
	for _, w := range s.Hive.Workers {
		d := desired.Workers[WorkerKey{s.Hive.Alias, w.Type}]
		h.Workers = append(h.Workers, Worker{
			Type: w.Type, Requested: w.Version, Version: d.Version, Unpin: d.Unpin, Warning: d.Warning,
		})
	}
	return h
}

// install adds the installation of a worker and returns its digest.
func (p *Plan) install(typ string, d DesiredWorker) string {
	i := &Install{
		Type: typ, Version: d.Version, Variant: d.Variant, SHA256: d.SHA256, Entry: d.Entry, Launch: d.Launch, Verify: d.Verify,
		Steps: lockfile.CloneSteps(d.Steps),
	}
	for j := range i.Steps {
		i.Steps[j].Position = path.Base(strings.ReplaceAll(i.Steps[j].Position, `\`, "/")) // the directory of the recipe is a local path
		if i.Steps[j].Position == "." {
			i.Steps[j].Position = ""
		}
	}
	for j := range i.Steps {
		for _, a := range i.Steps[j].Artifacts() {
			if u, err := url.Parse(a.URL); err == nil && (u.RawQuery != "" || u.User != nil) {
				u.RawQuery, u.User = "", nil
				a.URL = u.String()
				i.Private = append(i.Private, a.SHA256)
			}
		}
	}
	slices.Sort(i.Private)
	for sum, unstable := range d.Unstable {
		if unstable {
			i.Unstable = append(i.Unstable, sum)
		}
	}
	slices.Sort(i.Unstable)
	digest := i.Digest()
	if p.Installs == nil {
		p.Installs = map[string]*Install{}
	}
	p.Installs[digest] = i
	return digest
}

// reinstall sets [Worker.Reinstall] of a worker.
func (p *Plan) reinstall(alias, typ string) {
	if h := p.Hive(alias); h != nil {
		for i := range h.Workers {
			h.Workers[i].Reinstall = h.Workers[i].Reinstall || h.Workers[i].Type == typ
		}
	}
}

// build adds a build of rbee and returns its SHA-256.
func (p *Plan) build(platform wire.Platform, b DesiredBinary) string {
	if b.SHA256 == "" {
		return ""
	}
	if p.Builds == nil {
		p.Builds = map[string]Build{}
	}
	p.Builds[b.SHA256] = Build{Platform: platform.Key(), Version: b.Version, Bytes: b.Size}
	return b.SHA256
}

// dropUnused removes the installations and builds that no step refers to.
func (p *Plan) dropUnused() {
	used := map[string]bool{}
	for _, s := range p.Steps {
		used[s.Digest] = true
	}
	for digest := range p.Installs {
		if !used[digest] {
			delete(p.Installs, digest)
		}
	}
	for digest := range p.Builds {
		if !used[digest] {
			delete(p.Builds, digest)
		}
	}
}

// MarshalJSON implements [json.Marshaler]. It replaces the error messages of blocked
// workers and unreachable hives with their reason codes, because messages may contain
// local paths.
func (p Plan) MarshalJSON() ([]byte, error) {
	type plain Plan
	out := plain(p)
	redacted := func(e *operations.Error) *operations.Error {
		if e == nil {
			return nil
		}
		subject := e.Subject
		if subject.Kind == operations.SubjectFile {
			subject = operations.Subject{}
		}
		return &operations.Error{Code: e.Code, Reason: e.Reason, Subject: subject, Hive: e.Hive, Message: string(e.Reason)}
	}
	out.Drift = slices.Clone(p.Drift)
	for i := range out.Drift {
		if d := &out.Drift[i]; d.Error != nil {
			d.Error = redacted(d.Error)
			d.Details = "Hive unreachable: " + string(d.Error.Reason)
		}
	}
	out.Blocked = slices.Clone(p.Blocked)
	for i := range out.Blocked {
		b := &out.Blocked[i]
		b.Detail, b.Error = "", redacted(b.Error)
		b.Reason = "blocked"
		if b.Error != nil {
			b.Reason = string(b.Error.Reason)
		}
	}
	return json.Marshal(out)
}
