package controller

import (
	"errors"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr"
)

// Files are rbee's files on this machine: configs, the user's own recipes, locks, and
// the record of hives.
type Files struct {
	Paths    Paths
	record   pkgmgr.Record
	binaries *pkgmgr.Binaries
}

// NewFiles returns the files at the paths of options. It reads nothing yet.
func NewFiles(o Options) (*Files, error) {
	if o.Paths == (Paths{}) {
		return nil, errors.New("controller: Options.Paths is empty")
	}
	return &Files{
		Paths: o.Paths, record: pkgmgr.Record{Path: o.Paths.Record()},
		binaries: &pkgmgr.Binaries{
			Self: o.Self, Version: o.Version, Dir: o.Binaries, Cache: o.Paths.BinaryCache(), ReleaseURL: o.ReleaseURL,
		},
	}, nil
}

// desired is the config and all that belongs to it.
type desired struct {
	config  *pkgmgr.Config
	path    string // absolute
	catalog *pkgmgr.Catalog
	lock    *pkgmgr.Lock
	extra   []pkgmgr.Hive

	// bundle is where all that is installed is taken from, binaries the rbee for
	// machines; nil for the usual ways.
	bundle   *pkgmgr.Bundle
	binaries pkgmgr.BinarySource
}

// load reads the config, the recipes, the lock and the record.
func (f *Files) load(configPath string) (*desired, error) {
	path, err := f.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	config, err := pkgmgr.Load(path)
	if err != nil {
		return nil, err
	}
	return f.withCatalog(config, path)
}

// loadIfThere is load, with an empty config where the file does not exist.
func (f *Files) loadIfThere(configPath string) (*desired, error) {
	d, err := f.load(configPath)
	if operations.CodeOf(err) != operations.CodeNotFound {
		return d, err
	}
	path, err := f.Paths.ConfigFile(configPath)
	if err != nil {
		return nil, err
	}
	return f.withCatalog(&pkgmgr.Config{Path: path}, path)
}

func (f *Files) withCatalog(config *pkgmgr.Config, path string) (*desired, error) {
	catalog, err := pkgmgr.LoadCatalog(f.Paths.Recipes())
	if err != nil {
		return nil, err
	}
	extra, err := f.record.Extra(config, path)
	if err != nil {
		return nil, err
	}
	lock, err := pkgmgr.LoadLock(pkgmgr.LockPath(path))
	if err != nil {
		return nil, err
	}
	return &desired{config: config, path: path, catalog: catalog, lock: lock, extra: extra, binaries: f.binaries}, nil
}

// Hives are those that a target names: one, or all of the config.
func (f *Files) Hives(t operations.Target) ([]pkgmgr.Hive, error) {
	d, err := f.load(t.ConfigPath)
	if err != nil {
		return nil, err
	}
	if t.HiveID == "" {
		return d.config.Hives, nil
	}
	for _, h := range d.extra {
		if h.Alias == t.HiveID {
			return []pkgmgr.Hive{h}, nil
		}
	}
	return d.config.Select([]string{t.HiveID}, nil)
}
