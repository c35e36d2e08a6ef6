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

// CachedWheels returns the keys of the wheels in the cache; see [wire.WheelKey].
func (s *Store) CachedWheels() []string {
	var keys []string
	records, _ := filepath.Glob(s.Home.Path(WheelsDir + "/*/" + UnpackedName)) // the only possible error is a bad pattern
	for _, path := range records {
		keys = append(keys, wire.WheelKey(filepath.Base(filepath.Dir(path))))
	}
	return keys
}

// Manifests returns the manifests of all builds. It omits damaged ones, which
// [Store.Worker] reports.
func (s *Store) Manifests() []Manifest {
	var all []Manifest
	paths, _ := filepath.Glob(s.Home.Path(wire.WorkersDir + "/*/*/" + ManifestName)) // the only possible error is a bad pattern
	for _, path := range paths {
		var m Manifest
		if statefile.Read(path, &m) == nil {
			all = append(all, m)
		}
	}
	return all
}
