// Package catalog contains the recipes. The recipe of a worker type describes where its
// versions are published, its requirements, and how to install, start and verify it. The
// package chooses the source of a recipe for a machine without using the network.
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

// Catalog is an immutable set of recipes, by worker type. It is safe for concurrent use.
type Catalog struct {
	recipes map[string]*Recipe
}

//go:embed recipes/*.yaml tools/*.yaml
var builtinRecipes embed.FS

// builtinPrefix is the prefix of [Recipe].File for built-in recipes.
const builtinPrefix = "catalog/"

var builtinCatalog = sync.OnceValue(func() *Catalog {
	return &Catalog{recipes: builtin("recipes/*.yaml")}
})

var builtinTools = sync.OnceValue(func() map[string]*Recipe { return builtin("tools/*.yaml") })

// ToolRecipes returns the recipes of the programs that installations use, by name. The
// caller must not modify the map.
func ToolRecipes() map[string]*Recipe { return builtinTools() }

// builtin parses the embedded recipes with the given pattern of paths.
func builtin(pattern string) map[string]*Recipe {
	recipes := map[string]*Recipe{}
	names, _ := fs.Glob(builtinRecipes, pattern) // fails only for an invalid pattern
	for _, name := range names {
		data, err := builtinRecipes.ReadFile(name)
		if err != nil {
			continue // cannot happen: the file is embedded
		}
		// TestBuiltinCatalog checks that all built-in recipes are valid.
		if r, err := ParseRecipe(builtinPrefix+path.Base(name), data); err == nil {
			recipes[r.Type] = r
		}
	}
	return recipes
}

// Builtin returns the recipes that are part of rbee. It parses them on the first call.
func Builtin() *Catalog { return builtinCatalog() }

// With returns a catalog with additional recipes, which replace recipes of the same type.
func (c *Catalog) With(recipes ...*Recipe) *Catalog {
	all := maps.Clone(c.recipes)
	for _, r := range recipes {
		all[r.Type] = r
	}
	return &Catalog{recipes: all}
}

// Load returns the built-in recipes and the user's recipes, which are the *.yaml and *.yml
// files in dir. A user's recipe replaces the built-in recipe of the same type. If dir is
// empty or does not exist, Load returns the built-in recipes.
//
// Every error is an [*operations.Error]: [operations.CodeConfigInvalid] with the problems
// of all files, or [operations.CodeFailed] if a file cannot be read.
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
	custom := map[string]*Recipe{}
	var problems []operations.Problem
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || strict.SyntaxOf(e.Name()) != strict.YAML {
			continue
		}
		found, err := addRecipe(custom, filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, unreadableRecipes(err)
		}
		problems = append(problems, found...)
	}
	if len(problems) > 0 {
		return nil, strict.Invalid(operations.ReasonInvalidRecipe, "invalid recipes in "+dir, problems)
	}
	c := &Catalog{recipes: maps.Clone(Builtin().recipes)}
	maps.Copy(c.recipes, custom)
	return c, nil
}

// unreadableRecipes returns the error of Load for a file or directory that cannot be read.
func unreadableRecipes(err error) error {
	return &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOf(err), Message: fmt.Sprintf("cannot read recipes: %v", err), Err: err}
}

// addRecipe parses the recipe file at path and adds it to recipes. It returns the problems
// of an invalid recipe, or an error if the file cannot be read.
func addRecipe(recipes map[string]*Recipe, path string) ([]operations.Problem, error) {
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
	if existing := recipes[r.Type]; existing != nil {
		return []operations.Problem{{
			File: path, Line: r.Pos.Line, Column: r.Pos.Column,
			Message: fmt.Sprintf("duplicate recipe for worker type %q", r.Type), Hint: "first defined in " + existing.File,
		}}, nil
	}
	recipes[r.Type] = r
	return nil, nil
}

// Recipe returns the recipe of a worker type and whether the catalog has one. The caller
// must not modify the recipe.
func (c *Catalog) Recipe(typ string) (*Recipe, bool) {
	r, ok := c.recipes[typ]
	return r, ok
}

// Text returns the contents of the recipe's file.
func (r *Recipe) Text() ([]byte, error) {
	if name, ok := strings.CutPrefix(r.File, builtinPrefix); ok {
		if data, err := builtinRecipes.ReadFile("recipes/" + name); err == nil {
			return data, nil
		}
	}
	return os.ReadFile(r.File)
}

// Types returns the worker types in sorted order.
func (c *Catalog) Types() []string { return slices.Sorted(maps.Keys(c.recipes)) }

// Nearest returns the worker type with the spelling closest to an unknown type, or "" if no
// type is close.
func (c *Catalog) Nearest(typ string) string { return suggest.Nearest(typ, c.Types()) }
