package cli

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rbee-keeper/rbee/operations"
)

const moduleRoot = "../../.."

// source contains the parsed files of the module without tests, by directory.
type source struct {
	files    *token.FileSet
	packages map[string][]*ast.File
}

func readSource(t *testing.T) source {
	t.Helper()
	s := source{token.NewFileSet(), map[string][]*ast.File{}}
	err := filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && path != moduleRoot && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(s.files, path, nil, parser.SkipObjectResolution)
		s.packages[filepath.Dir(path)] = append(s.packages[filepath.Dir(path)], file)
		return err
	})
	if err != nil || len(s.packages) < 20 {
		t.Fatalf("readSource read %d packages with error %v, want at least 20", len(s.packages), err)
	}
	return s
}

// at returns the position of a node, such as "pkgmgr/apply.go:12".
func (s source) at(n ast.Node) string {
	p := s.files.Position(n.Pos())
	name, err := filepath.Rel(moduleRoot, p.Filename)
	if err != nil {
		name = p.Filename
	}
	return fmt.Sprintf("%s:%d", filepath.ToSlash(name), p.Line)
}

// parsingAllowed lists the functions that may parse the text of an error, with the
// reason: directory and function, or "..." for all functions of a directory.
var parsingAllowed = map[string]string{
	"rbee/internal/cli usage":            "kong reports invalid words of the command line only in its text",
	"sshx classifyChannel":               "RFC 4254 has one code for all failed connections, and OpenSSH sends the text of strerror",
	"sshx/sshtest/conform ...":           "a test suite",
	"sshx systemError":                   "shell tools only report the text of strerror, on stderr",
	"gpu ...":                            "the tools of GPU vendors only report text",
	"pkgmgr/internal/strict yamlProblem": "yaml.v3 reports the line of a syntax error only in its text",
	// The text is the body of an HTTP response.
	"rbee/internal/controller speaksNoChat": "engines respond with 400 with different texts if a model has no chat template",
}

// TestNoCodeParsesMessages finds code that branches on the text of an error. Errors
// have a code, a reason and a subject for this purpose, and system errors can be
// classified with errors.Is.
func TestNoCodeParsesMessages(t *testing.T) {
	t.Parallel()
	s := readSource(t)
	for dir, files := range s.packages {
		dir, err := filepath.Rel(moduleRoot, dir)
		if err != nil {
			t.Fatal(err)
		}
		for node, p := range findParsing(files) {
			name := filepath.ToSlash(dir) + " "
			if parsingAllowed[name+p.function] == "" && parsingAllowed[name+"..."] == "" {
				t.Errorf("%s: %s parses the text of an error: branch on its Reason, or use errors.Is", s.at(node), p.call)
			}
		}
	}
}

func TestFindParsing(t *testing.T) {
	t.Parallel()
	const head = "package p\nimport (\"strings\"; \"regexp\")\nvar re = regexp.MustCompile(\"x\")\ntype E struct{ Message string }\nfunc helper(a int, text string) bool { return strings.Contains(text, \"x\") }\n"
	for code, want := range map[string]int{
		`strings.Contains(err.Error(), "x")`:                                                   1,
		`strings.HasPrefix(strings.ToLower(e.Message), "x")`:                                   1,
		`strings.HasSuffix("a: " + e.Message, "x")`:                                            1,
		`text := strings.TrimSpace(err.Error()); _ = strings.EqualFold(text, "x")`:             1,
		`_, after, _ := strings.Cut(e.Message, ": "); _ = after`:                               1,
		`re.MatchString(err.Error())`:                                                          1,
		`helper(1, e.Message)`:                                                                 1,
		`_ = err.Error() == "EOF"`:                                                             1,
		`switch e.Message { case "x": }`:                                                       1,
		`func() { text := err.Error(); _ = strings.Index(text, "x") }()`:                       1,
		`first, _, _ := strings.Cut(e.Message, "\n"); _ = first`:                               0, // formatting
		`strings.Contains(name, "x")`:                                                          0,
		`println(strings.TrimPrefix(err.Error(), "x: "))`:                                      0,
		`strings.Contains(c.Message.Content, "x")`:                                             0,
		`text := err.Error(); println(text); _ = strings.Contains(strings.ToUpper(name), "x")`: 0,
	} {
		file, err := parser.ParseFile(token.NewFileSet(), "p.go", head+"func f(err error, e E, name string) {\n"+code+"\n}\n", parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		if got := findParsing([]*ast.File{file}); len(got) != want {
			t.Errorf("findParsing(%s) found %d calls, want %d", code, len(got), want)
		}
	}
}

// parseCall is a call that parses the text of an error, and the function that contains it.
type parseCall struct{ function, call string }

// findParsing finds the calls in a package that parse the text of an error, directly or
// through a function of the package.
func findParsing(files []*ast.File) map[ast.Node]parseCall {
	p := messageParser{found: map[ast.Node]parseCall{}, params: map[string][]int{}}
	for before := -1; len(p.params) != before; { // until no more functions parse a parameter
		before = len(p.params)
		p.each(files, p.learn)
	}
	p.each(files, p.check)
	return p.found
}

// messageParser is the state of findParsing.
type messageParser struct {
	found  map[ast.Node]parseCall
	params map[string][]int // by function: the parameters that it parses
}

func (p *messageParser) each(files []*ast.File, do func(*ast.FuncDecl)) {
	for _, file := range files {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Body != nil {
				do(f)
			}
		}
	}
}

// learn records which parameters a function parses.
func (p *messageParser) learn(f *ast.FuncDecl) {
	i := 0
	for _, field := range f.Type.Params.List {
		for _, name := range field.Names {
			parses := false
			texts := derivedTexts(f.Body, map[string]bool{name.Name: true}, func(ast.Expr) bool { return false })
			p.look(f.Body, func(e ast.Expr) bool { return mentions(e, texts, func(ast.Expr) bool { return false }) }, func(ast.Node, string) { parses = true })
			if isText(field.Type) && parses && !slices.Contains(p.params[f.Name.Name], i) {
				p.params[f.Name.Name] = append(p.params[f.Name.Name], i)
			}
			i++
		}
	}
}

// check finds the calls in a function that parse the text of an error.
func (p *messageParser) check(f *ast.FuncDecl) {
	texts := derivedTexts(f.Body, map[string]bool{}, isErrorText)
	p.look(f.Body, func(e ast.Expr) bool { return mentions(e, texts, isErrorText) }, func(n ast.Node, call string) {
		p.found[n] = parseCall{f.Name.Name, call}
	})
}

// searchFuncs are the functions of strings and bytes, and the methods of regular
// expressions, that search in a text.
var searchFuncs = []string{
	"Contains", "ContainsAny", "ContainsFunc", "HasPrefix", "HasSuffix", "Cut", "CutPrefix", "CutSuffix", "EqualFold", "Index", "LastIndex", "Count",
	"Match", "MatchString", "FindString", "FindStringSubmatch", "FindAllString",
}

// look calls found for every expression that searches in a text.
func (p *messageParser) look(body ast.Node, text func(ast.Expr) bool, found func(n ast.Node, call string)) {
	ast.Inspect(body, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SwitchStmt:
			if n.Tag != nil && text(n.Tag) {
				found(n, "switch")
			}
		case *ast.BinaryExpr:
			if (n.Op == token.EQL || n.Op == token.NEQ) && (isLiteral(n.X) && text(n.Y) || isLiteral(n.Y) && text(n.X)) {
				found(n, n.Op.String())
			}
		case *ast.CallExpr:
			switch fun := n.Fun.(type) {
			case *ast.SelectorExpr:
				if slices.Contains(searchFuncs, fun.Sel.Name) && !cutsLine(n) && slices.ContainsFunc(n.Args, text) {
					found(n, fun.Sel.Name)
				}
			case *ast.Ident:
				for _, i := range p.params[fun.Name] {
					if i < len(n.Args) && text(n.Args[i]) {
						found(n, fun.Name)
					}
				}
			}
		}
		return true
	})
}

// derivedTexts adds the names of variables that are derived from a text to texts.
func derivedTexts(body ast.Node, texts map[string]bool, root func(ast.Expr) bool) map[string]bool {
	ast.Inspect(body, func(n ast.Node) bool {
		a, ok := n.(*ast.AssignStmt)
		if !ok {
			return true
		}
		for i, left := range a.Lhs {
			right := a.Rhs[min(i, len(a.Rhs)-1)]
			if name, ok := left.(*ast.Ident); ok && mentions(right, texts, root) {
				texts[name.Name] = true
			}
		}
		return true
	})
	return texts
}

// mentions reports whether an expression is a text or derived from one, such as in
// lower case or with a prefix.
func mentions(e ast.Expr, texts map[string]bool, root func(ast.Expr) bool) bool {
	switch e := e.(type) {
	case *ast.Ident:
		return texts[e.Name]
	case *ast.ParenExpr:
		return mentions(e.X, texts, root)
	case *ast.BinaryExpr:
		return e.Op == token.ADD && (mentions(e.X, texts, root) || mentions(e.Y, texts, root))
	case *ast.CallExpr:
		if root(e) {
			return true
		}
		fun, ok := e.Fun.(*ast.SelectorExpr)
		if !ok {
			return false
		}
		of, ok := fun.X.(*ast.Ident)
		return ok && of.Name == "strings" && slices.ContainsFunc(e.Args, func(a ast.Expr) bool { return mentions(a, texts, root) })
	default:
		return root(e)
	}
}

// isErrorText reports whether an expression is the text of an error: x.Error() or x.Message.
func isErrorText(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.SelectorExpr:
		return e.Sel.Name == "Message"
	case *ast.CallExpr:
		fun, ok := e.Fun.(*ast.SelectorExpr)
		return ok && fun.Sel.Name == "Error" && len(e.Args) == 0
	}
	return false
}

func isText(e ast.Expr) bool {
	name, ok := e.(*ast.Ident)
	return ok && name.Name == "string"
}

// isLiteral reports whether an expression is a string literal that is not empty.
func isLiteral(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING && lit.Value != `""`
}

// cutsLine reports whether a call splits a text into lines, which is formatting.
func cutsLine(n *ast.CallExpr) bool {
	if len(n.Args) != 2 {
		return false
	}
	lit, ok := n.Args[1].(*ast.BasicLit)
	return ok && (lit.Value == `"\n"` || lit.Value == `'\n'`)
}

// TestEveryErrorHasAReason checks that every literal of an operations.Error sets Reason
// to a constant.
func TestEveryErrorHasAReason(t *testing.T) {
	t.Parallel()
	s := readSource(t)
	found := 0
	for dir, files := range s.packages {
		own := filepath.Base(dir) == "operations"
		for _, file := range files {
			ast.Inspect(file, func(n ast.Node) bool {
				switch n := n.(type) {
				case *ast.CompositeLit:
					for _, e := range errorsIn(n, own) {
						found++
						s.checkReason(t, e)
					}
				case *ast.AssignStmt:
					for i, left := range n.Lhs {
						if sel, ok := left.(*ast.SelectorExpr); ok && sel.Sel.Name == "Reason" && len(n.Rhs) == len(n.Lhs) && strings.HasPrefix(s.at(n), "operations/") {
							if isLiteral(n.Rhs[i]) {
								t.Errorf("%s: Reason is a string literal, want a constant of operations", s.at(n))
							}
						}
					}
				}
				return true
			})
		}
	}
	if found < 50 {
		t.Errorf("found %d literals of operations.Error, want at least 50", found)
	}
}

// errorsIn returns the literals of operations.Error in n: n itself, or its elements
// without an explicit type.
func errorsIn(n *ast.CompositeLit, own bool) []*ast.CompositeLit {
	isError := func(e ast.Expr) bool {
		if star, ok := e.(*ast.StarExpr); ok {
			e = star.X
		}
		switch e := e.(type) {
		case *ast.SelectorExpr:
			of, ok := e.X.(*ast.Ident)
			return ok && of.Name == "operations" && e.Sel.Name == "Error"
		case *ast.Ident:
			return own && e.Name == "Error"
		}
		return false
	}
	var elements ast.Expr
	switch typ := n.Type.(type) {
	case *ast.MapType:
		elements = typ.Value
	case *ast.ArrayType:
		elements = typ.Elt
	default:
		if isError(n.Type) {
			return []*ast.CompositeLit{n}
		}
		return nil
	}
	var list []*ast.CompositeLit
	for _, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		if lit, ok := e.(*ast.CompositeLit); ok && lit.Type == nil && isError(elements) {
			list = append(list, lit)
		}
	}
	return list
}

func (s source) checkReason(t *testing.T, lit *ast.CompositeLit) {
	t.Helper()
	for _, e := range lit.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if name, ok := kv.Key.(*ast.Ident); ok && name.Name == "Reason" {
			if _, text := kv.Value.(*ast.BasicLit); text {
				t.Errorf("%s: Reason is a string literal, want a constant of operations", s.at(lit))
			}
			return
		}
	}
	t.Errorf("%s: the operations.Error has no Reason", s.at(lit))
}

// TestAccessCodesAreReasons checks that the error codes of package access, which cannot
// import operations, are reasons of operations.
func TestAccessCodesAreReasons(t *testing.T) {
	t.Parallel()
	s := readSource(t)
	codes := 0
	for _, file := range s.packages[filepath.Join(moduleRoot, "rbee", "internal", "access")] {
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 3 {
				return true
			}
			if name, ok := call.Fun.(*ast.Ident); !ok || name.Name != "denyf" {
				return true
			}
			code, err := strconv.Unquote(call.Args[1].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			codes++
			if !slices.Contains(operations.Reasons(), operations.Reason(code)) {
				t.Errorf("%s: code %q is not a reason of operations", s.at(call), code)
			}
			return true
		})
	}
	if codes == 0 {
		t.Error("found no error codes in package access")
	}
}

// TestUsageMessages checks the messages for command lines that cannot be parsed.
func TestUsageMessages(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"statsu":                       `unknown command "statsu", did you mean "status"?`,
		"run":                          `unknown command "run"`,
		"key foo":                      `unknown command "foo"`,
		"key":                          "missing command: add, list or revoke",
		"bundle":                       "missing command: create",
		"get-worker":                   "missing argument: ID",
		"get-worker a b":               `unexpected argument "b"`,
		"sync --dryrun":                `unknown flag "--dryrun", did you mean "--dry-run"?`,
		"rollback vllm":                "missing flag: --hive ALIAS",
		"spawn-worker":                 "missing flags: --model MODEL, --worker TYPE",
		"sync --parallel x":            `invalid --parallel "x": want an integer`,
		"sync --parallel -1":           `invalid --parallel "-1": want --parallel=VALUE for a value that starts with -`,
		"sync --timeout 5":             `invalid --timeout "5": want a duration such as 30s`,
		"sync --json=x":                `invalid --json "x": want true or false`,
		"sync -c":                      "--config needs a value",
		"infer a --temperature x":      `invalid --temperature "x": want a number`,
		"hive connect x":               `invalid PORT "x": want an integer`,
		"completion ksh":               `invalid SHELL "ksh": want bash, zsh or fish`,
		"key add laptop --scope owner": `invalid --scope "owner": want infer or admin`,
	} {
		a := newApp(Process{Args: strings.Fields(line), Stdout: io.Discard, Stderr: io.Discard})
		if err := a.run(t.Context()); err == nil || err.Error() != want {
			t.Errorf("run(%q) = %v, want %s", line, err, want)
		}
	}
}
