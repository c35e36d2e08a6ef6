package operations

// ModelDownload downloads a model to the model cache of a hive, which all engines share.
// After an interruption, the next download of the same model resumes. Its report is a
// [*ModelDownloadReport].
type ModelDownload struct {
	Target

	// Model identifies the model. It is either org/repo on the model hub, optionally
	// followed by ":quantization" or ":file" and by "@revision" (default: main), or a
	// file: or https: URL, optionally followed by "#sha256=" and the checksum. The
	// checksum is required for https: URLs. Required.
	Model string `json:"model"`

	// Token authenticates to the model hub. If it is empty, the hive uses its own
	// token, if it has one, from HF_TOKEN or a token file. The hive sends its own
	// token only to its default endpoint.
	Token Secret `json:"token,omitempty"`

	// Endpoint is the URL of the model hub. Empty means the default of the hive: its
	// HF_ENDPOINT, or https://huggingface.co.
	Endpoint string `json:"endpoint,omitempty"`
}

// Secret is a string whose value package fmt does not print. Its JSON form is the value.
type Secret string

// String returns a placeholder, or "" for an empty secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString implements [fmt.GoStringer] and returns the quoted placeholder.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// ModelList lists the models on one hive, or on every hive of the config. The list
// includes models that other programs stored in the cache. Its report is a
// [*ModelListReport].
type ModelList struct {
	Target
}

// ModelGet returns one model on a hive. Its report is a [*ModelGetReport].
type ModelGet struct {
	Target

	// ID is the [Model.ID]. Required.
	ID string `json:"id"`
}

// ModelDelete removes one model from a hive. Files that other models share stay on disk.
// The operation fails if a worker serves the model. Its report is a
// [*ModelDeleteReport].
type ModelDelete struct {
	Target

	// ID is the [Model.ID]. Required.
	ID string `json:"id"`
}

// Kind returns [KindModelDownload].
func (ModelDownload) Kind() Kind { return KindModelDownload }

// Kind returns [KindModelList].
func (ModelList) Kind() Kind { return KindModelList }

// Kind returns [KindModelGet].
func (ModelGet) Kind() Kind { return KindModelGet }

// Kind returns [KindModelDelete].
func (ModelDelete) Kind() Kind { return KindModelDelete }

// Validate implements [Operation].
func (o ModelDownload) Validate() error {
	return require(o.Kind(), "hive_id", o.HiveID, "model", o.Model)
}

// Validate implements [Operation].
func (ModelList) Validate() error { return nil }

// Validate implements [Operation].
func (o ModelGet) Validate() error { return require(o.Kind(), "hive_id", o.HiveID, "id", o.ID) }

// Validate implements [Operation].
func (o ModelDelete) Validate() error { return require(o.Kind(), "hive_id", o.HiveID, "id", o.ID) }

// MarshalJSON returns the wire form of the operation.
func (o ModelDownload) MarshalJSON() ([]byte, error) {
	type fields ModelDownload
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o ModelList) MarshalJSON() ([]byte, error) {
	type fields ModelList
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o ModelGet) MarshalJSON() ([]byte, error) {
	type fields ModelGet
	return marshal(o.Kind(), fields(o))
}

// MarshalJSON returns the wire form of the operation.
func (o ModelDelete) MarshalJSON() ([]byte, error) {
	type fields ModelDelete
	return marshal(o.Kind(), fields(o))
}
