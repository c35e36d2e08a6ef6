// Package rbee is the program: [Main] is its only entry point.
package rbee

import (
	"cmp"
	"context"
	"io"
	"path/filepath"
	"runtime/debug"

	"github.com/rbee-keeper/rbee/pkgmgr/artifact"
	"github.com/rbee-keeper/rbee/rbee/internal/cli"
)

// DevVersion is the version of builds that the go command gives none.
const DevVersion = artifact.DevVersion

// Main runs the program and returns its exit code. args begins with the
// program's own name: as rbee-worker-<type> it is that built-in worker. env
// holds NAME=value. Standard streams that are terminals are drawn and asked on.
// It listens for interrupts while it runs.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env []string) int {
	var line []string
	if len(args) > 0 {
		line = args[1:]
		if worker, ok := cli.WorkerArgs(filepath.Base(args[0]), line); ok {
			line = worker
		}
	}
	return cli.Run(ctx, cli.Process{
		Args: line, Stdin: stdin, Stdout: stdout, Stderr: stderr, Env: env, Version: Version(),
	})
}

// Version is the release that this program is, such as 1.2.3, where the go
// command recorded one, else [DevVersion].
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return DevVersion
	}
	return versionOf(info.Main.Version)
}

func versionOf(module string) string {
	return cmp.Or(artifact.ReleaseVersion(module), DevVersion)
}
