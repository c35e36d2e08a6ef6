package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
)

// completeCommand is the command that completion scripts run. Its arguments are the
// words of the command line; it completes the last word. Each line of output is a
// word, a tab and a description.
const completeCommand = "__complete"

type completionCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"Shell to print the script for: bash, zsh or fish"`
}

// help implements [helper].
func (completionCmd) help() commandHelp {
	return commandHelp{
		text: "The script completes commands, flags, hive aliases and worker types.",
		examples: []string{
			`source <(rbee completion bash)`,
			`rbee completion zsh > "${fpath[1]}/_rbee"`,
			`rbee completion fish > ~/.config/fish/completions/rbee.fish`,
		},
	}
}

// Run runs the command.
func (c *completionCmd) Run(a *app) error {
	_, err := io.WriteString(a.p.Stdout, completionScripts[c.Shell])
	return err
}

var completionScripts = map[string]string{
	"bash": `# bash completion for rbee
_rbee() {
	local line words=("${COMP_WORDS[@]:1:COMP_CWORD}")
	COMPREPLY=()
	while IFS= read -r line; do
		COMPREPLY+=("${line%%$'\t'*}")
	done < <("${COMP_WORDS[0]}" __complete -- "${words[@]}" 2>/dev/null)
}
complete -o bashdefault -o default -F _rbee rbee
`,
	"zsh": `#compdef rbee
_rbee() {
	local line
	local -a answers
	for line in "${(@f)$("${words[1]}" __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
		[[ -n "$line" ]] && answers+=("${${line//:/\\:}/$'\t'/:}")
	done
	if (( ${#answers} )); then
		_describe 'rbee' answers
	else
		_files
	fi
}
if [[ "${funcstack[1]}" == _rbee ]]; then
	_rbee "$@"
else
	compdef _rbee rbee
fi
`,
	"fish": `# fish completion for rbee
function __rbee_complete
	set -l before (commandline -opc)
	set -l current (commandline -ct)
	rbee __complete -- $before[2..-1] "$current" 2>/dev/null
end
complete -c rbee -f -a '(__rbee_complete)'
complete -c rbee -l config -s c -r -F
complete -c rbee -l ssh-config-file -r -F
complete -c rbee -l binaries -r -F
complete -c rbee -l output -s o -r -F
`,
}

// complete prints the candidates for a completion script. It ignores errors except
// write errors.
func (a *app) complete(ctx context.Context, root *kong.Node, words []string) error {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	if len(words) == 0 {
		words = []string{""}
	}
	words = joinEquals(words)
	before, current := words[:len(words)-1], words[len(words)-1]
	c := completer{a: a, node: root, aliases: func() []string { return a.aliases(ctx) }}
	for _, candidate := range c.candidates(before, current) {
		if _, err := fmt.Fprintln(a.p.Stdout, candidate); err != nil {
			return err
		}
	}
	return nil
}

// joinEquals removes the "=" words, since bash splits --flag=value into three words.
func joinEquals(words []string) []string {
	out := slices.DeleteFunc(slices.Clone(words[:len(words)-1]), func(w string) bool { return w == "=" })
	last := words[len(words)-1]
	if last == "=" {
		last = ""
	}
	return append(out, last)
}

// aliases returns the aliases of the known hives, or nil after an error.
func (a *app) aliases(ctx context.Context) []string {
	report, err := a.runOperation(ctx, operations.HiveList{ConfigPath: a.config()}, nil)
	list, ok := report.(*operations.HiveListReport)
	if err != nil || !ok {
		return nil
	}
	var names []string
	for _, h := range list.Hives {
		names = append(names, h.Alias)
	}
	return names
}

// workerTypes returns the worker types with a recipe, or nil after an error.
func (a *app) workerTypes() []string {
	paths, err := a.paths()
	if err != nil {
		return nil
	}
	catalog, err := catalog.Load(paths.Recipes())
	if err != nil {
		return nil
	}
	return catalog.Types()
}

// completer follows a command line through the grammar.
type completer struct {
	a       *app
	node    *kong.Node
	aliases func() []string
}

// candidates returns the completions of current after the words before it.
func (c *completer) candidates(before []string, current string) []string {
	if slices.Contains(before, "--") {
		return nil // flags of an engine
	}
	pending, positional := c.follow(before)
	switch {
	case pending != nil:
		return c.values(pending.Value, "", current)
	case strings.HasPrefix(current, "-"):
		if name, value, ok := strings.Cut(current, "="); ok {
			if flag := c.flag(name); flag != nil {
				return c.values(flag.Value, name+"=", value)
			}
			return nil
		}
		return c.flagNames(current)
	}
	var out []string
	for _, child := range c.node.Children {
		if !child.Hidden && strings.HasPrefix(child.Name, current) {
			out = append(out, child.Name+"\t"+child.Help)
		}
	}
	if positional < len(c.node.Positional) {
		out = append(out, c.values(c.node.Positional[positional], "", current)...)
	}
	return out
}

// follow selects the command that the words name. pending is the flag whose value
// is completed, or nil; positional is the number of arguments before it.
func (c *completer) follow(words []string) (pending *kong.Flag, positional int) {
	for _, word := range words {
		switch {
		case pending != nil:
			if pending.Name == "config" {
				c.a.flags().Config = word
			}
			pending = nil
		case strings.HasPrefix(word, "-"):
			name, value, hasValue := strings.Cut(word, "=")
			flag := c.flag(name)
			switch {
			case flag != nil && !flag.IsBool() && !hasValue:
				pending = flag
			case flag != nil && flag.Name == "config":
				c.a.flags().Config = value
			}
		default:
			if i := slices.IndexFunc(c.node.Children, func(n *kong.Node) bool { return n.Name == word }); i >= 0 {
				c.node, positional = c.node.Children[i], 0
			} else {
				positional++
			}
		}
	}
	return pending, positional
}

// flag returns the flag with the name or letter in word, or nil.
func (c *completer) flag(word string) *kong.Flag {
	for _, group := range c.node.AllFlags(true) {
		for _, f := range group {
			if word == "--"+f.Name || (f.Short != 0 && word == "-"+string(f.Short)) {
				return f
			}
		}
	}
	return nil
}

// flagNames returns the flags that start with current.
func (c *completer) flagNames(current string) []string {
	var out []string
	for _, group := range c.node.AllFlags(true) {
		for _, f := range group {
			if name := "--" + f.Name; strings.HasPrefix(name, current) {
				out = append(out, name+"\t"+f.Help)
			}
		}
	}
	slices.Sort(out)
	return out
}

// values returns the known values of a flag or an argument.
func (c *completer) values(v *kong.Value, prefix, current string) []string {
	var known []string
	switch {
	case v.Enum != "":
		known = v.EnumSlice()
	case v.Name == "hive" || v.Name == "alias":
		known = c.aliases()
	case v.Name == "device" && c.node.Name == "spawn-worker":
		known = []string{operations.DeviceAuto, operations.DeviceNone}
	case v.Name == "worker" && v.Flag != nil:
		known = c.a.workerTypes()
	}
	var out []string
	for _, k := range known {
		if strings.HasPrefix(k, current) {
			out = append(out, prefix+k)
		}
	}
	return out
}
