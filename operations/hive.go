package operations

// HiveStart starts the daemon of a hive. Its report is a [*HiveDaemonReport].
type HiveStart struct {
	// Alias is the alias of the hive. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveStop stops the daemon of a hive. Its worker processes keep running. Its report is
// a [*HiveDaemonReport].
type HiveStop struct {
	// Alias is the alias of the hive. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveList lists the hives of the config and the recorded hives without contacting
// them. Its report is a [*HiveListReport].
type HiveList struct {
	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveGet returns the config, the record and the current state of one hive. Its report
// is a [*HiveGetReport].
type HiveGet struct {
	// Alias is the alias of the hive. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveStatus reports whether the daemon of one hive is running and responds. Its report
// is a [*HiveDaemonReport].
type HiveStatus struct {
	// Alias is the alias of the hive. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// HiveCapabilities returns the accelerators and other resources of one hive. Its report
// is a [*HiveCapabilitiesReport].
type HiveCapabilities struct {
	// Alias is the alias of the hive. Required.
	Alias string `json:"alias"`

	// ConfigPath is as in [Scope].
	ConfigPath string `json:"config_path,omitempty"`
}

// Kind returns [KindHiveStart].
func (HiveStart) Kind() Kind { return KindHiveStart }

// Kind returns [KindHiveStop].
func (HiveStop) Kind() Kind { return KindHiveStop }

// Kind returns [KindHiveList].
func (HiveList) Kind() Kind { return KindHiveList }

// Kind returns [KindHiveGet].
func (HiveGet) Kind() Kind { return KindHiveGet }

// Kind returns [KindHiveStatus].
func (HiveStatus) Kind() Kind { return KindHiveStatus }

// Kind returns [KindHiveCapabilities].
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

// MarshalJSON returns the wire form of the operation.
func (o HiveStart) MarshalJSON() ([]byte, error) {
	type fields HiveStart
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o HiveStop) MarshalJSON() ([]byte, error) {
	type fields HiveStop
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o HiveList) MarshalJSON() ([]byte, error) {
	type fields HiveList
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o HiveGet) MarshalJSON() ([]byte, error) {
	type fields HiveGet
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o HiveStatus) MarshalJSON() ([]byte, error) {
	type fields HiveStatus
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o HiveCapabilities) MarshalJSON() ([]byte, error) {
	type fields HiveCapabilities
	return marshal(o.Kind(), fields(o))
}

// require returns an error if a required field is empty. pairs alternates field names
// and values.
func require(kind Kind, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		if pairs[i+1] == "" { //nolint:gosec // pairs has an even length
			return badOperation("%s: field %q is required", kind, pairs[i])
		}
	}
	return nil
}
