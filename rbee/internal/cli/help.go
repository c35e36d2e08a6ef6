package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"
)

// commandHelp is the part of a command's help between its summary and its flags, and
// the exit codes.
type commandHelp struct {
	text     string   // paragraphs, separated by empty lines
	examples []string // command lines
	exits    string   // the exit codes that have a special meaning for this command
}

// helper is a command with more help than a summary.
type helper interface{ help() commandHelp }

// helpCmd prints the help of a command or a topic.
type helpCmd struct {
	Topic []string `arg:"" optional:"" help:"Command, or a topic: flags or exit-codes"`
}

// help implements [helper].
func (helpCmd) help() commandHelp {
	return commandHelp{examples: []string{"rbee help sync", "rbee help flags", "rbee help exit-codes"}}
}

// Run runs the command.
func (c *helpCmd) Run(ctx *kong.Context, a *app) error {
	w := newHelpWriter(a.p.Stdout)
	switch strings.Join(c.Topic, " ") {
	case "flags":
		w.globalFlags(ctx.Model.Node)
	case "exit-codes":
		w.exitCodes()
	default:
		_, err := ctx.Kong.Parse(append(c.Topic, "--help"))
		if errors.Is(err, errHelp) {
			return nil
		}
		return a.usage(err)
	}
	return w.flush()
}

// errHelp ends parsing after the help was printed.
var errHelp = errors.New("help requested")

// helpFlag prints the help of the command it is given to.
type helpFlag bool

// BeforeReset prints the help. kong calls it before it checks the flags.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}

// printHelp implements [kong.HelpPrinter].
func printHelp(_ kong.HelpOptions, ctx *kong.Context) error {
	w := newHelpWriter(ctx.Stdout)
	if node := ctx.Selected(); node != nil {
		w.command(node)
	} else {
		w.root(ctx.Model.Node)
	}
	return w.flush()
}

// maxHelpWidth limits the width of help on wide terminals, in columns.
const maxHelpWidth = 100

// helpWriter formats help in lines of at most width columns.
type helpWriter struct {
	out   io.Writer
	width int
	text  strings.Builder
}

func newHelpWriter(out io.Writer) *helpWriter {
	columns, _ := terminalSize(out)()
	return &helpWriter{out: out, width: min(columns, maxHelpWidth)}
}

func (w *helpWriter) flush() error {
	_, err := io.WriteString(w.out, w.text.String())
	return err
}

func (w *helpWriter) line(text string) { w.text.WriteString(text + "\n") }

// paragraphs writes text with wrapped lines.
func (w *helpWriter) paragraphs(text string) {
	for i, p := range strings.Split(text, "\n\n") {
		if i > 0 {
			w.line("")
		}
		for _, line := range wrap(p, w.width) {
			w.line(line)
		}
	}
}

// rows writes two columns and wraps the text of the second one. left is the width of
// the first column.
func (w *helpWriter) rows(rows [][2]string, left int) {
	const gap = 2
	for _, row := range rows {
		lines := wrap(row[1], max(w.width-left-2*gap, 20))
		first := row[0]
		if len(first) > left {
			w.line("  " + first)
			first = ""
		}
		for _, line := range lines {
			w.line(fmt.Sprintf("  %-*s  %s", left, first, line))
			first = ""
		}
	}
}

// table writes rows with a first column as wide as its content, up to a limit.
func (w *helpWriter) table(title string, rows [][2]string) {
	if len(rows) == 0 {
		return
	}
	const maxLeft = 28
	w.line("")
	w.line(title)
	left := 0
	for _, row := range rows {
		if n := len(row[0]); n <= maxLeft {
			left = max(left, n)
		}
	}
	w.rows(rows, left)
}

// wrap breaks text between words into lines of at most width columns.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(text) {
		switch {
		case line == "":
			line = word
		case len(line)+1+len(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	return append(lines, line)
}

// root writes the help of the program: its commands by group.
func (w *helpWriter) root(root *kong.Node) {
	w.paragraphs(root.Help)
	w.line("")
	w.line("Usage: rbee COMMAND [flags]")
	left := 0
	for _, c := range root.Children {
		if !c.Hidden {
			left = max(left, len(c.Name))
		}
	}
	group := ""
	for _, c := range root.Children {
		if c.Hidden {
			continue
		}
		if c.Group.Key != group {
			group = c.Group.Key
			w.line("")
			w.line(c.Group.Title)
		}
		w.rows([][2]string{{c.Name, c.Help}}, left)
	}
	w.line("")
	w.line("Global flags: -c FILE, --json, -q, -v, --queen URL, --no-color, -h")
	w.line("Run `rbee COMMAND --help` for a command, `rbee help flags` for all global flags,")
	w.line("and `rbee help exit-codes` for the exit codes.")
}

// command writes the help of a command, or of a group of commands such as key.
func (w *helpWriter) command(node *kong.Node) {
	w.paragraphs(node.Help + ".")
	w.line("")
	w.line("Usage: " + usageLine(node))
	var h commandHelp
	if c, ok := node.Target.Addr().Interface().(helper); ok {
		h = c.help()
	}
	if h.text != "" {
		w.line("")
		w.paragraphs(h.text)
	}
	if len(h.examples) > 0 {
		w.line("")
		w.line("Examples:")
		for _, e := range h.examples {
			w.line("  " + e)
		}
	}
	var commands, arguments [][2]string
	for _, c := range node.Children {
		if !c.Hidden {
			commands = append(commands, [2]string{c.Name, c.Help})
		}
	}
	for _, p := range node.Positional {
		arguments = append(arguments, [2]string{strings.ToUpper(p.Name), p.Help})
	}
	w.table("Commands:", commands)
	w.table("Arguments:", arguments)
	w.table("Flags:", flagRows(node, false))
	w.line("")
	if len(commands) > 0 {
		w.line(fmt.Sprintf("Run `%s COMMAND --help` for a command.", node.FullPath()))
	}
	if h.exits != "" {
		w.paragraphs("Exit codes: " + h.exits + ". All: `rbee help exit-codes`")
	}
	w.line("Global flags: `rbee help flags`")
}

// usageLine returns the usage of a command with its required flags and arguments.
func usageLine(node *kong.Node) string {
	usage := node.FullPath()
	if len(node.Children) > 0 {
		return usage + " COMMAND [flags]"
	}
	for _, f := range node.Flags {
		if f.Required {
			usage += " " + flagName(f)
		}
	}
	after := ""
	for _, p := range node.Positional {
		name := strings.ToUpper(p.Name)
		switch {
		case name == engineFlags:
			after = " [-- " + name + "]"
			continue
		case p.IsCumulative():
			name += "..."
		}
		if !p.Required {
			name = "[" + name + "]"
		}
		usage += " " + name
	}
	return usage + " [flags]" + after
}

// engineFlags is the name of the argument that takes the flags after "--".
const engineFlags = "ENGINE-FLAGS"

// flagName returns a flag with the name of its value, such as "--hive ALIAS".
func flagName(f *kong.Flag) string {
	name := "--" + f.Name
	if !f.IsBool() {
		name += " " + cmp.Or(f.PlaceHolder, strings.ToUpper(f.Name))
	}
	return name
}

// flagRows returns the rows of a table with the command's own flags or the global ones.
func flagRows(node *kong.Node, global bool) [][2]string {
	var flags []*kong.Flag
	short := false
	for _, group := range node.AllFlags(true) {
		for _, f := range group {
			if isGlobal := f.Group != nil && f.Group.Key == globalGroup; isGlobal == global {
				flags = append(flags, f)
				short = short || f.Short != 0
			}
		}
	}
	rows := make([][2]string, 0, len(flags))
	for _, f := range flags {
		name := flagName(f)
		switch {
		case f.Short != 0:
			name = "-" + string(f.Short) + ", " + name
		case short:
			name = "    " + name
		}
		rows = append(rows, [2]string{name, f.Help})
	}
	return rows
}

// globalFlags writes the flags that every command accepts.
func (w *helpWriter) globalFlags(root *kong.Node) {
	w.paragraphs("Every command accepts these flags.")
	w.table("Global flags:", flagRows(root, true))
}

// exitCodes writes the exit codes of all commands.
func (w *helpWriter) exitCodes() {
	w.paragraphs("All commands use these exit codes.")
	rows := make([][2]string, 0, len(exitMeanings))
	for _, e := range exitMeanings {
		rows = append(rows, [2]string{fmt.Sprintf("%3d", e.code), e.meaning})
	}
	w.table("Exit codes:", rows)
}
