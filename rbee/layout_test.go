package rbee

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// moduleRoot is the directory of go.mod.
const moduleRoot = ".."

const (
	maxPackageLines = 3000 // of the Go files of a package, without tests
	maxFileLines    = 600  // of a Go file
)

// packageLimit returns the maximum number of lines of a package, and whether it has one.
func packageLimit(dir string) (limit int, limited bool) {
	switch dir {
	case "rbee/internal/cli": // one file per command
		return 0, false
	case "sshx": // one client type whose parts share its connection
		return 3300, true
	}
	return maxPackageLines, true
}

// goFiles returns the number of lines of every Go file of this module. Keys are slash
// paths relative to the module root.
func goFiles(t *testing.T) map[string]int {
	t.Helper()
	lines := map[string]int{}
	err := filepath.WalkDir(moduleRoot, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != moduleRoot {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			if err == nil || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".") {
				return fs.SkipDir
			}
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(moduleRoot, path)
		lines[filepath.ToSlash(rel)] = bytes.Count(data, []byte("\n"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestPackageSizes logs the size of every package and checks the limits of packages
// and files.
func TestPackageSizes(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{}
	for file, n := range goFiles(t) {
		if n > maxFileLines {
			t.Errorf("%s has %d lines, want at most %d", file, n, maxFileLines)
		}
		if !strings.HasSuffix(file, "_test.go") {
			sizes[filepath.ToSlash(filepath.Dir(file))] += n
		}
	}
	for _, dir := range sortedKeys(sizes) {
		t.Logf("%5d %s", sizes[dir], dir)
		if limit, limited := packageLimit(dir); limited && sizes[dir] > limit {
			t.Errorf("package %s has %d lines without tests, want at most %d", dir, sizes[dir], limit)
		}
	}
}

// TestEveryPackageHasImportRule compares the packages of the module with the
// depguard rules of the linter: every package matches exactly one rule, and
// every pattern of a rule matches a package.
func TestEveryPackageHasImportRule(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join(moduleRoot, ".golangci.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Linters struct {
			Settings struct {
				Depguard struct {
					Rules map[string]struct {
						Files []string `yaml:"files"`
					} `yaml:"rules"`
				} `yaml:"depguard"`
			} `yaml:"settings"`
		} `yaml:"linters"`
	}
	if err := yaml.Unmarshal(data, &config); err != nil {
		t.Fatal(err)
	}
	packages := map[string]string{} // directory to one of its files
	for file := range goFiles(t) {
		if !strings.HasSuffix(file, "_test.go") {
			packages[filepath.Dir(file)] = file
		}
	}
	rulesOf := map[string][]string{}
	for name, rule := range config.Linters.Settings.Depguard.Rules {
		for _, pattern := range rule.Files {
			if strings.HasPrefix(pattern, "!") {
				continue
			}
			matches, used := globRegexp(pattern), false
			for dir, file := range packages {
				if matches.MatchString("/module/" + file) {
					used = true
					rulesOf[dir] = append(rulesOf[dir], name)
				}
			}
			if !used {
				t.Errorf("rule %q: pattern %q matches no package, want at least one", name, pattern)
			}
		}
	}
	for _, dir := range sortedKeys(packages) {
		if len(rulesOf[dir]) != 1 {
			t.Errorf("package %s matches depguard rules %q, want exactly one", dir, rulesOf[dir])
		}
	}
}

// globRegexp translates a pattern of depguard: ** matches any directories, *
// matches within a name, and {a,b} matches either.
func globRegexp(pattern string) *regexp.Regexp {
	s := regexp.QuoteMeta(strings.ReplaceAll(pattern, "${config-path}", "/module"))
	return regexp.MustCompile("^" + strings.NewReplacer(`\*\*`, `.*`, `\*`, `[^/]*`, `\{`, `(`, `\}`, `)`, `,`, `|`).Replace(s) + "$")
}

// sortedKeys returns the keys of m in ascending order.
func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
