package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type downloadModelCmd struct {
	Model    string   `arg:"" help:"Hugging Face repository org/repo, optionally with :QUANTIZATION or :FILE and @REVISION; a file: URL; or an https: URL with #sha256=…"`
	Hive     []string `placeholder:"ALIAS" help:"Download to these hives (repeat, or separate with commas; default: the only hive)"`
	AllHives bool     `help:"Download to all hives in the config"`
}

// help implements [helper].
func (downloadModelCmd) help() commandHelp {
	return commandHelp{
		text: "An interrupted download continues when you run the command again. $HF_TOKEN and $HF_ENDPOINT are sent to the hive if they are set here; otherwise the hive uses its own.\n\nWith --json, the result with several hives or --all-hives is {\"hives\":[{\"alias\":...,\"report\":...}]}; a hive that failed has \"error\" instead of \"report\".",
		examples: []string{
			"rbee download-model Qwen/Qwen3-8B --hive gpu-1",
			"rbee download-model ggml-org/gemma-3-4b-it-GGUF:Q4_K_M --all-hives",
		},
	}
}

// Run runs the command.
func (c *downloadModelCmd) Run(ctx context.Context, a *app) error {
	download := func(alias string) operations.Operation {
		return operations.ModelDownload{
			Target: a.target(alias), Model: c.Model,
			Token: operations.Secret(a.p.Getenv("HF_TOKEN")), Endpoint: a.p.Getenv("HF_ENDPOINT"),
		}
	}
	switch {
	case c.AllHives && len(c.Hive) > 0:
		return &usageError{message: "--all-hives and --hive cannot be combined", hint: "remove --all-hives or --hive"}
	case c.AllHives:
		aliases, err := a.configHives(ctx)
		if err != nil {
			return err
		}
		return a.operateEach(ctx, aliases, download)
	case len(c.Hive) > 1:
		return a.operateEach(ctx, c.Hive, download)
	}
	alias := ""
	if len(c.Hive) == 1 {
		alias = c.Hive[0]
	}
	hive, err := a.oneHive(ctx, alias)
	if err != nil {
		return err
	}
	return a.operate(ctx, download(hive))
}
