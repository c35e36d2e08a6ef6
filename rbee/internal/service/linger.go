package service

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
)

// Lingering lets a user's services of systemd run while the user is not logged in.
// Without it they end at the last logout, and do not start with the machine.

// lingerDir has a file for each user who lingers (logind, systemd-logind.service(8)).
const lingerDir = "/var/lib/systemd/linger"

// enableLinger turns it on for this user, if it is not on. enabled is true if that was
// needed and done: then it is the caller's to turn off again. It fails where the
// machine's policy does not allow it.
func enableLinger(ctx context.Context, run Command, dir string) (enabled bool, err error) {
	u, err := user.Current()
	if err != nil {
		return false, fmt.Errorf("finding this user's name: %w", err)
	}
	if _, err := os.Stat(filepath.Join(dir, u.Username)); err == nil {
		return false, nil
	}
	_, err = run(ctx, "loginctl", "enable-linger")
	return err == nil, err
}

// disableLinger turns it off, unless another unit of rbee's own lies in units, the
// directory of the user's units, and needs it still.
func disableLinger(ctx context.Context, run Command, units string) error {
	others, err := filepath.Glob(filepath.Join(units, "rbee-*.service"))
	if err != nil || len(others) > 0 {
		return err
	}
	_, err = run(ctx, "loginctl", "disable-linger")
	return err
}
