package rbee

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// wordingFile holds the limits: one line per directory with the number of
// comment lines, messages, lines of other texts, and test failure messages
// that may match.
const wordingFile = "testdata/wording.txt"

var (
	updateWording = flag.Bool("update-wording", false, "lower the limits in "+wordingFile+" to the current numbers")
	listWording   = flag.String("list-wording", "", "fail with every place of odd wording at or below this `directory`")
)

// phrases are the expressions that this project does not use, with what to
// write instead. They find candidates: a sentence that avoids them can still
// be hard to read.
var phrases = []struct{ expr, instead string }{
	{`\b([Tt]ells?|told|telling)\b`, "report, return, send"},
	{`\bwords (a|an|the|for|why|it|what|its|how)\b|\bits words\b|\bown words?\b`, "format, describe, X's message"},
	{`\banew\b`, "again"},
	{`\b(is|are|was|were) (no|none|nobody|nothing)\b`, "is not, has no, no X exists"},
	{`\b[Ss]hall\b`, "the imperative, or must"},
	{`\b([Nn]obody|[Ss]omebody|[Aa]nybody|[Ee]verybody|[Ww]hoever|[Ww]ho [a-z]+s\b|those (who|that)|others')`, "the noun: client, user, process"},
	{`(^|[.;:,] |\b)[Ww]hat (is|was|are|were|differs|it|came|comes|has|they|a|the|they|an) `, "a noun instead of the clause"},
	{`\b(lies|lie|lay)\b`, "is stored, is"},
	{`\b(gone on with|goes on|go on|went on|put back|put right|put away|given up|gives up)\b`, "continue, restore, fix, remove, abandon"},
	{`\b(but for|for want of|by then|now and then|in their place|in the place of|of its own|of their own|of whatever|that of|those of)\b`, "except, without, periodically, instead of, its own"},
	{`\b(begun|begins|begin|began)\b`, "start, started"},
	{`\b(come|comes|came) to\b`, "result in, reach, resolve to"},
	{`\b([Oo]ne (that|of|which|who)|of which|of whom)\b`, "the noun, or a second sentence"},
	{`\b(says|said|say)\b`, "report, state, print"},
	{`\b(so long|so many|so much)\b`, "while, this many"},
	{`\b(meanwhile|beside|besides|likewise|alike|afterwards|elsewhere|otherwise than)\b`, "then, next to, also"},
	{`\b[Ww]ish(es)?\b`, "version constraint, request"},
	{`\b(mend|mends|mended|the way to|whole)\b`, "fix, complete"},
	{`\b([Aa]rtefacts?|[Cc]ancell(ed|ing)|[Bb]ehaviours?|[Cc]olour(s|ed)?|[Hh]onours?|[Rr]ecognis(e|es|ed)|[Nn]ormalis(e|es|ed)|[Cc]atalogue)\b`, "the American spelling"},
	{`\b(whom|thereof|therein|whereof|hitherto|whence|stead|[Ss]trangers?)\b`, "plain, current English"},
}

// wordingCounts are the numbers of one directory.
type wordingCounts struct{ comments, messages, text, bare int }

// fields returns pointers to the counts, in the order of the file.
func (c *wordingCounts) fields() []*int { return []*int{&c.comments, &c.messages, &c.text, &c.bare} }

// finding is a place that matches.
type finding struct {
	dir, pos, text, instead string
	count                   func(*wordingCounts) *int
}

// TestWording fails where a directory has more odd phrases than its limit, and
// where it has fewer, so that every improvement lowers the limit. Print the places
// of a package with `go test ./rbee -run TestWording -list-wording DIRECTORY`.
func TestWording(t *testing.T) {
	t.Parallel()
	limits := readWordingLimits(t)
	found := findWording(t)
	counts := map[string]wordingCounts{}
	for _, f := range found {
		c := counts[f.dir]
		*f.count(&c)++
		counts[f.dir] = c
	}
	if *listWording != "" {
		for _, f := range found {
			if f.dir == *listWording || strings.HasPrefix(f.dir, *listWording+"/") {
				t.Errorf("%s: %s\n\twrite: %s", f.pos, f.text, f.instead)
			}
		}
		return
	}
	if *updateWording {
		writeWordingLimits(t, limits, counts)
		return
	}
	dirs := map[string]bool{}
	for dir := range counts {
		dirs[dir] = true
	}
	for dir := range limits {
		dirs[dir] = true
	}
	for _, dir := range sortedKeys(dirs) {
		got, limit := counts[dir], limits[dir]
		g, l := got.fields(), limit.fields()
		names := []string{"comment lines", "messages", "text lines", "test failure messages"}
		for i, name := range names {
			switch {
			case *g[i] > *l[i]:
				t.Errorf("%s has %d %s with odd wording, want at most %d:", dir, *g[i], name, *l[i])
				for _, f := range found {
					var probe wordingCounts
					if f.dir == dir && f.count(&probe) == probe.fields()[i] {
						t.Errorf("\t%s: %s\n\t\twrite: %s", f.pos, f.text, f.instead)
					}
				}
			case *g[i] < *l[i]:
				t.Errorf("%s has %d %s with odd wording, and a limit of %d: lower it with `go test ./rbee -run TestWording -update-wording`", dir, *g[i], name, *l[i])
			}
		}
	}
}

// readWordingLimits reads the limits; a directory without a line has zeros.
func readWordingLimits(t *testing.T) map[string]wordingCounts {
	t.Helper()
	data, err := os.ReadFile(wordingFile)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	limits := map[string]wordingCounts{}
	s := bufio.NewScanner(bytes.NewReader(data))
	for s.Scan() {
		line := s.Text()
		if strings.HasPrefix(line, "#") || line == "" {
			continue
		}
		var dir string
		var c wordingCounts
		if _, err := fmt.Sscan(line, &dir, &c.comments, &c.messages, &c.text, &c.bare); err != nil {
			t.Fatalf("%s: cannot read %q: %v", wordingFile, line, err)
		}
		limits[dir] = c
	}
	return limits
}

// writeWordingLimits writes the counts as limits, and fails where one would rise.
func writeWordingLimits(t *testing.T, limits, counts map[string]wordingCounts) {
	t.Helper()
	first := len(limits) == 0
	var b strings.Builder
	b.WriteString("# Directory, then the number of comment lines, messages, lines of other texts, and test\n# failure messages with odd wording. A limit may only fall; see wording_test.go.\n")
	for _, dir := range sortedKeys(counts) {
		got, limit := counts[dir], limits[dir]
		fmt.Fprint(&b, dir)
		l := limit.fields()
		for i, n := range got.fields() {
			if *n > *l[i] && !first {
				t.Errorf("limit %d of %s would rise from %d to %d", i+1, dir, *l[i], *n)
			}
			fmt.Fprintf(&b, " %d", *n)
		}
		b.WriteByte('\n')
	}
	if t.Failed() {
		return
	}
	if err := os.WriteFile(wordingFile, []byte(b.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

// findWording returns the places of the repository that match, by position.
func findWording(t *testing.T) []finding {
	t.Helper()
	m := newMatcher()
	err := filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != moduleRoot && strings.HasPrefix(name, ".") && name != ".ci" && name != ".github" {
				return fs.SkipDir
			}
			return nil
		}
		rel, err := filepath.Rel(moduleRoot, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if rel == "rbee/wording_test.go" || rel == "LICENSE" {
			return nil
		}
		switch filepath.Ext(path) {
		case ".go":
			return m.goFile(path, rel)
		case ".md", ".yaml", ".yml", ".sh", ".js", ".css", ".html", ".txtar", ".toml", "":
			return m.textFile(path, rel)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(m.found, func(a, b finding) int { return cmp.Compare(a.pos, b.pos) })
	return m.found
}

// matcher collects findings.
type matcher struct {
	exprs []*regexp.Regexp
	found []finding
}

// newMatcher compiles the phrases.
func newMatcher() *matcher {
	m := &matcher{}
	for _, p := range phrases {
		m.exprs = append(m.exprs, regexp.MustCompile(p.expr))
	}
	return m
}

// match adds a finding when text contains a phrase.
func (m *matcher) match(rel string, line int, text string, count func(*wordingCounts) *int) {
	for i, e := range m.exprs {
		if e.MatchString(text) {
			m.add(rel, line, text, fmt.Sprintf("%s (not %q)", phrases[i].instead, e.FindString(text)), count)
			return
		}
	}
}

// add adds a finding.
func (m *matcher) add(rel string, line int, text, instead string, count func(*wordingCounts) *int) {
	m.found = append(m.found, finding{
		dir: filepath.ToSlash(filepath.Dir(rel)), pos: fmt.Sprintf("%s:%d", rel, line),
		text: strings.TrimSpace(text), instead: instead, count: count,
	})
}

// textFile checks the lines of a text file.
func (m *matcher) textFile(path, rel string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for i, line := range strings.Split(string(data), "\n") {
		m.match(rel, i+1, line, func(c *wordingCounts) *int { return &c.text })
	}
	return nil
}

// goFile checks the comment lines, the messages (string literals of at least
// three words) and the test failure messages of a Go file.
func (m *matcher) goFile(path, rel string) error {
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return err
	}
	lineOf := func(p token.Pos) int { return fset.Position(p).Line }
	for _, group := range f.Comments {
		for _, c := range group.List {
			for i, line := range strings.Split(c.Text, "\n") {
				m.match(rel, lineOf(c.Pos())+i, line, func(c *wordingCounts) *int { return &c.comments })
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ImportSpec:
			return false
		case *ast.CallExpr:
			if isBareFailure(n) {
				m.add(rel, lineOf(n.Pos()), "a test failure message of bare values", "the call, its result and the expected value", func(c *wordingCounts) *int { return &c.bare })
			}
		case *ast.BasicLit:
			s, err := strconv.Unquote(n.Value)
			isTag := strings.HasPrefix(n.Value, "`json") || strings.HasPrefix(n.Value, "`yaml")
			if n.Kind == token.STRING && err == nil && !isTag && strings.Count(s, " ") >= 2 {
				m.match(rel, lineOf(n.Pos()), s, func(c *wordingCounts) *int { return &c.messages })
			}
		}
		return true
	})
	return nil
}

var (
	formatVerb = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)
	plainWord  = regexp.MustCompile(`[A-Za-z]{2,}`)
)

// isBareFailure reports whether a call fails a test with a message without a
// word. A single error is a message: it states what failed.
func isBareFailure(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return false
	}
	recv, ok := sel.X.(*ast.Ident)
	if !ok || !slices.Contains([]string{"t", "tb", "b", "f"}, recv.Name) {
		return false
	}
	switch sel.Sel.Name {
	case "Errorf", "Fatalf":
		lit, ok := call.Args[0].(*ast.BasicLit)
		return ok && !plainWord.MatchString(formatVerb.ReplaceAllString(lit.Value, ""))
	case "Error", "Fatal":
		if id, ok := call.Args[0].(*ast.Ident); ok && len(call.Args) == 1 && (id.Name == "err" || strings.HasSuffix(id.Name, "Err")) {
			return false
		}
		for _, arg := range call.Args {
			bare := true
			ast.Inspect(arg, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && plainWord.MatchString(lit.Value) {
					bare = false
				}
				return bare
			})
			if !bare {
				return false
			}
		}
		return true
	}
	return false
}
