package control

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/hive/home"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// Service is the daemon as a service of this user.
func (dm *Daemon) Service() *service.Service {
	user, _ := dm.Home.UserHome() // without one, the service says so itself
	return &service.Service{
		Name: dm.serviceName("rbee-hive", user), Label: dm.serviceName("rbee.hive", user), Description: "rbee hive daemon",
		Program: dm.Home.Path(wire.Binary), Args: []string{"hive", "serve"},
		Env: []string{"RBEE_HOME=" + dm.Home.Root}, Inherited: passedOn(), SetManager: true, Log: dm.Home.Path(home.LogFile),
		StopTimeout: StopTimeout, KeepChildren: true,
		UserHome: dm.Home.User, Record: dm.Home.Path(home.SupervisorFile), Command: dm.Command,
	}
}

// supervisor is what is to keep the daemon running on this machine.
func (dm *Daemon) supervisor(ctx context.Context) service.Manager {
	return dm.Service().Manager(ctx, dm.Supervisor)
}

// serviceName is base, or base with a mark for a home that is not the usual one,
// which has a service of its own.
func (dm *Daemon) serviceName(base, userHome string) string {
	if filepath.Clean(dm.Home.Root) == filepath.Join(userHome, ".local", "share", "rbee") {
		return base
	}
	return fmt.Sprintf("%s-%x", base, sha256.Sum256([]byte(dm.Home.Root)))[:len(base)+9]
}

// passedOn is what the daemon gets, whoever supervises it, of the environment that
// rbee is run with on this machine: where models lie and come from, and proxies.
// Without it the daemon would look for models elsewhere than commands that need no
// daemon. Tokens are not in it: a daemon reads them from their file.
func passedOn() []string {
	return service.Environ(
		"HF_HUB_CACHE", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	)
}
