package statefile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

type inner struct {
	X int `json:"x"`
}

type content struct {
	Name  string `json:"name"`
	Inner inner  `json:"inner"`
	Other string `json:"other,omitempty"`
}

// writeFile writes a state file and returns its path.
func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "state.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWriteNewFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.json")
	if err := Read(path, &content{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read(missing file) = %v, want fs.ErrNotExist", err)
	}
	for _, v := range []any{content{Name: "a"}, &content{Name: "a"}} {
		if err := Write(path, v); err != nil {
			t.Fatal(err)
		}
		data, _ := os.ReadFile(path)
		want := "{\n  \"schema\": 1,\n  \"min_reader\": 0,\n  \"name\": \"a\",\n  \"inner\": {\n    \"x\": 0\n  }\n}\n"
		if string(data) != want {
			t.Errorf("Write(%v) wrote\n%s\nwant\n%s", v, data, want)
		}
	}
}

func TestWriteKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	path := writeFile(t, `{"schema": 7, "min_reader": 1, "name": "a", "inner": {"x": 1, "y": 2}, "other": "b", "new": [1]}`)
	var c content
	if err := Read(path, &c); err != nil || c.Name != "a" || c.Inner.X != 1 {
		t.Fatalf("Read() = %+v, %v, want name a and x 1", c, err)
	}
	c.Name, c.Other = "c", ""
	if err := Write(path, c); err != nil {
		t.Fatal(err)
	}
	data, _ := os.ReadFile(path)
	text := strings.Join(strings.Fields(string(data)), "")
	if want := `{"schema":7,"min_reader":1,"name":"c","inner":{"x":1,"y":2},"new":[1]}`; text != want {
		t.Errorf("Write() wrote %s, want %s", text, want)
	}
}

func TestFileWithoutSchemaHasSchemaZero(t *testing.T) {
	t.Parallel()
	path := writeFile(t, `{"name": "a"}`)
	if h, err := ReadSchema(path); err != nil || h.Schema != 0 {
		t.Errorf("ReadSchema() = %+v, %v, want schema 0", h, err)
	}
	var c content
	if err := errors.Join(Read(path, &c), Write(path, c)); err != nil {
		t.Fatal(err)
	}
	if h, err := ReadSchema(path); err != nil || h.Schema != Schema {
		t.Errorf("ReadSchema() after Write = %+v, %v, want schema %d", h, err, Schema)
	}
}

func TestNewerFileIsNotReplaced(t *testing.T) {
	t.Parallel()
	const text = `{"schema": 9, "min_reader": 8, "name": "a"}`
	path := writeFile(t, text)
	_, schemaErr := ReadSchema(path)
	for name, err := range map[string]error{"Read": Read(path, &content{}), "Write": Write(path, content{Name: "b"}), "ReadSchema": schemaErr} {
		var newer *wire.NewerSchemaError
		if !errors.As(err, &newer) || operations.ReasonOf(err) != operations.ReasonNewerFile || operations.SubjectOf(err) != operations.SubjectFile.WithName(path) {
			t.Errorf("%s() = %v, want a NewerSchemaError about %s", name, err, path)
		}
	}
	if data, _ := os.ReadFile(path); string(data) != text {
		t.Errorf("after Write() failed, the file contains %s, want %s", data, text)
	}
}

func TestDamagedFileIsReplaced(t *testing.T) {
	t.Parallel()
	path := writeFile(t, `{"name": `)
	if err := Read(path, &content{}); err == nil {
		t.Error("Read() = nil, want an error")
	}
	var c content
	if err := errors.Join(Write(path, content{Name: "b"}), Read(path, &c)); err != nil || c.Name != "b" {
		t.Errorf("Write() and Read() = %+v, %v, want name b and no error", c, err)
	}
}
