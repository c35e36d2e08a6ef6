package config

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/pelletier/go-toml/v2"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

const schemaFile = "hives.schema.json"

func readDoc(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(readDoc(t, schemaFile)))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource(schemaFile, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(schemaFile)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON decodes a config file without rbee and returns the value for schema validation.
func asJSON(t *testing.T, name string, data []byte) any {
	t.Helper()
	v := map[string]any{}
	unmarshal := toml.Unmarshal
	if strict.SyntaxOf(name) == strict.YAML {
		unmarshal = yaml.Unmarshal
	}
	if err := unmarshal(data, &v); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestSchemaExamples(t *testing.T) {
	t.Parallel()
	s := schema(t)
	for _, name := range []string{"hives.conf.example.toml", "hives.conf.example.yaml"} {
		if err := s.Validate(asJSON(t, name, readDoc(t, name))); err != nil {
			t.Errorf("Validate(%s) = %v, want nil", name, err)
		}
	}
}

// TestSchemaAgreesWithParse checks that the schema and Parse accept the same files.
func TestSchemaAgreesWithParse(t *testing.T) {
	t.Parallel()
	s := schema(t)
	const hive = "[[hive]]\nalias='a'\nhostname='h'\n"
	for _, tt := range []struct {
		text string
		ok   bool
	}{
		{"", true},
		{hive, true},
		{"[[hive]]\nalias='a'\nhostname='[::1]'\nssh_key='k'\nlabels=['x']\nworkers=[{type='w',version='1+x'}]\n", true},
		{"alias='a'\n", false},
		{"[hive]\nalias='a'\nhostname='h'\n", false},
		{"[[hive]]\nalias='a'\n", false},
		{"[[hive]]\nhostname='h'\n", false},
		{"[[hive]]\nalias=''\nhostname='h'\n", false},
		{"[[hive]]\nalias='a b'\nhostname='h'\n", false},
		{"[[hive]]\nalias='a'\nhostname='-h'\n", false},
		{"[[hive]]\nalias='a'\nhostname='u@h'\n", false},
		{"[[hive]]\nalias='a'\nhostname='h:22'\n", false},
		{hive + "nope=1\n", false},
		{hive + "ssh_port=0\n", false},
		{hive + "ssh_port='22'\n", false},
		{hive + "hive_port=65536\n", false},
		{hive + "ssh_user='-u'\n", false},
		{hive + "ssh_key=''\n", false},
		{hive + "ssh_key=\"a\\u0007\"\n", false},
		{hive + "labels=['a,b']\n", false},
		{hive + "labels='a'\n", false},
		{hive + "auto_start='yes'\n", false},
		{hive + "workers=['vllm']\n", false},
		{hive + "workers=[{version='1'}]\n", false},
		{hive + "workers=[{type='V'}]\n", false},
		{hive + "workers=[{type='v',version='a b'}]\n", false},
		{hive + "workers=[{type='v',versoin='1'}]\n", false},
	} {
		err := s.Validate(asJSON(t, "c.toml", []byte(tt.text)))
		if (err == nil) != tt.ok {
			t.Errorf("Validate(%q) = %v, want valid: %t", tt.text, err, tt.ok)
		}
		if _, err := Parse("c.toml", []byte(tt.text)); (err == nil) != tt.ok {
			t.Errorf("Parse(%q) = %v, want valid: %t", tt.text, err, tt.ok)
		}
	}
}

type schemaObject struct {
	Properties map[string]struct {
		Pattern string
		Items   struct{ Pattern string }
		Default any
	}
	Required             []string
	AdditionalProperties *bool
}

// TestSchemaMatchesStructs checks that the schema has the keys, required keys and patterns of
// the structs.
func TestSchemaMatchesStructs(t *testing.T) {
	t.Parallel()
	var doc struct {
		schemaObject
		Defs struct{ Hive, Worker schemaObject } `json:"$defs"`
	}
	if err := json.Unmarshal(readDoc(t, schemaFile), &doc); err != nil {
		t.Fatal(err)
	}
	hive, worker := doc.Defs.Hive, doc.Defs.Worker
	for _, tt := range []struct {
		name   string
		in     any
		schema schemaObject
	}{{"file", configFile{}, doc.schemaObject}, {"hive", hiveEntry{}, hive}, {"worker", workerEntry{}, worker}} {
		known, required := strict.Keys(tt.in)
		var properties []string
		for k := range tt.schema.Properties {
			properties = append(properties, k)
		}
		slices.Sort(known)
		slices.Sort(properties)
		slices.Sort(required)
		slices.Sort(tt.schema.Required)
		if !slices.Equal(known, properties) || !slices.Equal(required, tt.schema.Required) {
			t.Errorf("%s: the schema has keys %v and requires %v, want %v and %v", tt.name, properties, tt.schema.Required, known, required)
		}
		if a := tt.schema.AdditionalProperties; a == nil || *a {
			t.Errorf("%s: the schema permits unknown keys, want additionalProperties false", tt.name)
		}
	}
	for got, want := range map[string]string{
		hive.Properties["alias"].Pattern: aliasPattern, hive.Properties["hostname"].Pattern: hostnamePattern,
		hive.Properties["ssh_user"].Pattern: userPattern, hive.Properties["labels"].Items.Pattern: labelPattern,
		worker.Properties["type"].Pattern: workerTypePattern, worker.Properties["version"].Pattern: version.ConstraintPattern,
	} {
		if got != want {
			t.Errorf("the schema has pattern %s, want %s", got, want)
		}
	}
	if hive.Properties["hive_port"].Default != float64(DefaultHivePort) || hive.Properties["auto_start"].Default != true || worker.Properties["version"].Default != version.Latest {
		t.Errorf("the schema has defaults %v, %v, %v, want %d, true, %s", hive.Properties["hive_port"].Default, hive.Properties["auto_start"].Default,
			worker.Properties["version"].Default, DefaultHivePort, version.Latest)
	}
}
