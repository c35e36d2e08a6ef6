package service

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
)

// With lingering enabled, the systemd user services of a user run while the user is not
// logged in. Without it, they stop at the last logout and do not start at boot.

// lingerDir contains a file for each user with lingering enabled; see
// systemd-logind.service(8).
const lingerDir = "/var/lib/systemd/linger"

// enableLinger enables lingering for this user, unless it is already enabled. If enabled is
// true, the caller must disable lingering when it removes the service. enableLinger fails if
// the policy of the machine does not allow lingering.
func enableLinger(ctx context.Context, run Command, dir string) (enabled bool, err error) {
	u, err := user.Current()
	if err != nil {
		return false, fmt.Errorf("cannot look up the current user: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, u.Username)); err == nil {
		return false, nil
	}
	_, err = run(ctx, "loginctl", "enable-linger")
	return err == nil, err
}

// disableLinger disables lingering, unless unitDir, the directory of user units, contains
// another rbee unit, which needs lingering.
func disableLinger(ctx context.Context, run Command, unitDir string) error {
	others, err := filepath.Glob(filepath.Join(unitDir, "rbee-*.service"))
	if err != nil || len(others) > 0 {
		return err
	}
	_, err = run(ctx, "loginctl", "disable-linger")
	return err
}
