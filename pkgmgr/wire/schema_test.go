package wire

import (
	"encoding/json"
	"errors"
	"testing"
)

type plainThing struct {
	Versioned
	Name  string  `json:"name"`
	Parts []plain `json:"parts,omitempty"`
}

type plain struct {
	Size int `json:"size,omitempty"`
}

type thing struct {
	plainThing
	Unknown Unknown `json:"-"`
}

func (t *thing) UnmarshalJSON(data []byte) error {
	return DecodeKeeping(data, &t.plainThing, &t.Unknown)
}
func (t thing) MarshalJSON() ([]byte, error) { return EncodeKeeping(t.plainThing, t.Unknown) }

func TestUnknownFieldsAreKept(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, in string
		change   func(*thing)
		want     string
	}{
		{"all known", `{"schema":1,"name":"a","parts":[{"size":1}]}`, nil, `{"schema":1,"name":"a","parts":[{"size":1}]}`},
		{"unchanged", `{"schema":9,"min_reader":1,"name":"a","new":{"x":[1]},"parts":[{"size":1,"color":"red"}]}`, nil,
			`{"schema":9,"min_reader":1,"name":"a","new":{"x":[1]},"parts":[{"size":1,"color":"red"}]}`},
		{"changed", `{"schema":9,"name":"a","new":7}`, func(v *thing) { v.Name = "b" }, `{"schema":9,"name":"b","new":7}`},
		{"a field is emptied", `{"schema":9,"name":"a","new":7,"parts":[{"size":1}]}`, func(v *thing) { v.Parts = nil }, `{"schema":9,"name":"a","new":7}`},
		{"an empty unknown field", `{"schema":1,"name":"a","new":""}`, nil, `{"schema":1,"name":"a"}`},
	} {
		var v thing
		if err := json.Unmarshal([]byte(tt.in), &v); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
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

func TestReadable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value Versioned
		own   int
		ok    bool
	}{
		{Versioned{}, 1, true}, {Versioned{1, 1}, 1, true}, {Versioned{7, 1}, 1, true}, {Versioned{7, 2}, 1, false}, {Versioned{1, 0}, 2, true},
	} {
		err := tt.value.Readable("x", tt.own)
		var newer *NewerSchemaError
		if (err == nil) != tt.ok || err != nil && !errors.As(err, &newer) {
			t.Errorf("%+v.Readable(%d) = %v, want ok %t", tt.value, tt.own, err, tt.ok)
		}
	}
}

func FuzzKeeping(f *testing.F) {
	f.Add(`{"schema":1,"name":"a","x":{"y":[1,2,{"z":null}]}}`)
	f.Add(`{"parts":[{"size":1,"q":2},7]}`)
	f.Fuzz(func(t *testing.T, in string) {
		var v thing
		if json.Unmarshal([]byte(in), &v) != nil {
			t.Skip()
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("Marshal() of what was decoded from %q: %v", in, err)
		}
		more, err := holdsMore([]byte(in), out)
		if err != nil || more {
			t.Errorf("%q became %s, which has less (%v)", in, out, err)
		}
	})
}
