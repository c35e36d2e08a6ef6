package wire

import (
	"encoding/json"
	"reflect"
	"testing"
)

// TestStateDistinguishesNilCommands checks that the JSON encoding of a State distinguishes
// a machine without commands from a machine that was not probed for them.
func TestStateDistinguishesNilCommands(t *testing.T) {
	t.Parallel()
	for _, commands := range [][]string{nil, {}, {"cc"}} {
		data, err := json.Marshal(State{Commands: commands})
		if err != nil {
			t.Fatal(err)
		}
		var got State
		if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got.Commands, commands) {
			t.Errorf("Unmarshal(Marshal(%#v)) = %#v, %v, want the same value", commands, got.Commands, err)
		}
	}
}

// TestDigest checks that the digest of an install depends on the content and layout of its
// artifacts but not on their URLs, and that the digest of a single file is the checksum of the
// file.
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
		t.Errorf("Digest(file) = %s, want ab12", got)
	}
	if got := Digest([]InstallStep{{Kind: StepBuiltin, Builtin: "echo"}}, ""); got != "" {
		t.Errorf("Digest(built-in server) = %s, want an empty string", got)
	}
	first := Digest(archive(nil), "bin/x")
	if first == "ab12" {
		t.Errorf("Digest(archive) = %s, want another value than the checksum of the archive", first)
	}
	if got := Digest(archive(func(s *InstallStep) { s.Artifact.URL, s.Position = "https://other/x", "y.yaml:3" }), "bin/x"); got != first {
		t.Errorf("Digest(archive from another URL) = %s, want %s", got, first)
	}
	for name, other := range map[string]string{
		"entry":  Digest(archive(nil), "bin/y"),
		"strip":  Digest(archive(func(s *InstallStep) { s.Strip = 0 }), "bin/x"),
		"format": Digest(archive(func(s *InstallStep) { s.Format = FormatZip }), "bin/x"),
		"into":   Digest(archive(func(s *InstallStep) { s.Into = "lib" }), "bin/x"),
		"sum":    Digest(archive(func(s *InstallStep) { s.Artifact = &Artifact{SHA256: "cd"} }), "bin/x"),
	} {
		if other == first {
			t.Errorf("Digest(archive with another %s) = %s, want another value", name, other)
		}
	}
}
