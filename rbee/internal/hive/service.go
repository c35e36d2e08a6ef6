package hive

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/service"
)

// service is the daemon as a service of this user.
func (h *Hive) service() *service.Service {
	home, _ := h.userHome() // without one, the service says so itself
	return &service.Service{
		Name: h.serviceName("rbee-hive", home), Label: h.serviceName("rbee.hive", home), Description: "rbee hive daemon",
		Program: h.path(wire.Binary), Args: []string{"hive", "serve"},
		Env: []string{"RBEE_HOME=" + h.Home}, Inherited: passedOn(), Log: h.path(logFile),
		StopTimeout: stopTimeout, KeepChildren: true,
		UserHome: h.UserHome, Record: h.path(supervisorFile), Command: h.command,
	}
}

// supervisor is what is to keep the daemon running on this machine.
func (h *Hive) supervisor(ctx context.Context) service.Manager {
	return h.service().Manager(ctx, h.Supervisor)
}

// serviceName is base, or base with a mark for a home that is not the usual one,
// which has a service of its own.
func (h *Hive) serviceName(base, userHome string) string {
	if filepath.Clean(h.Home) == filepath.Join(userHome, ".local", "share", "rbee") {
		return base
	}
	return fmt.Sprintf("%s-%x", base, sha256.Sum256([]byte(h.Home)))[:len(base)+9]
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
