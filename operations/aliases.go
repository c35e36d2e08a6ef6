package operations

import (
	"encoding/json"
	"errors"
)

// Aliases is a selection of hives by alias. On the wire it is null for none, a
// string for one and a list for several.
type Aliases []string

// IsZero reports whether nothing is selected; encoding/json asks it.
func (a Aliases) IsZero() bool { return len(a) == 0 }

// MarshalJSON writes null, a string or a list.
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

// UnmarshalJSON reads null, a string or a list of strings.
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
		return errors.New("field \"hive_alias\": want one alias or a list of aliases") // its one key
	}
	*a = many
	return nil
}
