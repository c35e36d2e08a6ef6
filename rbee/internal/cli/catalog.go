package cli

import (
	"context"
	"fmt"
	"os"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
)

type catalogCmd struct {
	List  catalogListCmd  `cmd:"" help:"List worker types"`
	Show  catalogShowCmd  `cmd:"" help:"Show the recipe of a worker type"`
	Check catalogCheckCmd `cmd:"" help:"Check a recipe file"`
}

type catalogListCmd struct{}

type catalogShowCmd struct {
	Type string `arg:"" help:"Worker type, such as vllm"`
	YAML bool   `name:"yaml" help:"Print the recipe file"`
}

type catalogCheckCmd struct {
	File string `arg:"" help:"Recipe file"`
}

// help implements [helper].
func (catalogListCmd) help() commandHelp {
	return commandHelp{
		text:     "Includes your own recipes in ~/.config/rbee/workers.",
		examples: []string{"rbee catalog list"},
	}
}

// help implements [helper].
func (catalogShowCmd) help() commandHelp {
	return commandHelp{
		text:     "To change a recipe, save a copy in ~/.config/rbee/workers; it replaces the built-in one.",
		examples: []string{"rbee catalog show llama-cpp", "rbee catalog show vllm --yaml > ~/.config/rbee/workers/vllm.yaml"},
	}
}

// help implements [helper].
func (catalogCheckCmd) help() commandHelp {
	return commandHelp{
		text:     "Prints all errors with line and column. docs/catalog.md describes the format of recipes.",
		examples: []string{"rbee catalog check my-engine.yaml"},
		exits:    "3 the recipe is invalid",
	}
}

func (a *app) catalog() (*catalog.Catalog, error) {
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	return catalog.Load(paths.Recipes())
}

// Run runs the command.
func (c *catalogListCmd) Run(_ context.Context, a *app) error {
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	r := &ui.Catalog{Recipes: []ui.Recipe{}}
	for _, typ := range catalog.Types() {
		recipe, _ := catalog.Recipe(typ)
		r.Recipes = append(r.Recipes, ui.NewRecipe(recipe))
	}
	return a.show(r)
}

// Run runs the command.
func (c *catalogShowCmd) Run(_ context.Context, a *app) error {
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	recipe, ok := catalog.Recipe(c.Type)
	if !ok {
		e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownRecipe, Subject: operations.SubjectWorker.WithName(c.Type), Message: fmt.Sprintf("unknown worker type '%s'", c.Type)}
		if near := catalog.Nearest(c.Type); near != "" {
			e.Message += fmt.Sprintf(", did you mean '%s'?", near)
		}
		return e
	}
	if c.YAML {
		text, err := recipe.Text()
		if err != nil {
			return err
		}
		_, err = a.p.Stdout.Write(text)
		return err
	}
	about := ui.NewRecipe(recipe)
	return a.show(&about)
}

// Run runs the command.
func (c *catalogCheckCmd) Run(_ context.Context, a *app) error {
	data, err := os.ReadFile(c.File)
	if err != nil {
		return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonOf(err), Subject: operations.SubjectFile.WithName(c.File), Message: "cannot read the recipe: " + err.Error(), Err: err}
	}
	recipe, err := catalog.ParseRecipe(c.File, data)
	if err != nil {
		return err
	}
	return a.show(&ui.CheckedRecipe{Recipe: ui.NewRecipe(recipe)})
}
