package controller

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/rbee-keeper/rbee/operations"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
	"github.com/rbee-keeper/rbee/rbee/internal/registry"
)

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
		return nil, registry.Unreachable(h.Alias, err)
	}
	defer host.Close()
	var out, complaint bytes.Buffer
	err = host.Script(ctx, `B="${RBEE_HOME:-$HOME/.local/share/rbee}/bin/rbee"
[ -e "$B" ] || { printf '\036{"os":""}\n'; exit 0; }
exec "$B" hive capabilities </dev/null
`, &out, &complaint)
	if err != nil {
		var exited interface{ ExitStatus() int }
		if errors.As(err, &exited) {
			return nil, &operations.Error{
				Code: operations.CodeFailed, Reason: operations.ReasonFailed, Subject: operations.SubjectHive.Named(h.Alias), Hive: h.Alias,
				Message: fmt.Sprintf("asking the machine what it has: %v: %s", err, strings.TrimSpace(complaint.String())), Err: err,
			}
		}
		return nil, registry.Unreachable(h.Alias, err)
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
