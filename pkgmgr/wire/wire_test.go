package wire

import (
	"encoding/json"
	"testing"
)

// TestNoCommands holds that a machine without a compiler is not taken for one
// that nobody asked about it.
func TestNoCommands(t *testing.T) {
	t.Parallel()
	for _, k := range []struct {
		commands []string
		known    bool
	}{{nil, false}, {[]string{}, true}, {[]string{"cc"}, true}} {
		data, err := json.Marshal(State{Commands: k.commands})
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := json.Unmarshal(data, &got); err != nil || (got.Commands != nil) != k.known || len(got.Commands) != len(k.commands) {
			t.Errorf("%#v became %#v, %v", k.commands, got.Commands, err)
		}
	}
}
