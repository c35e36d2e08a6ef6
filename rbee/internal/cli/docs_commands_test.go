package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/alecthomas/kong"
)

// TestDocsCommands checks every rbee command in the README, the manuals and the help: commands of
// shell blocks and examples must be complete, and commands in text must name existing commands and flags.
func TestDocsCommands(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../../../*.md", "../../../docs/*.md"} {
		matches, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, matches...)
	}
	checked := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range shellLines(string(data)) {
			for _, args := range rbeeCommands(line) {
				checked++
				if err := parseArgs(args); err != nil {
					t.Errorf("%s: parsing %q: %v, want a valid command", file, line, err)
				}
			}
		}
		for _, code := range inlineCode.FindAllStringSubmatch(fencedBlock.ReplaceAllString(string(data), ""), -1) {
			for _, args := range rbeeCommands(strings.ReplaceAll(code[1], "\n", " ")) {
				checked++
				if err := checkNames(args); err != nil {
					t.Errorf("%s: `%s`: %v, want existing commands and flags", file, code[1], err)
				}
			}
		}
	}
	if checked < 80 {
		t.Errorf("checked %d commands in the documentation, want at least 80", checked)
	}

	examples := 0
	var g grammar
	parser, err := newParser(&g, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		n, ok := node.(*kong.Node)
		if !ok || !n.Target.CanAddr() {
			return next(nil)
		}
		c, ok := n.Target.Addr().Interface().(helper)
		if !ok {
			return next(nil)
		}
		h := c.help()
		for _, example := range h.examples {
			for _, args := range rbeeCommands(example) {
				examples++
				if err := parseArgs(args); err != nil {
					t.Errorf("help of %s: parsing %q: %v, want a valid command", n.FullPath(), example, err)
				}
			}
		}
		for _, code := range inlineCode.FindAllStringSubmatch(h.text, -1) {
			for _, args := range rbeeCommands(code[1]) {
				if err := checkNames(args); err != nil {
					t.Errorf("help of %s: `%s`: %v, want existing commands and flags", n.FullPath(), code[1], err)
				}
			}
		}
		return next(nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if examples < 40 {
		t.Errorf("checked %d examples of help texts, want at least 40", examples)
	}
}

var (
	fencedBlock = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	inlineCode  = regexp.MustCompile("`([^`]+)`")
)

// shellLines returns the command lines of the sh and console blocks of a Markdown text.
func shellLines(text string) []string {
	var lines []string
	for _, block := range fencedBlock.FindAllStringSubmatch(text, -1) {
		body := strings.ReplaceAll(block[2], "\\\n", " ")
		for line := range strings.Lines(body) {
			line = strings.TrimSuffix(line, "\n")
			switch block[1] {
			case "sh":
				lines = append(lines, line)
			case "console":
				if command, ok := strings.CutPrefix(line, "$ "); ok {
					lines = append(lines, command)
				}
			}
		}
	}
	return lines
}

// rbeeCommands returns the arguments of each rbee command in a line of shell. It supports
// quotes, comments, pipelines, lists, variable assignments and redirections of output.
func rbeeCommands(line string) [][]string {
	var commands [][]string
	var words []string
	word, inWord := "", false
	endWord := func() {
		if inWord {
			words = append(words, word)
		}
		word, inWord = "", false
	}
	endCommand := func() {
		endWord()
		for len(words) > 0 && (words[0] == "export" || regexp.MustCompile(`^[A-Z_]+=`).MatchString(words[0])) {
			words = words[1:]
		}
		if len(words) > 1 && words[0] == "rbee" {
			args := words[1:]
			for i, arg := range args {
				if arg == ">" || arg == ">>" {
					args = args[:i]
					break
				}
			}
			commands = append(commands, args)
		}
		words = nil
	}
	quote := rune(0)
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word += string(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '#' && !inWord:
			endCommand()
			return commands
		case r == ' ' || r == '\t':
			endWord()
		case strings.ContainsRune("|;&()", r):
			word = strings.TrimSuffix(word, "$")
			endCommand()
		default:
			word, inWord = word+string(r), true
		}
	}
	endCommand()
	return commands
}

// parseArgs parses the arguments of a command without running it.
func parseArgs(args []string) error {
	var g grammar
	parser, err := newParser(&g, io.Discard)
	if err != nil {
		return err
	}
	if _, err = parser.Parse(args); errors.Is(err, errHelp) {
		return nil
	}
	return err
}

// checkNames checks that the command and the flags in args exist. Values may be placeholders.
func checkNames(args []string) error {
	var g grammar
	parser, err := newParser(&g, io.Discard)
	if err != nil {
		return err
	}
	node := parser.Model.Node
	flags := map[string]bool{}
	addFlags := func(n *kong.Node) {
		for _, f := range n.Flags {
			flags["--"+f.Name] = true
			if f.Short != 0 {
				flags["-"+string(f.Short)] = true
			}
		}
	}
	addFlags(node)
	for i, arg := range args {
		if arg == "--" {
			return nil
		}
		if name, _, _ := strings.Cut(arg, "="); strings.HasPrefix(arg, "-") {
			if !flags[name] {
				return fmt.Errorf("%s has no flag %s", node.FullPath(), name)
			}
			continue
		}
		if len(node.Children) == 0 || i > 0 && strings.HasPrefix(args[i-1], "-") {
			continue
		}
		var child *kong.Node
		for _, c := range node.Children {
			if c.Name == arg || arg != "" && strings.Contains(","+strings.Join(c.Aliases, ",")+",", ","+arg+",") {
				child = c
			}
		}
		if child == nil {
			if strings.ToUpper(arg) == arg { // a placeholder, such as COMMAND
				return nil
			}
			return fmt.Errorf("%s has no command %s", node.FullPath(), arg)
		}
		node = child
		addFlags(node)
	}
	return nil
}

func TestRbeeCommands(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		`rbee status # drift`:                            `[[status]]`,
		`rbee infer "two words" --model m > out.txt`:     `[[infer two words --model m]]`,
		`export K=$(rbee key add me --scope admin)`:      `[[key add me --scope admin]]`,
		`git diff | rbee infer --model m`:                `[[infer --model m]]`,
		`rbee key add laptop && rbee serve --host a`:     `[[key add laptop] [serve --host a]]`,
		`RBEE_QUEEN=http://a rbee status`:                `[[status]]`,
		`curl http://127.0.0.1:8500/v1/models`:           `[]`,
		`rbee --queen https://queen.lan:8500#SHA256:abc`: `[[--queen https://queen.lan:8500#SHA256:abc]]`,
		`rbee spawn-worker --model m -- --enforce-eager`: `[[spawn-worker --model m -- --enforce-eager]]`,
		`rbee init --ssh-config 'gpu-*'`:                 `[[init --ssh-config gpu-*]]`,
	} {
		if got := fmt.Sprint(rbeeCommands(line)); got != want {
			t.Errorf("rbeeCommands(%q) = %s, want %s", line, got, want)
		}
	}
}
