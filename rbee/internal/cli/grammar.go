package cli

import (
	"io"
	"time"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/rbee/internal/queen"
)

// grammar is the command line of rbee.
type grammar struct {
	Globals globals `embed:""`

	Demo     demoCmd     `cmd:"" group:"start" help:"Run the complete workflow on three temporary hosts"`
	Init     initCmd     `cmd:"" group:"start" help:"Create a config"`
	Validate validateCmd `cmd:"" group:"start" help:"Check the config, SSH access and hardware of every hive"`

	Install   installCmd   `cmd:"" group:"fleet" help:"Install everything in the config; never remove anything"`
	Status    statusCmd    `cmd:"" group:"fleet" help:"Show the differences between hives and config"`
	Sync      syncCmd      `cmd:"" group:"fleet" help:"Make hives match the config"`
	Rollback  rollbackCmd  `cmd:"" group:"fleet" help:"Roll back a worker to its previous version"`
	Uninstall uninstallCmd `cmd:"" group:"fleet" help:"Remove rbee and its workers from hives"`
	Migrate   migrateCmd   `cmd:"" group:"fleet" help:"Create a config from installed hives"`

	ListHives        listHivesCmd        `cmd:"" group:"hives" help:"List hives"`
	GetHive          getHiveCmd          `cmd:"" group:"hives" help:"Show one hive in detail"`
	HiveStatus       hiveStatusCmd       `cmd:"" group:"hives" help:"Show whether a hive daemon is running"`
	HiveCapabilities hiveCapabilitiesCmd `cmd:"" group:"hives" help:"Show GPUs, their free memory and the processes that use them"`
	StartHive        startHiveCmd        `cmd:"" group:"hives" help:"Start a hive daemon"`
	StopHive         stopHiveCmd         `cmd:"" group:"hives" help:"Stop a hive daemon; its workers keep running"`

	DownloadModel downloadModelCmd `cmd:"" group:"models" help:"Download a model to hives"`
	ListModels    listModelsCmd    `cmd:"" group:"models" help:"List models on hives"`
	GetModel      getModelCmd      `cmd:"" group:"models" help:"Show one model in detail"`
	DeleteModel   deleteModelCmd   `cmd:"" group:"models" help:"Delete a model from a hive"`

	SpawnWorker spawnWorkerCmd `cmd:"" group:"workers" help:"Start a worker that serves a model"`
	ListWorkers listWorkersCmd `cmd:"" group:"workers" help:"List running workers"`
	GetWorker   getWorkerCmd   `cmd:"" group:"workers" help:"Show one worker in detail"`
	WorkerLogs  workerLogsCmd  `cmd:"" group:"workers" help:"Print the log of a worker"`
	StopWorker  stopWorkerCmd  `cmd:"" group:"workers" help:"Stop a worker"`
	Infer       inferCmd       `cmd:"" group:"workers" help:"Send a prompt to a model"`

	Serve serveCmd `cmd:"" group:"gateway" help:"Run the queen: API gateway, control plane and dashboard"`
	Top   topCmd   `cmd:"" group:"gateway" help:"Show the fleet live"`
	Key   keyCmd   `cmd:"" group:"gateway" help:"Create, list and revoke API keys"`

	Catalog catalogCmd `cmd:"" group:"engines" help:"List, show and check worker recipes"`
	Bundle  bundleCmd  `cmd:"" group:"engines" help:"Create a file that installs a fleet without internet"`

	Completion completionCmd `cmd:"" group:"other" help:"Print a completion script for bash, zsh or fish"`
	Version    versionCmd    `cmd:"" group:"other" help:"Print the version"`

	HelpTopic helpCmd   `cmd:"" hidden:"" name:"help" help:"Print the help of a command or a topic"`
	Hive      hiveCmd   `cmd:"" hidden:"" help:"Run the internal commands of a hive"`
	Worker    workerCmd `cmd:"" hidden:"" help:"Run a built-in worker"`

	InstallHive   replacementCmd `cmd:"" hidden:"" help:"Print the replacement of this removed command"`
	UninstallHive replacementCmd `cmd:"" hidden:"" help:"Print the replacement of this removed command"`
	InstallWorker replacementCmd `cmd:"" hidden:"" help:"Print the replacement of this removed command"`
}

// globalGroup is the group of the flags in globals.
const globalGroup = "global"

// globals are the flags of every command.
type globals struct {
	Help              helpFlag      `short:"h" group:"global" help:"Print the help of a command"`
	Config            string        `short:"c" group:"global" placeholder:"FILE" help:"Config file (default: $$RBEE_CONFIG, or hives.conf in ~/.config/rbee)"`
	Queen             string        `group:"global" placeholder:"URL" help:"Run the command through the queen at URL (default: $$RBEE_QUEEN, or no queen)"`
	JSON              bool          `name:"json" group:"global" help:"Print the result as JSON"`
	NoColor           bool          `group:"global" help:"Disable color, like $$NO_COLOR"`
	Quiet             bool          `short:"q" group:"global" help:"Print only the result, without progress"`
	Verbose           bool          `short:"v" group:"global" help:"Print more columns, reasons and logs"`
	AcceptNewHostKeys bool          `group:"global" help:"Trust unknown host keys and add them to known_hosts"`
	SSHConfigFile     string        `name:"ssh-config-file" group:"global" placeholder:"FILE" help:"SSH config file (default: ~/.ssh/config)"`
	Binaries          string        `group:"global" placeholder:"DIR" help:"Directory with rbee binaries for other platforms, named rbee-OS-ARCH"`
	Timeout           time.Duration `group:"global" placeholder:"TIME" help:"Time limit for one connection attempt, such as 30s"`
}

// scopeFlags select hives.
type scopeFlags struct {
	Hive     []string `name:"hive" placeholder:"ALIAS" help:"Only these hives (repeat, or separate with commas)"`
	Label    []string `name:"label" placeholder:"LABEL" help:"Only hives with all of these labels"`
	Parallel int      `placeholder:"N" help:"Number of hives at a time (default: automatic)"`
}

// changeFlags configure changes to hives.
type changeFlags struct {
	Push     bool          `help:"Download here and send over SSH, for hives without internet access"`
	Bundle   string        `placeholder:"FILE" help:"Install from a file created by ${bundleCreate}"`
	LockWait time.Duration `default:"30s" placeholder:"TIME" help:"Time to wait for another run on a hive to finish (default: ${default})"`
}

const about = `rbee turns GPU machines reachable over SSH into one private inference fleet.`

func newParser(g *grammar, stdout io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(g,
		kong.Name("rbee"),
		kong.Description(about),
		kong.Vars{
			"defaultAddr":   queen.DefaultAddr,
			"bundleCreate":  "`rbee bundle create`", // a struct tag cannot contain backticks
			"downloadModel": "`rbee download-model`",
			"listModels":    "`rbee list-models`",
		},
		kong.NoDefaultHelp(),
		kong.Writers(stdout, stdout),
		kong.Exit(func(int) {}),
		kong.Help(printHelp),
		kong.ExplicitGroups([]kong.Group{
			{Key: "start", Title: "Start here:"},
			{Key: "fleet", Title: "Fleet:"},
			{Key: "hives", Title: "Hives:"},
			{Key: "models", Title: "Models:"},
			{Key: "workers", Title: "Workers:"},
			{Key: "gateway", Title: "Gateway:"},
			{Key: "engines", Title: "Engines and offline use:"},
			{Key: "other", Title: "Other:"},
			{Key: globalGroup, Title: "Global flags:"},
		}),
	)
	if err != nil {
		return nil, err
	}
	for _, flag := range parser.Model.Flags {
		if flag.Name == "help" {
			parser.Model.HelpFlag = flag
		}
	}
	return parser, nil
}
