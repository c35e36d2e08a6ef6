package installed

import (
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/statefile"
)

// Names of the cache of unpacked wheels.
const (
	WheelsDir    = wire.CacheDir + "/wheels"
	UnpackedName = "unpacked.json" // in wheels/<sha256>/: the record of an unpacked wheel
)

// CachedWheels lists the wheels in the cache, by [wire.WheelKey].
func (s *Store) CachedWheels() []string {
	var keys []string
	records, _ := filepath.Glob(s.Home.Path(WheelsDir + "/*/" + UnpackedName)) // fails for a bad pattern only
	for _, path := range records {
		keys = append(keys, wire.WheelKey(filepath.Base(filepath.Dir(path))))
	}
	return keys
}

// Manifests reads the records of all builds. A damaged one is left out: it is reported
// elsewhere.
func (s *Store) Manifests() []Manifest {
	var all []Manifest
	paths, _ := filepath.Glob(s.Home.Path(wire.WorkersDir + "/*/*/" + ManifestName)) // fails for a bad pattern only
	for _, path := range paths {
		var m Manifest
		if statefile.Read(path, &m) == nil {
			all = append(all, m)
		}
	}
	return all
}
