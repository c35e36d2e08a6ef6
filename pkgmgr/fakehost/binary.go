package fakehost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/rbee-keeper/rbee/pkgmgr"
)

// Rbee is a [pkgmgr.BinarySource] that has a tiny rbee of this version for every
// platform. It is no program: only a [Machine] can run it.
func Rbee(version string) pkgmgr.BinarySource { return rbee(version) }

type rbee string

// Binary implements [pkgmgr.BinarySource].
func (v rbee) Binary(ctx context.Context, p pkgmgr.Platform, _ bool) (*pkgmgr.Binary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content := fmt.Appendf(nil, "rbee %s for %s\n", string(v), p.Key())
	sum := sha256.Sum256(content)
	return &pkgmgr.Binary{
		Version: string(v), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}, nil
}
