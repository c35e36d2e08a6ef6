package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/atomicfile"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/version"
	"github.com/rbee-keeper/rbee/rbee/internal/ui"
	"github.com/rbee-keeper/rbee/sshx"
)

type initCmd struct {
	SSHConfig string `name:"ssh-config" placeholder:"PATTERN" help:"Include the hosts of ~/.ssh/config that match, such as 'gpu-*'"`
	Force     bool   `help:"Overwrite an existing config"`
}

// help implements [helper].
func (initCmd) help() commandHelp {
	return commandHelp{
		text:     "The config has one hive: this machine, without SSH and with the worker type echo. With --ssh-config, it has a hive for each matching host instead. The comments in the file describe all keys.",
		examples: []string{"rbee init", "rbee init --ssh-config 'gpu-*'", "rbee init --config fleet.conf"},
	}
}

const initHeader = `Config of rbee: the machines (hives) and their workers.

Each [[hive]] is one machine:
  alias       name of the hive
  hostname    a host in ~/.ssh/config, a host name, an IP address, or
              "localhost": this machine, without SSH
  ssh_user    user name (default: from ~/.ssh/config)
  ssh_port    SSH port (default: 22)
  ssh_key     private key file (default: the usual keys)
  hive_port   loopback port of the hive daemon (default: 8600)
  labels      labels for --label, such as ["a100", "lab"]
  workers     workers to install: { type = "echo", version = "latest" }
  auto_start  start the hive daemon (default: true)

Next: rbee validate, then rbee install, then rbee status.`

// initReport is the JSON output of the command.
type initReport struct {
	Status string   `json:"status"` // always "success"
	Path   string   `json:"path"`
	Hives  []string `json:"hives"`
}

// Run runs the command.
func (c *initCmd) Run(a *app) error {
	cfg, err := c.config(a)
	if err != nil {
		return err
	}
	path := a.config()
	if path == "" {
		paths, err := a.paths()
		if err != nil {
			return err
		}
		path = paths.Config()
	}
	if err := writeConfig(path, config.Format(cfg, initHeader), c.Force); err != nil {
		return err
	}
	r := initReport{Status: "success", Path: path}
	for _, h := range cfg.Hives {
		r.Hives = append(r.Hives, h.Alias)
	}
	if a.asJSON() {
		return ui.JSON(a.p.Stdout, r)
	}
	return ui.InitResult(a.p.Stdout, a.style(a.p.Stdout), path, r.Hives)
}

// config returns a config with this machine, or with the hosts of --ssh-config.
func (c *initCmd) config(a *app) (*config.Config, error) {
	if c.SSHConfig == "" {
		name, _ := os.Hostname() // without a name, the alias is the default
		return &config.Config{Hives: []config.Hive{firstHive(aliasFrom(name), "localhost")}}, nil
	}
	dialer := sshx.Dialer{Home: a.p.Getenv("HOME")}
	if file := a.flags().SSHConfigFile; file != "" {
		dialer.ConfigFiles = []string{file}
	}
	hosts, err := dialer.Hosts(c.SSHConfig)
	if err != nil {
		return nil, err
	}
	if len(hosts) == 0 {
		return nil, fmt.Errorf("no host in ssh_config matches %q", c.SSHConfig)
	}
	config := &config.Config{}
	for _, host := range slices.Compact(hosts) {
		config.Hives = append(config.Hives, firstHive(aliasFrom(host), host))
	}
	return config, nil
}

func firstHive(alias, hostname string) config.Hive {
	h := config.NewHive(alias, hostname)
	h.Workers = []config.Worker{{Type: "echo", Version: version.Latest}}
	return h
}

// aliasFrom converts a host name to a valid alias.
func aliasFrom(name string) string {
	name, _, _ = strings.Cut(name, ".")
	if config.ValidAlias(name) {
		return name
	}
	name = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return '-'
	}, name), "-_")
	if name = name[:min(len(name), 63)]; config.ValidAlias(name) {
		return name
	}
	return "this-machine"
}

// writeConfig writes the config atomically and creates its directory.
func writeConfig(path string, content []byte, force bool) error {
	if _, err := os.Lstat(path); err == nil && !force {
		return &usageError{message: path + " already exists", hint: "use --force to overwrite it"}
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return operations.FileError(path, "cannot write the config", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the usual permissions of config directories
		return operations.FileError(path, "cannot create the directory of the config", err)
	}
	if err := atomicfile.WriteData(path, content, 0o644); err != nil {
		return operations.FileError(path, "cannot write the config", err)
	}
	return nil
}
