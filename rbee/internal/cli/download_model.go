package cli

import (
	"context"

	"github.com/rbee-keeper/rbee/operations"
)

type downloadModelCmd struct {
	Model    string   `arg:"" help:"org/repo of the model hub, with :QUANTISATION or :FILE for a part of it and @REVISION for another than main; or a file: or https: address with #sha256=."`
	Hive     []string `placeholder:"ALIAS" help:"The hive; may be given several times, and left out if the config has only one."`
	AllHives bool     `help:"Every hive of the config."`
}

// Help is shown below the command's summary.
func (downloadModelCmd) Help() string {
	return describe("$HF_TOKEN and $HF_ENDPOINT are passed on if they are set here; else the hive's own count. Cut off, a download goes on where it was when it is asked for again. With --json the result for several hives, and for --all-hives, is {\"hives\":[{\"alias\":...,\"report\":...}]}, with \"error\" in place of \"report\" where it failed.",
		[]string{
			"rbee download-model Qwen/Qwen3-8B --hive gpu-1",
			"rbee download-model ggml-org/gemma-3-4b-it-GGUF:Q4_K_M --all-hives",
		}, exitInvalid, exitUnreachable, exitLocked)
}

// Run does the command.
func (c *downloadModelCmd) Run(ctx context.Context, a *app) error {
	download := func(alias string) operations.Operation {
		return operations.ModelDownload{
			Target: a.target(alias), Model: c.Model,
			Token: operations.Secret(a.p.Getenv("HF_TOKEN")), Endpoint: a.p.Getenv("HF_ENDPOINT"),
		}
	}
	switch {
	case c.AllHives && len(c.Hive) > 0:
		return &usageError{message: "--all-hives and --hive do not go together", hint: "leave one of them out"}
	case c.AllHives:
		aliases, err := a.configHives(ctx)
		if err != nil {
			return err
		}
		return a.each(ctx, aliases, download)
	case len(c.Hive) > 1:
		return a.each(ctx, c.Hive, download)
	}
	named := ""
	if len(c.Hive) == 1 {
		named = c.Hive[0]
	}
	hive, err := a.oneHive(ctx, named)
	if err != nil {
		return err
	}
	return a.operate(ctx, download(hive))
}
