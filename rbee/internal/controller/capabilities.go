package controller

import (
	"bytes"
	"context"
	_ "embed" // the script
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

// capabilitiesScript runs `rbee hive capabilities`, or prints a record without an OS if rbee
// is not installed.
//
//go:embed capabilities.sh
var capabilitiesScript string

// capabilities runs rbee on the hive to detect its devices. It does not need the daemon.
func (c *Controller) capabilities(ctx context.Context, op operations.HiveCapabilities) (*operations.HiveCapabilitiesReport, error) {
	hives, err := c.files.Hives(operations.Target{HiveID: op.Alias, ConfigPath: op.ConfigPath})
	if err != nil {
		return nil, err
	}
	h := hives[0]
	host, err := c.conn.Host(ctx, h)
	if err != nil {
		return nil, registry.UnreachableError(h.Alias, err)
	}
	defer host.Close()
	var out, stderr bytes.Buffer
	err = host.Script(ctx, capabilitiesScript, &out, &stderr)
	if err != nil {
		var exitErr interface{ ExitStatus() int }
		if errors.As(err, &exitErr) {
			return nil, &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectHive.WithName(h.Alias), Hive: h.Alias,
				Message: fmt.Sprintf("cannot detect the devices of the hive: %v: %s", err, strings.TrimSpace(stderr.String())), Err: err,
			}
		}
		return nil, registry.UnreachableError(h.Alias, err)
	}
	r := new(operations.HiveCapabilitiesReport)
	if err := wire.NewReader(&out).Read(r); err != nil {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonNotRbee, Subject: operations.SubjectHive.WithName(h.Alias), Hive: h.Alias, Message: "cannot read the devices of the hive: " + err.Error(), Err: err}
	}
	if r.OS == "" {
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Subject: operations.SubjectHive.WithName(h.Alias), Hive: h.Alias, Message: "rbee is not installed on the hive"}
	}
	r.Alias = h.Alias
	return r, nil
}
