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

// Service returns the daemon as a service of this user.
func (dm *Daemon) Service() *service.Service {
	user, _ := dm.Home.UserHome() // on an error, the methods of the service return it
	return &service.Service{
		Name: dm.serviceName("rbee-hive", user), Label: dm.serviceName("rbee.hive", user), Description: "rbee hive daemon",
		Program: dm.Home.Path(wire.Binary), Args: []string{"hive", "serve"},
		Env: []string{"RBEE_HOME=" + dm.Home.Root}, Inherited: inheritedEnv(), SetManager: true, Log: dm.Home.Path(home.LogFile),
		StopTimeout: StopTimeout, KeepChildren: true,
		UserHome: dm.Home.User, Record: dm.Home.Path(home.SupervisorFile), Command: dm.Command,
	}
}

// supervisor returns the service manager that runs the daemon.
func (dm *Daemon) supervisor(ctx context.Context) service.Manager {
	return dm.Service().Manager(ctx, dm.Supervisor)
}

// serviceName returns base for the default rbee directory. Another rbee directory has a
// separate service: serviceName appends a hash of its path to base.
func (dm *Daemon) serviceName(base, userHome string) string {
	if filepath.Clean(dm.Home.Root) == filepath.Join(userHome, ".local", "share", "rbee") {
		return base
	}
	return fmt.Sprintf("%s-%x", base, sha256.Sum256([]byte(dm.Home.Root)))[:len(base)+9]
}

// inheritedEnv returns the variables of this process that the daemon inherits under any
// service manager: the model directory and endpoint, the proxies and the locale. With them,
// the daemon uses the same models as commands that run without a daemon. They include no
// tokens: the daemon reads the tokens from their file.
func inheritedEnv() []string {
	return service.Environ(
		"HF_HUB_CACHE", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN_PATH", "XDG_CACHE_HOME", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH",
		"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
	)
}
