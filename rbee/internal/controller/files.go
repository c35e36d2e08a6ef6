package controller

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/catalog"
	"github.com/rbee-keeper/rbee/pkgmgr/config"
	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
)

// Files gives access to rbee's files on this machine: configs, the user's recipes, locks,
// and the record of hives.
type Files struct {
	Paths    pkgmgr.Paths
	record   pkgmgr.Record
	binaries *artifact.Binaries
}

// NewFiles returns the files at o.Paths. It does not read them.
func NewFiles(o Options) (*Files, error) {
	if o.Paths == (pkgmgr.Paths{}) {
		return nil, errors.New("invalid controller options: Paths is empty")
	}
	return &Files{
		Paths: o.Paths, record: pkgmgr.Record{Path: o.Paths.Record()},
		binaries: &artifact.Binaries{
			Self: o.Self, Version: o.Version, Dir: o.Binaries, Cache: o.Paths.BinaryCache(), ReleaseURL: o.ReleaseURL,
		},
	}, nil
}

// desiredState is the desired state: the config with its catalog and lockfile.
type desiredState struct {
	config  *config.Config
	path    string // absolute
	catalog *catalog.Catalog
	lock    *lockfile.Lock
	extra   []config.Hive

	// bundle is the source of all artifacts; nil to download them. binaries is the source
	// of rbee for hives.
	bundle   *artifact.Bundle
	binaries artifact.BinarySource
}

// read reads the config, the recipes, the lockfile and the record.
func (f *Files) read(configPath string) (*desiredState, error) {
	path, err := f.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	config, err := config.Load(path)
	if err != nil {
		return nil, err
	}
	return f.readRest(config, path)
}

// readOrEmpty works like read, but uses an empty config if the file does not exist.
func (f *Files) readOrEmpty(configPath string) (*desiredState, error) {
	d, err := f.read(configPath)
	if operations.ReasonOf(err) != operations.ReasonConfigMissing {
		return d, err
	}
	path, err := f.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	return f.readRest(&config.Config{Path: path}, path)
}

func (f *Files) readRest(config *config.Config, path string) (*desiredState, error) {
	catalog, err := catalog.Load(f.Paths.Recipes())
	if err != nil {
		return nil, err
	}
	extra, err := f.record.Extra(config, path)
	if err != nil {
		return nil, err
	}
	lock, err := lockfile.Load(lockfile.Path(path))
	if err != nil {
		return nil, err
	}
	return &desiredState{config: config, path: path, catalog: catalog, lock: lock, extra: extra, binaries: f.binaries}, nil
}

// Hives returns the hives of a target: the named hive, or all hives of the config.
func (f *Files) Hives(t operations.Target) ([]config.Hive, error) {
	d, err := f.read(t.ConfigPath)
	if err != nil {
		return nil, err
	}
	if t.HiveID == "" {
		return d.config.Hives, nil
	}
	for _, h := range d.extra {
		if h.Alias == t.HiveID {
			return []config.Hive{h}, nil
		}
	}
	return d.config.Select([]string{t.HiveID}, nil)
}
