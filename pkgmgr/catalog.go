package pkgmgr

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// Catalog knows how each worker type is installed, started and probed. It does
// not change once it is made; any goroutine may use it.
type Catalog struct {
	recipes map[string]*Recipe
}

//go:embed catalog/*.yaml catalog/tools/*.yaml
var builtinRecipes embed.FS

var builtinCatalog = sync.OnceValue(func() *Catalog {
	return &Catalog{recipes: builtin("catalog/*.yaml")}
})

// toolRecipes are the recipes of programs that installs need.
var toolRecipes = sync.OnceValue(func() map[string]*Recipe { return builtin("catalog/tools/*.yaml") })

func builtin(pattern string) map[string]*Recipe {
	recipes := map[string]*Recipe{}
	names, _ := fs.Glob(builtinRecipes, pattern) // fails for a bad pattern only
	for _, name := range names {
		data, err := builtinRecipes.ReadFile(name)
		if err != nil {
			continue // an embedded file that was just listed
		}
		// A test holds that each of them is right.
		if r, err := ParseRecipe(name, data); err == nil {
			recipes[r.Type] = r
		}
	}
	return recipes
}

// BuiltinCatalog gives the recipes that come with rbee. Only the first call costs
// anything.
func BuiltinCatalog() *Catalog { return builtinCatalog() }

// LoadCatalog gives the built-in recipes and the user's own: the *.yaml and *.yml
// files of dir. One of the user's replaces the built-in one of the same type. An
// empty dir, or one that does not exist, means the built-in ones alone.
//
// Every error is an [*operations.Error]: [operations.CodeConfigInvalid] with the
// problems of all files, or [operations.CodeFailed] if one cannot be read.
func LoadCatalog(dir string) (*Catalog, error) {
	if dir == "" {
		return BuiltinCatalog(), nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return BuiltinCatalog(), nil
	case err != nil:
		return nil, unreadableRecipes(err)
	}
	own := map[string]*Recipe{}
	var problems []operations.Problem
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || syntaxOf(e.Name()) != strict.YAML {
			continue
		}
		found, err := addRecipe(own, filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, unreadableRecipes(err)
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		return nil, invalid(operations.ReasonInvalidRecipe, "the recipes in "+dir+" are not valid", problems)
	}
	c := &Catalog{recipes: maps.Clone(BuiltinCatalog().recipes)}
	maps.Copy(c.recipes, own)
	return c, nil
}

func unreadableRecipes(err error) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: fmt.Sprintf("cannot read the recipes: %v", err), Err: err}
}

// addRecipe reads one of the user's files. Its problems are not an error.
func addRecipe(own map[string]*Recipe, path string) ([]operations.Problem, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	r, err := ParseRecipe(path, data)
	if err != nil {
		var e *operations.Error
		if errors.As(err, &e) {
			return e.Problems, nil
		}
		return nil, err
	}
	if first := own[r.Type]; first != nil {
		return []operations.Problem{{
			File: path, Line: r.Pos.Line, Column: r.Pos.Column,
			Message: fmt.Sprintf("type %q has a recipe already", r.Type), Hint: "the other one is " + first.File,
		}}, nil
	}
	own[r.Type] = r
	return nil, nil
}

// Recipe gives the recipe of a worker type; it must not be changed. It is false
// for a type that the catalog does not know.
func (c *Catalog) Recipe(typ string) (*Recipe, bool) {
	r, ok := c.recipes[typ]
	return r, ok
}

// Text is the recipe's file as it is written.
func (r *Recipe) Text() ([]byte, error) {
	if data, err := builtinRecipes.ReadFile(r.File); err == nil {
		return data, nil
	}
	return os.ReadFile(r.File)
}

// Types lists the worker types, sorted.
func (c *Catalog) Types() []string { return slices.Sorted(maps.Keys(c.recipes)) }

// Nearest is the type that was most likely meant by one that the catalog does
// not know, or empty if none is close.
func (c *Catalog) Nearest(typ string) string { return strict.Nearest(typ, c.Types()) }
