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
	List  catalogListCmd  `cmd:"" help:"List the worker types that can be installed."`
	Show  catalogShowCmd  `cmd:"" help:"Show the recipe of a worker type."`
	Check catalogCheckCmd `cmd:"" help:"Check a recipe of your own."`
}

type catalogListCmd struct{}

type catalogShowCmd struct {
	Type string `arg:"" help:"The worker type, such as vllm."`
	YAML bool   `name:"yaml" help:"Print the recipe's file, to copy and change."`
}

type catalogCheckCmd struct {
	File string `arg:"" help:"The recipe's file."`
}

// Help is shown below the command's summary.
func (catalogListCmd) Help() string {
	return describe("Those of your own, in the folder workers beside the config, are among them.", []string{"rbee catalog list"}, exitInvalid)
}

// Help is shown below the command's summary.
func (catalogShowCmd) Help() string {
	return describe("A copy in ~/.config/rbee/workers takes the place of the built-in recipe.",
		[]string{"rbee catalog show llama-cpp", "rbee catalog show vllm --yaml > ~/.config/rbee/workers/vllm.yaml"}, exitInvalid)
}

// Help is shown below the command's summary.
func (catalogCheckCmd) Help() string {
	return describe("Every mistake is shown at once, with its line and column. docs/catalog.md tells how to write a recipe.",
		[]string{"rbee catalog check my-engine.yaml"}, exitInvalid)
}

func (a *app) catalog() (*catalog.Catalog, error) {
	paths, err := a.paths()
	if err != nil {
		return nil, err
	}
	return catalog.Load(paths.Recipes())
}

// Run does the command.
func (c *catalogListCmd) Run(_ context.Context, a *app) error {
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	r := &ui.Catalog{Recipes: []ui.Recipe{}}
	for _, typ := range catalog.Types() {
		recipe, _ := catalog.Recipe(typ)
		r.Recipes = append(r.Recipes, ui.AboutRecipe(recipe))
	}
	return a.show(r)
}

// Run does the command.
func (c *catalogShowCmd) Run(_ context.Context, a *app) error {
	catalog, err := a.catalog()
	if err != nil {
		return err
	}
	recipe, ok := catalog.Recipe(c.Type)
	if !ok {
		e := &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonUnknownRecipe, Subject: operations.SubjectWorker.Named(c.Type), Message: fmt.Sprintf("there is no recipe for a worker type '%s'", c.Type)}
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
	about := ui.AboutRecipe(recipe)
	return a.show(&about)
}

// Run does the command.
func (c *catalogCheckCmd) Run(_ context.Context, a *app) error {
	data, err := os.ReadFile(c.File)
	if err != nil {
		return &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonOf(err), Subject: operations.SubjectFile.Named(c.File), Message: "reading the recipe: " + err.Error(), Err: err}
	}
	recipe, err := catalog.ParseRecipe(c.File, data)
	if err != nil {
		return err
	}
	return a.show(&ui.CheckedRecipe{Recipe: ui.AboutRecipe(recipe)})
}
