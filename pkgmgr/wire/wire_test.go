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

// TestDigest holds what tells one install from another, and that today's digest of
// a file is the one on record everywhere.
func TestDigest(t *testing.T) {
	t.Parallel()
	const sum = "AB12"
	archive := func(edit func(*InstallStep)) []InstallStep {
		s := InstallStep{Kind: StepArchive, Artifact: &Artifact{SHA256: sum, URL: "https://h/x"}, Format: FormatTarGz, Strip: 1}
		if edit != nil {
			edit(&s)
		}
		return []InstallStep{s}
	}
	file := []InstallStep{{Kind: StepFile, Artifact: &Artifact{SHA256: sum}}}
	if got := Digest(file, ""); got != "ab12" {
		t.Errorf("a file: %s", got)
	}
	if got := Digest([]InstallStep{{Kind: StepBuiltin, Builtin: "echo"}}, ""); got != "" {
		t.Errorf("a server inside rbee: %s", got)
	}
	first := Digest(archive(nil), "bin/x")
	if first == "ab12" {
		t.Errorf("an archive: %s", first)
	}
	if Digest(archive(func(s *InstallStep) { s.Artifact.URL, s.At = "https://elsewhere/x", "y.yaml:3" }), "bin/x") != first {
		t.Error("the digest depends on where an archive comes from")
	}
	for name, other := range map[string]string{
		"entry":  Digest(archive(nil), "bin/y"),
		"strip":  Digest(archive(func(s *InstallStep) { s.Strip = 0 }), "bin/x"),
		"format": Digest(archive(func(s *InstallStep) { s.Format = FormatZip }), "bin/x"),
		"into":   Digest(archive(func(s *InstallStep) { s.Into = "lib" }), "bin/x"),
		"sum":    Digest(archive(func(s *InstallStep) { s.Artifact = &Artifact{SHA256: "cd"} }), "bin/x"),
	} {
		if other == first {
			t.Errorf("another %s is not noticed", name)
		}
	}
}
