package wheel

import (
	"fmt"

	"github.com/pelletier/go-toml/v2"
)

// Pylock is a pylock.toml file (PEP 751) with the fields that rbee uses:
// https://packaging.python.org/en/latest/specifications/pylock-toml/
type Pylock struct {
	Packages []struct {
		Name    string `toml:"name"`
		Version string `toml:"version"`
		Wheels  []struct {
			Name   string            `toml:"name"`
			URL    string            `toml:"url"`
			Size   int64             `toml:"size"`
			Hashes map[string]string `toml:"hashes"`
		} `toml:"wheels"`
	} `toml:"packages"`
}

// ParsePylock parses a pylock.toml file that uv wrote.
func ParsePylock(data []byte) (*Pylock, error) {
	var lock Pylock
	if err := toml.Unmarshal(data, &lock); err != nil {
		return nil, fmt.Errorf("cannot parse the pylock.toml of uv: %w", err)
	}
	return &lock, nil
}
