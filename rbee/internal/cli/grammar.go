package cli

import (
	"errors"
	"io"
	"time"

	"github.com/alecthomas/kong"

	"github.com/rbee-keeper/rbee/rbee/internal/queen"
)

// grammar is the whole command line.
type grammar struct {
	Globals globals `embed:""`

	Validate  validateCmd  `cmd:"" group:"packages" help:"Check the config and every hive, without changing anything."`
	Install   installCmd   `cmd:"" group:"packages" help:"Install what the config says and is missing. Never removes anything."`
	Sync      syncCmd      `cmd:"" group:"packages" help:"Bring hives to what the config says."`
	Status    statusCmd    `cmd:"" group:"packages" help:"Show every difference between hives and config."`
	Uninstall uninstallCmd `cmd:"" group:"packages" help:"Remove rbee and its workers from hives."`
	Rollback  rollbackCmd  `cmd:"" group:"packages" help:"Go back to the version of a worker before."`
	Bundle    bundleCmd    `cmd:"" group:"packages" help:"Carry all that a config needs to where there is no internet."`
	Catalog   catalogCmd   `cmd:"" group:"packages" help:"Show how worker types are installed, and check recipes of your own."`
	Migrate   migrateCmd   `cmd:"" group:"packages" help:"Write a config from what machines have."`
	Init      initCmd      `cmd:"" group:"packages" help:"Write a first config."`

	StartHive  startHiveCmd  `cmd:"" group:"hives" help:"Start the hive daemon on a machine."`
	StopHive   stopHiveCmd   `cmd:"" group:"hives" help:"Stop the hive daemon on a machine."`
	HiveStatus hiveStatusCmd `cmd:"" group:"hives" help:"Tell whether the hive daemon of a machine runs and answers."`
	ListHives  listHivesCmd  `cmd:"" group:"hives" help:"List the hives of the config and those on record."`
	GetHive    getHiveCmd    `cmd:"" group:"hives" help:"Tell all about one hive."`

	HiveCapabilities hiveCapabilitiesCmd `cmd:"" group:"workers" help:"Show a machine's accelerators and what holds their memory."`
	DownloadModel    downloadModelCmd    `cmd:"" group:"workers" help:"Fetch a model to hives."`
	ListModels       listModelsCmd       `cmd:"" group:"workers" help:"List the models on hives."`
	GetModel         getModelCmd         `cmd:"" group:"workers" help:"Tell all about one model."`
	DeleteModel      deleteModelCmd      `cmd:"" group:"workers" help:"Remove a model from a hive."`
	SpawnWorker      spawnWorkerCmd      `cmd:"" group:"workers" help:"Start a worker with a model on a hive."`
	ListWorkers      listWorkersCmd      `cmd:"" group:"workers" help:"List the worker processes on hives."`
	GetWorker        getWorkerCmd        `cmd:"" group:"workers" help:"Tell all about one worker process."`
	WorkerLogs       workerLogsCmd       `cmd:"" group:"workers" help:"Show what a worker process wrote."`
	StopWorker       stopWorkerCmd       `cmd:"" group:"workers" help:"Stop a worker process."`
	Infer            inferCmd            `cmd:"" group:"workers" help:"Ask a model."`

	Serve serveCmd `cmd:"" group:"queen" help:"Keep the fleet's connections, and be its one address."`
	Top   topCmd   `cmd:"" group:"queen" help:"Watch the fleet live in the terminal."`
	Key   keyCmd   `cmd:"" group:"queen" help:"Keys for those who ask the queen from other machines."`

	Demo       demoCmd       `cmd:"" group:"other" help:"Show it all on three throw-away SSH hosts inside this process."`
	Completion completionCmd `cmd:"" group:"other" help:"Print a completion script for bash, zsh or fish."`
	Version    versionCmd    `cmd:"" group:"other" help:"Print the version."`

	Hive   hiveCmd   `cmd:"" hidden:"" help:"This machine's side: what rbee runs on a hive."`
	Worker workerCmd `cmd:"" hidden:"" help:"Run a worker that is built into rbee."`

	InstallHive   replacementCmd `cmd:"" hidden:""`
	UninstallHive replacementCmd `cmd:"" hidden:""`
	InstallWorker replacementCmd `cmd:"" hidden:""`
}

// globals are the flags of every command.
type globals struct {
	Help              helpFlag      `short:"h" group:"global" help:"Show this help."`
	Config            string        `short:"c" group:"global" placeholder:"FILE" help:"The config; else $$RBEE_CONFIG, else hives.conf in ~/.config/rbee."`
	Queen             string        `group:"global" placeholder:"URL" help:"Have the queen that runs there do it; $$RBEE_QUEEN does the same."`
	JSON              bool          `name:"json" group:"global" help:"Write the result as JSON to stdout, and nothing else there."`
	NoColor           bool          `group:"global" help:"No color; $$NO_COLOR does the same."`
	Quiet             bool          `short:"q" group:"global" help:"No progress, only the result."`
	Verbose           bool          `short:"v" group:"global" help:"More detail."`
	AcceptNewHostKeys bool          `group:"global" help:"Trust hosts that known_hosts does not know, and remember their keys."`
	SSHConfigFile     string        `name:"ssh-config-file" group:"global" placeholder:"FILE" help:"Read this ssh_config in place of ~/.ssh/config."`
	Binaries          string        `group:"global" placeholder:"DIR" help:"Take rbee for other platforms from here: rbee-<os>-<arch>."`
	Timeout           time.Duration `group:"global" placeholder:"TIME" help:"How long one connection may take, such as 30s."`
}

// scopeFlags select hives.
type scopeFlags struct {
	Hive     []string `name:"hive" placeholder:"ALIAS" help:"Only this hive; may be given several times."`
	Label    []string `name:"label" placeholder:"LABEL" help:"Only hives with this label; with several, those that have all."`
	Parallel int      `placeholder:"N" help:"How many hives to work on at once; rbee chooses when not given."`
}

// changeFlags say how hives are changed.
type changeFlags struct {
	Push     bool          `help:"Fetch downloads here and send them, for hives without a way to the internet."`
	Bundle   string        `placeholder:"FILE" help:"Take all that is installed from a file that rbee bundle create wrote."`
	LockWait time.Duration `default:"30s" placeholder:"TIME" help:"How long to wait for a hive on which another run works (${default})."`
}

// errHelp ends parsing after the help was shown.
var errHelp = errors.New("help was asked for")

// helpFlag shows the help of the command it stands in.
type helpFlag bool

// BeforeReset is called by kong before flags are checked.
func (helpFlag) BeforeReset(ctx *kong.Context) error {
	if err := ctx.PrintUsage(false); err != nil {
		return err
	}
	return errHelp
}

const about = `rbee keeps GPU machines as one file says: which machines there are (hives), and which inference engines belong on them (workers). It needs nothing there but sshd and a shell.

Try it: rbee demo. Begin: rbee init, rbee validate, rbee install, rbee status. Then: rbee download-model, rbee spawn-worker, rbee infer.`

func newParser(g *grammar, stdout io.Writer) (*kong.Kong, error) {
	parser, err := kong.New(g,
		kong.Name("rbee"),
		kong.Description(about),
		kong.Vars{"defaultAddr": queen.DefaultAddr},
		kong.NoDefaultHelp(),
		kong.Writers(stdout, stdout),
		kong.Exit(func(int) {}),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 100}),
		kong.ExplicitGroups([]kong.Group{
			{Key: "packages", Title: "What is installed:"},
			{Key: "hives", Title: "Hive daemons:"},
			{Key: "workers", Title: "Workers and models:"},
			{Key: "queen", Title: "One address for the fleet:"},
			{Key: "other", Title: "More:"},
			{Key: "global", Title: "Flags of every command:"},
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
