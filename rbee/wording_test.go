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

// phraseFile lists the expressions that this project does not use, with their
// replacements. They find candidates: a sentence without them can still be hard to read.
const phraseFile = "testdata/phrases.txt"

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
	var b strings.Builder
	b.WriteString("# Directory, then the number of comment lines, messages, lines of other texts, and test\n# failure messages with odd wording. A limit may only fall; see wording_test.go.\n")
	for _, dir := range sortedKeys(counts) {
		got, limit := counts[dir], limits[dir]
		fmt.Fprint(&b, dir)
		l := limit.fields()
		for i, n := range got.fields() {
			if *n > *l[i] {
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
	m := newMatcher(t)
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

// phrase is an expression that this project does not use.
type phrase struct {
	expr    *regexp.Regexp
	instead string
}

// matcher collects findings.
type matcher struct {
	phrases []phrase
	found   []finding
}

// newMatcher returns a matcher for the expressions in phraseFile.
func newMatcher(t *testing.T) *matcher {
	t.Helper()
	data, err := os.ReadFile(phraseFile)
	if err != nil {
		t.Fatal(err)
	}
	m := &matcher{}
	for line := range strings.Lines(string(data)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		expr, instead, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			t.Fatalf("%s: invalid line %q: want an expression, a tab and a replacement", phraseFile, line)
		}
		m.phrases = append(m.phrases, phrase{regexp.MustCompile(expr), instead})
	}
	return m
}

// match adds a finding when text contains a phrase.
func (m *matcher) match(rel string, line int, text string, count func(*wordingCounts) *int) {
	for _, p := range m.phrases {
		if p.expr.MatchString(text) {
			m.add(rel, line, text, fmt.Sprintf("%s (not %q)", p.instead, p.expr.FindString(text)), count)
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
