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

// enableLinger enables lingering for this user. enabled is false if lingering was enabled
// before; otherwise the caller must disable it when the service is removed. enableLinger
// fails if the policy of the machine does not allow it.
func enableLinger(ctx context.Context, run Command, dir string) (enabled bool, err error) {
	u, err := user.Current()
	if err != nil {
		return false, fmt.Errorf("cannot find the name of this user: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, u.Username)); err == nil {
		return false, nil
	}
	_, err = run(ctx, "loginctl", "enable-linger")
	return err == nil, err
}

// disableLinger disables lingering, unless units, the directory of user units, contains
// another rbee unit, which still needs it.
func disableLinger(ctx context.Context, run Command, units string) error {
	others, err := filepath.Glob(filepath.Join(units, "rbee-*.service"))
	if err != nil || len(others) > 0 {
		return err
	}
	_, err = run(ctx, "loginctl", "disable-linger")
	return err
}
