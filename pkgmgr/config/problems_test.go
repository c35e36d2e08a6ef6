package config

import (
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

func TestParseReportsProblems(t *testing.T) {
	t.Parallel()
	const hive = "[[hive]]\nalias = \"a\"\nhostname = \"h\"\n" // lines 1 to 3
	const yml = "hive:\n- alias: a\n  hostname: h\n"           // lines 1 to 3
	tests := []struct {
		name, file, text string
		want             []string
	}{
		{"wrong level", "c", "alias = \"x\"\n", []string{`1:1 unknown key "alias" (it belongs in hive)`}},
		{"plural", "c", "[[hives]]\n", []string{`1:3 unknown key "hives" (did you mean "hive"?)`}},
		{"one bracket", "c", "[hive]\nalias=\"a\"\n", []string{`1:2 hive is a table (want a list: write [[hive]] with two brackets)`}},
		{"missing", "c", "[[hive]]\n", []string{`1:1 hive 1 has no alias (for example "gpu-1")`, `1:1 hive 1 has no hostname (for example "192.168.1.100")`}},
		{"bare worker", "c", hive + "workers = [\"vllm\"]\n", []string{`4:12 a: workers 1 is a string (want a table, for example { type = "vllm", version = "latest" })`}},
		{"worker", "c", hive + "workers = [{ typ = \"x\" }, { type = \"Vllm\", version = 1.2 }]\n", []string{
			`4:12 a: workers 1 has no type (for example "vllm")`,
			`4:14 a: unknown key "typ" (did you mean "type"?)`,
			`4:36 a: invalid worker type "Vllm" (want lowercase letters, digits and dashes, at most 63 characters)`,
			`4:54 a: version is a decimal number (want a string in quotes: "1.2")`,
		}},
		{"worker twice", "c", hive + "workers = [{ type = \"echo\" },\n {type=\"echo\"}]\n", []string{`5:8 a: duplicate worker "echo", first defined on line 4 (a hive has one version of each worker)`}},
		{"ports", "c", hive + "ssh_port = 0\nhive_port = 70000\n", []string{
			`4:12 a: invalid ssh_port 0 (want 1 to 65535)`, `5:13 a: invalid hive_port 70000 (want 1 to 65535)`,
		}},
		{"alias twice", "c", hive + "[[hive]]\nalias = \"a\"\nhostname = \"i\"\n", []string{`5:9 a: duplicate alias "a", first defined on line 1 (each hive has a unique alias)`}},
		{"address twice", "c", hive + "ssh_port = 22\n[[hive]]\nalias = \"b\"\nhostname = \"h\"\n", []string{`7:12 b: duplicate address h, also used by hive "a" on line 1 (a hive is one account on one machine)`}},
		{"host", "c", "[[hive]]\nalias=\"a\"\nhostname=\"vince@h\"\n[[hive]]\nalias=\"b\"\nhostname=\"h:22\"\n[[hive]]\nalias=\"c\"\nhostname=\"-oProxyCommand=x\"\n", []string{
			`3:10 a: invalid hostname "vince@h" (the user belongs in ssh_user)`,
			`6:10 b: invalid hostname "h:22" (the port belongs in ssh_port)`,
			`9:10 c: invalid hostname "-oProxyCommand=x" (want a host name, an IP address or localhost)`,
		}},
		{"names", "c", "[[hive]]\nalias=\"a b\"\nhostname=\"h\"\nssh_user=\"-x\"\nssh_key=\"\"\nlabels=[\"a,b\"]\nauto_start=\"true\"\n", []string{
			`2:7 invalid alias "a b" (want letters, digits, dot, dash and underscore, at most 63 characters)`,
			`4:10 invalid ssh_user "-x" (want letters, digits, dot, dash, underscore and @, at most 64 characters)`,
			`5:9 invalid ssh_key "" (want the path of a private key)`,
			`6:9 invalid label "a,b" (want letters, digits and . _ : / = -, at most 63 characters)`,
			`7:12 auto_start is a string (want true or false, without quotes)`,
		}},
		{"key twice", "c", "[[hive]]\nalias=\"a\"\nalias=\"b\"\nhostname=\"h\"\n", []string{`3:1 duplicate key "alias" (first defined on line 2)`}},
		{"table twice", "c", "[x]\n[x]\n", []string{`1:2 unknown key "x" (known keys: hive)`, `2:2 invalid TOML: table x already exists`}},
		{"broken", "c", "[[hive]]\nalias = \n", []string{`2:9 invalid TOML: unexpected character U+000A at start of value`}},

		{"yaml types", "c.yaml", yml + "  ssh_user: 7\n  auto_start: yes\n  labels: gpu\n", []string{
			`4:13 a: ssh_user is an integer (want a string in quotes: "7")`,
			`5:15 a: auto_start is a string (want true or false, without quotes)`,
			`6:11 a: labels is a string (want a list, for example ["gpu", "office"])`,
		}},
		{"yaml empty", "c.yaml", "hive:\n- alias: a\n  hostname:\n", []string{`3:12 a: hostname is empty (want a string, for example "192.168.1.100")`}},
		{"yaml twice", "c.yml", yml + "  alias: b\n", []string{`4:3 duplicate key "alias" (first defined on line 2)`}},
		{"yaml documents", "c.yaml", yml + "---\nhive: []\n", []string{`4:1 the file has more than one YAML document (remove the --- line)`}},
		{"yaml root", "c.yaml", "- a\n", []string{`1:1 the file is a list (want keys with values)`}},
		{"yaml key", "c.yaml", "[a]: b\n", []string{`1:1 invalid key (want a string)`}},
		{"yaml large", "c.yaml", yml + "  ssh_port: 99999999999999999999\n", []string{`4:13 a: ssh_port is a decimal number (want an integer, for example 22)`}},
		{"yaml worker", "c.yaml", yml + "  workers: [vllm]\n", []string{`4:13 a: workers 1 is a string (want a table, for example { type: "vllm", version: "latest" })`}},
		{"yaml merge", "c.yaml", "hive:\n- <<: 1\n  alias: a\n  hostname: h\n", []string{`2:7 invalid value of merge key << (want a table, for example the alias *name of a table with the anchor &name)`}},
		{"yaml broken", "c.yaml", "hive: [\n", []string{`1:0 invalid YAML: did not find expected node content`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.file, []byte(tt.text))
			checkProblems(t, err, tt.want)
		})
	}
}

// TestParseLimitsExpansion checks that Parse rejects files that would exhaust memory.
func TestParseLimitsExpansion(t *testing.T) {
	t.Parallel()
	laughs := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'k'; c++ {
		laughs += string(c) + ": &" + string(c) + " [" + strings.Repeat("*"+string(c-1)+",", 9) + "]\n"
	}
	for name, tt := range map[string]struct{ file, text, want string }{
		"aliases":   {"c.yaml", laughs, "has more than 20000 values after alias expansion"},
		"self":      {"c.yaml", "hive: &a [*a]\n", "nested more than 64 levels deep"},
		"deep yaml": {"c.yaml", strings.Repeat("[", 500) + strings.Repeat("]", 500), "nested more than 64 levels deep"},
		"deep toml": {"c", "hive = " + strings.Repeat("[", 500) + strings.Repeat("]", 500), "nested more than 64 levels deep"},
	} {
		if _, err := Parse(tt.file, []byte(tt.text)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%s) = %v, want %q", name, err, tt.want)
		}
	}
}

func TestValidNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("a", 300)
	for _, tt := range []struct {
		name           string
		valid          func(string) bool
		accept, reject []string
	}{
		{"alias", ValidAlias, []string{"a", "gpu-1.x_y", long[:63]}, []string{"", "-a", ".a", "a b", "a/b", "é", "a\n", long[:64]}},
		{"user", ValidUser, []string{"vince", "_x", "me@corp.example"}, []string{"", "-l", "a b", "a;b", "$x", long[:65]}},
		{"label", ValidLabel, []string{"gpu", "zone=eu/1", "a:b"}, []string{"", "a,b", "=x", "a b"}},
		{"type", ValidWorkerType, []string{"vllm", "llama-cpp", "3d"}, []string{"", "Vllm", "a_b", "-a", "../x", "a.b"}},
		{"version", version.Valid, []string{"latest", "1.2", "b1234", "1.0+cu12", long[:64]}, []string{"", ".1", "1 2", "1/2", "-1", long[:65]}},
		{
			"hostname", ValidHostname,
			[]string{"h", "localhost", "10.0.0.1", "::1", "fe80::1%en0", "a.b-c_d", "1", long[:253]},
			[]string{"", "-h", ".h", "a b", "a$b", "a`b", "[::1]", "1.2.3", "1.2.3.400", "::g", "::1%", ":", "a:1", "h\n", long[:254]},
		},
	} {
		for _, s := range tt.accept {
			if !tt.valid(s) {
				t.Errorf("%s %q is invalid, want valid", tt.name, s)
			}
		}
		for _, s := range tt.reject {
			if tt.valid(s) {
				t.Errorf("%s %q is valid, want invalid", tt.name, s)
			}
		}
	}
}
