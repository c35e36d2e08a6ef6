package fakehost

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// Rbee returns an [artifact.BinarySource] with an rbee of the given version for every
// platform. Its binaries are short texts that only a [Machine] can run.
func Rbee(version string) artifact.BinarySource { return rbee(version) }

type rbee string

// Binary implements [artifact.BinarySource].
func (v rbee) Binary(ctx context.Context, p wire.Platform, _ bool) (*artifact.Binary, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	content := fmt.Appendf(nil, "rbee %s for %s\n", string(v), p.Key())
	sum := sha256.Sum256(content)
	return &artifact.Binary{
		Version: string(v), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}, nil
}
