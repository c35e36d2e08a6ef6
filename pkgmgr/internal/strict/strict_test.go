package strict

import (
	"testing"
)

// TestReadTOMLAndYAML checks that both syntaxes fill the same struct.
func TestReadTOMLAndYAML(t *testing.T) {
	t.Parallel()
	type job struct {
		Pos Pos
		N   Value[int64] `key:"n,required"`
	}
	type file struct {
		Name Value[string]                   `key:"name,required"`
		On   Value[bool]                     `key:"on"`
		Jobs Value[[]job]                    `key:"job"`
		Env  Value[map[string]Value[string]] `key:"env"`
	}
	for _, tt := range []struct {
		name   string
		syntax Syntax
		text   string
		second Pos // of the second job
	}{
		{"TOML", TOML, "name = 'x'\non = true\nenv.A = 'b'\n[[job]]\nn = 0x10\n  [[job]]\nn = 2\n", Pos{6, 3}},
		{"YAML", YAML, "name: x\non: true\nenv: {A: b}\njob:\n- n: 0x10\n- n: 2\n", Pos{6, 3}},
	} {
		var f file
		if problems := Read(tt.syntax, []byte(tt.text), &f); len(problems) != 0 {
			t.Fatalf("Read(%s) = %v, want no problems", tt.name, problems)
		}
		if f.Name.V != "x" || !f.On.V || f.Env.V["A"].V != "b" || len(f.Jobs.V) != 2 || f.Jobs.V[0].N.V != 16 || f.Jobs.V[1].Pos != tt.second {
			t.Errorf("Read(%s) filled %+v, want the values of the file", tt.name, f)
		}
		var g file
		problems := Read(tt.syntax, []byte("job: [{}]\n"), &g)
		if tt.syntax == TOML {
			problems = Read(tt.syntax, []byte("job = [{}]\n"), &g)
		}
		if len(problems) != 2 || problems[0].Item != -1 || problems[1].Item != 0 || problems[1].Message != "job 1 has no n" {
			t.Errorf("Read(%s) = %+v, want one problem of the file and %q", tt.name, problems, "job 1 has no n")
		}
	}
}
