// Package catalog has the recipes: for each worker type, where its versions come from,
// what a machine needs, how it is installed and how it is started. It chooses the source
// of a recipe for a machine, without the network.
package catalog

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/operations/suggest"
	"github.com/rbee-keeper/rbee/pkgmgr/internal/strict"
)

// Catalog knows how each worker type is installed, started and probed. It does
// not change once it is made; any goroutine may use it.
type Catalog struct {
	recipes map[string]*Recipe
}

//go:embed recipes/*.yaml tools/*.yaml
var builtinRecipes embed.FS

// builtinPrefix begins the File of built-in recipes.
const builtinPrefix = "catalog/"

var builtinCatalog = sync.OnceValue(func() *Catalog {
	return &Catalog{recipes: builtin("recipes/*.yaml")}
})

var builtinTools = sync.OnceValue(func() map[string]*Recipe { return builtin("tools/*.yaml") })

// ToolRecipes returns the recipes of programs that installs need, by name. The map
// must not be changed.
func ToolRecipes() map[string]*Recipe { return builtinTools() }

func builtin(pattern string) map[string]*Recipe {
	recipes := map[string]*Recipe{}
	names, _ := fs.Glob(builtinRecipes, pattern) // fails for a bad pattern only
	for _, name := range names {
		data, err := builtinRecipes.ReadFile(name)
		if err != nil {
			continue // an embedded file that was just listed
		}
		// A test holds that each of them is right.
		if r, err := ParseRecipe(builtinPrefix+path.Base(name), data); err == nil {
			recipes[r.Type] = r
		}
	}
	return recipes
}

// Builtin gives the recipes that come with rbee. Only the first call costs
// anything.
func Builtin() *Catalog { return builtinCatalog() }

// With returns a catalog that also contains recipes. A recipe replaces that of the
// same type.
func (c *Catalog) With(recipes ...*Recipe) *Catalog {
	all := maps.Clone(c.recipes)
	for _, r := range recipes {
		all[r.Type] = r
	}
	return &Catalog{recipes: all}
}

// Load gives the built-in recipes and the user's own: the *.yaml and *.yml
// files of dir. One of the user's replaces the built-in one of the same type. An
// empty dir, or one that does not exist, means the built-in ones alone.
//
// Every error is an [*operations.Error]: [operations.CodeConfigInvalid] with the
// problems of all files, or [operations.CodeFailed] if one cannot be read.
func Load(dir string) (*Catalog, error) {
	if dir == "" {
		return Builtin(), nil
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return Builtin(), nil
	case err != nil:
		return nil, unreadableRecipes(err)
	}
	own := map[string]*Recipe{}
	var problems []operations.Problem
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || strict.SyntaxOf(e.Name()) != strict.YAML {
			continue
		}
		found, err := addRecipe(own, filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, unreadableRecipes(err)
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		return nil, strict.Invalid(operations.ReasonInvalidRecipe, "the recipes in "+dir+" are not valid", problems)
	}
	c := &Catalog{recipes: maps.Clone(Builtin().recipes)}
	maps.Copy(c.recipes, own)
	return c, nil
}

func unreadableRecipes(err error) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: fmt.Sprintf("cannot read the recipes: %v", err), Err: err}
}

// addRecipe reads one of the user's files. Its problems are not an error.
func addRecipe(own map[string]*Recipe, path string) ([]operations.Problem, error) {
	data, err := strict.ReadFile(path)
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
	if name, ok := strings.CutPrefix(r.File, builtinPrefix); ok {
		if data, err := builtinRecipes.ReadFile("recipes/" + name); err == nil {
			return data, nil
		}
	}
	return os.ReadFile(r.File)
}

// Types lists the worker types, sorted.
func (c *Catalog) Types() []string { return slices.Sorted(maps.Keys(c.recipes)) }

// Nearest is the type that was most likely meant by one that the catalog does
// not know, or empty if none is close.
func (c *Catalog) Nearest(typ string) string { return suggest.Nearest(typ, c.Types()) }
