// Package rbee implements the rbee program. [Main] is its only entry point.
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

// DevVersion is the version of builds for which the go command records no version.
const DevVersion = artifact.DevVersion

// Main runs the program and returns its exit code. args starts with the name of the
// program; if the name is rbee-worker-TYPE, Main runs the built-in worker TYPE. env
// contains NAME=value pairs. Standard streams that are terminals are used for progress and
// prompts. Main handles interrupts while it runs.
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

// Version returns the version of this program, such as 1.2.3, or [DevVersion] if the
// go command recorded no release.
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
