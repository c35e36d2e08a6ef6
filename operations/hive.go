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

// HiveCapabilities tells which accelerators and resources a hive has, as the
// machine itself finds them. It ends in a [*HiveCapabilitiesReport].
type HiveCapabilities struct {
	// Alias is the hive's name in the config. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
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

// Validate implements [Operation].
func (o HiveStart) Validate() error { return require(o.Kind(), "alias", o.Alias) }

// Validate implements [Operation].
func (o HiveStop) Validate() error { return require(o.Kind(), "alias", o.Alias) }

// Validate implements [Operation].
func (o HiveGet) Validate() error { return require(o.Kind(), "alias", o.Alias) }

// Validate implements [Operation].
func (o HiveStatus) Validate() error { return require(o.Kind(), "alias", o.Alias) }

// Validate implements [Operation].
func (o HiveCapabilities) Validate() error { return require(o.Kind(), "alias", o.Alias) }

// Validate implements [Operation].
func (HiveList) Validate() error { return nil }

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

// require checks that named string fields are not empty; pairs holds names and
// values in turn.
func require(kind Kind, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" { //nolint:gosec // pairs has an even length
			return badOperation("%s: field %q is required", kind, pairs[i])
		}
	}
	return nil
}
