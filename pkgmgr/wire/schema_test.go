package wire

import (
	"encoding/json"
	"errors"
	"testing"
)

type plainDocument struct {
	Versioned
	Name  string `json:"name"`
	Parts []part `json:"parts,omitempty"`
}

type part struct {
	Size int `json:"size,omitempty"`
}

type document struct {
	plainDocument
	Unknown Unknown `json:"-"`
}

func (d *document) UnmarshalJSON(data []byte) error {
	return UnmarshalWithUnknown(data, &d.plainDocument, &d.Unknown)
}
func (d document) MarshalJSON() ([]byte, error) {
	return MarshalWithUnknown(d.plainDocument, d.Unknown)
}

func TestUnknownFieldsArePreserved(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		change   func(*document)
		want     string
	}{
		{"no unknown fields", `{"schema":1,"name":"a","parts":[{"size":1}]}`, nil, `{"schema":1,"name":"a","parts":[{"size":1}]}`},
		{"unchanged", `{"schema":9,"min_reader":1,"name":"a","new":{"x":[1]},"parts":[{"size":1,"color":"red"}]}`, nil,
			`{"schema":9,"min_reader":1,"name":"a","new":{"x":[1]},"parts":[{"size":1,"color":"red"}]}`},
		{"changed field", `{"schema":9,"name":"a","new":7}`, func(v *document) { v.Name = "b" }, `{"schema":9,"name":"b","new":7}`},
		{"cleared field", `{"schema":9,"name":"a","new":7,"parts":[{"size":1}]}`, func(v *document) { v.Parts = nil }, `{"schema":9,"name":"a","new":7}`},
		{"empty unknown field", `{"schema":1,"name":"a","new":""}`, nil, `{"schema":1,"name":"a"}`},
	} {
		var v document
		if err := json.Unmarshal([]byte(tt.in), &v); err != nil {
			t.Fatalf("%s: Unmarshal() = %v, want no error", tt.name, err)
		}
		if tt.change != nil {
			tt.change(&v)
		}
		got, err := json.Marshal(v)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: Marshal() = %s, %v; want %s", tt.name, got, err, tt.want)
		}
	}
}

func TestCheckReadable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value     Versioned
		supported int
		ok        bool
	}{
		{Versioned{}, 1, true}, {Versioned{1, 1}, 1, true}, {Versioned{7, 1}, 1, true}, {Versioned{7, 2}, 1, false}, {Versioned{1, 0}, 2, true},
	} {
		err := tt.value.CheckReadable("x", tt.supported)
		var newer *NewerSchemaError
		if (err == nil) != tt.ok || err != nil && !errors.As(err, &newer) {
			t.Errorf("%+v.CheckReadable(%q, %d) = %v, want no error: %t", tt.value, "x", tt.supported, err, tt.ok)
		}
	}
}

// FuzzUnknown checks that decoding and encoding a value loses no unknown fields.
func FuzzUnknown(f *testing.F) {
	f.Add(`{"schema":1,"name":"a","x":{"y":[1,2,{"z":null}]}}`)
	f.Add(`{"parts":[{"size":1,"q":2},7]}`)
	f.Fuzz(func(t *testing.T, in string) {
		var v document
		if json.Unmarshal([]byte(in), &v) != nil {
			t.Skip()
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("Marshal() of the value decoded from %q = %v, want no error", in, err)
		}
		lost, err := hasUnknownMembers([]byte(in), out)
		if err != nil || lost {
			t.Errorf("Marshal() of the value decoded from %q = %s, want all members of the input (%v)", in, out, err)
		}
	})
}
