package operations

import (
	"encoding/json"
	"errors"
)

// Aliases is a list of hive aliases. Its JSON form is null for no alias, a string for
// one alias, and an array of strings for several.
type Aliases []string

// IsZero reports whether the list is empty. encoding/json uses it for omitzero.
func (a Aliases) IsZero() bool { return len(a) == 0 }

// MarshalJSON implements [json.Marshaler].
func (a Aliases) MarshalJSON() ([]byte, error) {
	switch len(a) {
	case 0:
		return []byte("null"), nil
	case 1:
		return json.Marshal(a[0])
	default:
		return json.Marshal([]string(a))
	}
}

// UnmarshalJSON implements [json.Unmarshaler]. It accepts null, a string or an array of
// strings.
func (a *Aliases) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*a = nil
		return nil
	}
	var one string
	if json.Unmarshal(data, &one) == nil {
		*a = Aliases{one}
		return nil
	}
	var many []string
	if json.Unmarshal(data, &many) != nil {
		return errors.New("invalid field \"hive_alias\": want an alias or a list of aliases") // the only field of this type
	}
	*a = many
	return nil
}
