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

// capabilitiesScript runs `rbee hive capabilities`, or prints a record without an OS where
// rbee is not installed.
//
//go:embed capabilities.sh
var capabilitiesScript string

// capabilities has the machine's own rbee tell what the machine has. It needs no
// daemon.
func (q *Controller) capabilities(ctx context.Context, op operations.HiveCapabilities) (*operations.HiveCapabilitiesReport, error) {
	hives, err := q.files.Hives(operations.Target{HiveID: op.Alias, ConfigPath: op.ConfigPath})
	if err != nil {
		return nil, err
	}
	h := hives[0]
	host, err := q.conn.Host(ctx, h)
	if err != nil {
		return nil, registry.UnreachableError(h.Alias, err)
	}
	defer host.Close()
	var out, complaint bytes.Buffer
	err = host.Script(ctx, capabilitiesScript, &out, &complaint)
	if err != nil {
		var exited interface{ ExitStatus() int }
		if errors.As(err, &exited) {
			return nil, &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectHive.Named(h.Alias), Hive: h.Alias,
				Message: fmt.Sprintf("asking the machine what it has: %v: %s", err, strings.TrimSpace(complaint.String())), Err: err,
			}
		}
		return nil, registry.UnreachableError(h.Alias, err)
	}
	r := new(operations.HiveCapabilitiesReport)
	if err := wire.NewReader(&out).Read(r); err != nil {
		return nil, &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonOtherProgram, Subject: operations.SubjectHive.Named(h.Alias), Hive: h.Alias, Message: "what the machine has cannot be read: " + err.Error(), Err: err}
	}
	if r.OS == "" {
		return nil, &operations.Error{Code: operations.CodeNotFound, Reason: operations.ReasonNotInstalled, Subject: operations.SubjectHive.Named(h.Alias), Hive: h.Alias, Message: "rbee is not installed there"}
	}
	r.Alias = h.Alias
	return r, nil
}
