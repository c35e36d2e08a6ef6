package operations

// HiveStart starts the hive daemon on a machine. It ends in a [*HiveDaemonReport].
type HiveStart struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveStop stops the hive daemon on a machine; workers go on. It ends in a
// [*HiveDaemonReport].
type HiveStop struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveList lists the hives of the config and of the record, asking no machine.
// It ends in a [*HiveListReport].
type HiveList struct {
	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveGet tells all about one hive: its config, its record, and what the
// machine itself answers. It ends in a [*HiveGetReport].
type HiveGet struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveStatus tells whether the daemon of one hive runs and answers. It ends in
// a [*HiveDaemonReport].
type HiveStatus struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveCapabilities tells which accelerators and resources a hive has.
type HiveCapabilities struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// WorkerSpawn starts a worker process on a hive.
type WorkerSpawn struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// Model is what the worker serves, in the form that [ModelDownload] takes. Required.
	Model string `json:"model"`

	// Worker is the worker type. Required.
	Worker string `json:"worker"`

	// Device is which accelerators to use: indices such as "0,1", or "auto".
	// Empty means auto.
	Device string `json:"device,omitempty"`
}

// WorkerProcessList lists the worker processes of a hive.
type WorkerProcessList struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`
}

// WorkerProcessGet tells about one worker process.
type WorkerProcessGet struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// PID is the process id on the hive. Required.
	PID int `json:"pid"`
}

// WorkerProcessDelete ends one worker process, one that rbee started.
type WorkerProcessDelete struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// PID is the process id on the hive. Required.
	PID int `json:"pid"`
}

// ModelDownload fetches a model to a hive.
type ModelDownload struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// Model says which: org/repo, with a revision, a file or a quantisation. Required.
	Model string `json:"model"`
}

// ModelList lists the models on a hive.
type ModelList struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`
}

// ModelGet tells about one model on a hive.
type ModelGet struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// ID is the model, as [ModelList] names it. Required.
	ID string `json:"id"`
}

// ModelDelete removes one model from a hive.
type ModelDelete struct {
	// HiveID is the alias of the hive. Required.
	HiveID string `json:"hive_id"`

	// ID is the model, as [ModelList] names it. Required.
	ID string `json:"id"`
}

// Infer asks a model.
type Infer struct {
	// HiveID limits the choice to one hive; empty lets the queen choose.
	HiveID string `json:"hive_id,omitempty"`

	// Model is the model to ask. Required.
	Model string `json:"model"`

	// Prompt is the question. Required.
	Prompt string `json:"prompt"`

	// MaxTokens ends the answer after so many tokens; at least 1.
	MaxTokens int `json:"max_tokens"`

	// Temperature is the sampling temperature, 0 (always the likeliest) to 2.
	Temperature float64 `json:"temperature"`

	// TopP samples from the likeliest tokens that hold this share of the
	// probability, above 0 to 1; nil leaves it to the worker.
	TopP *float64 `json:"top_p,omitempty"`

	// TopK samples from so many of the likeliest tokens, at least 1; nil
	// leaves it to the worker.
	TopK *int `json:"top_k,omitempty"`

	// Device limits the choice to workers on this accelerator; empty does not.
	Device string `json:"device,omitempty"`

	// WorkerID asks one worker; empty lets the queen choose.
	WorkerID string `json:"worker_id,omitempty"`

	// Stream sends tokens as they come.
	Stream bool `json:"stream"`
}

// Kind is [KindHiveStart].
func (HiveStart) Kind() Kind { return KindHiveStart }

// Kind is [KindHiveStop].
func (HiveStop) Kind() Kind { return KindHiveStop }

// Kind is [KindHiveList].
func (HiveList) Kind() Kind { return KindHiveList }

// Kind is [KindHiveGet].
func (HiveGet) Kind() Kind { return KindHiveGet }

// Kind is [KindHiveStatus].
func (HiveStatus) Kind() Kind { return KindHiveStatus }

// Kind is [KindHiveCapabilities].
func (HiveCapabilities) Kind() Kind { return KindHiveCapabilities }

// Kind is [KindWorkerSpawn].
func (WorkerSpawn) Kind() Kind { return KindWorkerSpawn }

// Kind is [KindWorkerProcessList].
func (WorkerProcessList) Kind() Kind { return KindWorkerProcessList }

// Kind is [KindWorkerProcessGet].
func (WorkerProcessGet) Kind() Kind { return KindWorkerProcessGet }

// Kind is [KindWorkerProcessDelete].
func (WorkerProcessDelete) Kind() Kind { return KindWorkerProcessDelete }

// Kind is [KindModelDownload].
func (ModelDownload) Kind() Kind { return KindModelDownload }

// Kind is [KindModelList].
func (ModelList) Kind() Kind { return KindModelList }

// Kind is [KindModelGet].
func (ModelGet) Kind() Kind { return KindModelGet }

// Kind is [KindModelDelete].
func (ModelDelete) Kind() Kind { return KindModelDelete }

// Kind is [KindInfer].
func (Infer) Kind() Kind { return KindInfer }

// Validate implements [Operation].
func (o HiveStart) Validate() error {
	return require(o.Kind(), "alias", o.Alias)
}

// Validate implements [Operation].
func (o HiveStop) Validate() error {
	return require(o.Kind(), "alias", o.Alias)
}

// Validate implements [Operation].
func (HiveList) Validate() error { return nil }

// Validate implements [Operation].
func (o HiveGet) Validate() error {
	return require(o.Kind(), "alias", o.Alias)
}

// Validate implements [Operation].
func (o HiveStatus) Validate() error {
	return require(o.Kind(), "alias", o.Alias)
}

// Validate implements [Operation].
func (o HiveCapabilities) Validate() error {
	return require(o.Kind(), "alias", o.Alias)
}

// Validate implements [Operation].
func (o WorkerSpawn) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID, "model", o.Model, "worker", o.Worker)
}

// Validate implements [Operation].
func (o WorkerProcessList) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID)
}

// Validate implements [Operation].
func (o WorkerProcessGet) Validate() error { return requirePID(o.Kind(), o.HiveID, o.PID) }

// Validate implements [Operation].
func (o WorkerProcessDelete) Validate() error { return requirePID(o.Kind(), o.HiveID, o.PID) }

// Validate implements [Operation].
func (o ModelDownload) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID, "model", o.Model)
}

// Validate implements [Operation].
func (o ModelList) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID)
}

// Validate implements [Operation].
func (o ModelGet) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID, "id", o.ID)
}

// Validate implements [Operation].
func (o ModelDelete) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID, "id", o.ID)
}

// Validate implements [Operation].
func (o Infer) Validate() error {
	if err := require(o.Kind(), "model", o.Model, "prompt", o.Prompt); err != nil {
		return err
	}
	switch {
	case o.MaxTokens < 1:
		return badOperation("%s: field \"max_tokens\" is %d, want at least 1", o.Kind(), o.MaxTokens)
	case o.Temperature < 0 || o.Temperature > 2:
		return badOperation("%s: field \"temperature\" is %g, want 0 to 2", o.Kind(), o.Temperature)
	case o.TopP != nil && (*o.TopP <= 0 || *o.TopP > 1):
		return badOperation("%s: field \"top_p\" is %g, want more than 0 and at most 1", o.Kind(), *o.TopP)
	case o.TopK != nil && *o.TopK < 1:
		return badOperation("%s: field \"top_k\" is %d, want at least 1", o.Kind(), *o.TopK)
	}
	return nil
}

// MarshalJSON writes the wire form.
func (o HiveStart) MarshalJSON() ([]byte, error) {
	type fields HiveStart
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o HiveStop) MarshalJSON() ([]byte, error) {
	type fields HiveStop
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o HiveList) MarshalJSON() ([]byte, error) {
	type fields HiveList
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o HiveGet) MarshalJSON() ([]byte, error) {
	type fields HiveGet
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o HiveStatus) MarshalJSON() ([]byte, error) {
	type fields HiveStatus
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o HiveCapabilities) MarshalJSON() ([]byte, error) {
	type fields HiveCapabilities
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerSpawn) MarshalJSON() ([]byte, error) {
	type fields WorkerSpawn
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessList) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessList
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessGet) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessGet
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o WorkerProcessDelete) MarshalJSON() ([]byte, error) {
	type fields WorkerProcessDelete
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o ModelDownload) MarshalJSON() ([]byte, error) {
	type fields ModelDownload
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o ModelList) MarshalJSON() ([]byte, error) {
	type fields ModelList
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o ModelGet) MarshalJSON() ([]byte, error) {
	type fields ModelGet
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o ModelDelete) MarshalJSON() ([]byte, error) {
	type fields ModelDelete
	return tagged(o.Kind(), fields(o))
}

// MarshalJSON writes the wire form.
func (o Infer) MarshalJSON() ([]byte, error) {
	type fields Infer
	return tagged(o.Kind(), fields(o))
}

// require checks that named string fields are not empty; pairs holds names and
// values in turn.
func require(kind Kind, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			return badOperation("%s: field %q is required", kind, pairs[i])
		}
	}
	return nil
}

func requirePID(kind Kind, hive string, pid int) error {
	if err := require(kind, "hive_id", hive); err != nil {
		return err
	}
	if pid < 1 {
		return badOperation("%s: field \"pid\" is %d, want a process id", kind, pid)
	}
	return nil
}
