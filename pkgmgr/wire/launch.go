package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
)

type plainLaunch Launch

// UnmarshalJSON implements [json.Unmarshaler]; fields that this rbee does not know stay.
func (l *Launch) UnmarshalJSON(data []byte) error {
	return DecodeKeeping(data, (*plainLaunch)(l), &l.Unknown)
}

// MarshalJSON implements [json.Marshaler].
func (l Launch) MarshalJSON() ([]byte, error) { return EncodeKeeping(plainLaunch(l), l.Unknown) } //nolint:staticcheck // values are encoded too

// Equal reports whether two launches are the same on the wire; nil equals nil alone.
func (l *Launch) Equal(other *Launch) bool {
	a, errA := json.Marshal(l)
	b, errB := json.Marshal(other)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

// DefaultReadyStatus is the ReadyStatus of a recipe that sets none.
const DefaultReadyStatus = http.StatusOK

// Digest returns a SHA-256 (hex) over the fields that the recipe sets. A field that it
// leaves to rbee does not count, so that another rbee, which fills in other fields,
// computes the same digest for the same recipe. It is empty for nil.
func (l *Launch) Digest() string {
	if l == nil {
		return ""
	}
	set := *l
	set.Unknown = Unknown{}
	if set.ReadyStatus == DefaultReadyStatus {
		set.ReadyStatus = 0
	}
	data, err := json.Marshal(set)
	if err != nil {
		return "" // strings and finite numbers: it cannot fail
	}
	var fields map[string]json.RawMessage // sorts the fields by name
	if err := json.Unmarshal(data, &fields); err != nil {
		return ""
	}
	if data, err = json.Marshal(fields); err != nil {
		return ""
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}
