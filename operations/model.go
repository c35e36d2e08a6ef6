package operations

// ModelDownload fetches a model to a hive, into the cache that every engine
// reads. It ends in a [*ModelDownloadReport]. Canceled or cut off, it goes on
// where it was when it is asked for again.
type ModelDownload struct {
	Target

	// Model says which: org/repo of the model hub, with ":quantisation" or
	// ":file" for a part of it and "@revision" for another than main; or a
	// file: or https: address, with "#sha256=" and the checksum, which https:
	// must have. Required.
	Model string `json:"model"`

	// Token is for repositories that ask for one. Empty leaves it to the hive,
	// which has its own HF_TOKEN or token file, or none, and uses that only with
	// its own endpoint.
	Token Secret `json:"token,omitempty"`

	// Endpoint is the address of the model hub; empty leaves it to the hive:
	// its HF_ENDPOINT, or https://huggingface.co.
	Endpoint string `json:"endpoint,omitempty"`
}

// Secret is a text that no log and no error shows. On the wire it is a string.
type Secret string

// String hides the secret from fmt.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "[secret]"
}

// GoString hides the secret from fmt's %#v.
func (s Secret) GoString() string { return `"` + s.String() + `"` }

// ModelList lists the models on a hive, or on every hive of the config, also
// those that other programs put into the cache. It ends in a [*ModelListReport].
type ModelList struct {
	Target
}

// ModelGet tells about one model on a hive. It ends in a [*ModelGetReport].
type ModelGet struct {
	Target

	// ID is the model, as [ModelList] names it. Required.
	ID string `json:"id"`
}

// ModelDelete removes one model from a hive, but for what other models share
// with it. A model that a worker uses is refused. It ends in a [*ModelDeleteReport].
type ModelDelete struct {
	Target

	// ID is the model, as [ModelList] names it. Required.
	ID string `json:"id"`
}

// Kind is [KindModelDownload].
func (ModelDownload) Kind() Kind { return KindModelDownload }

// Kind is [KindModelList].
func (ModelList) Kind() Kind { return KindModelList }

// Kind is [KindModelGet].
func (ModelGet) Kind() Kind { return KindModelGet }

// Kind is [KindModelDelete].
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
