package sshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// basicTools are what Put and plain scripts need of a host.
var basicTools = []string{"sh", "cat", "mkdir", "mv", "rm", "chmod", "wc", "sleep", "printf", "echo", "test", "true", "false", "ls", "pwd", "env", "kill", "sed", "tr"}

// Tools fills dir with links to a basic set of POSIX tools and to the extra ones named, and gives dir as a value for PATH.
// A host with this PATH lacks everything else, such as gzip or sha256sum. An extra tool that this machine lacks is an
// error.
func Tools(dir string, extra ...string) (path string, err error) {
	for _, name := range append(slices.Clone(basicTools), extra...) {
		program, err := exec.LookPath(name)
		if err != nil {
			if slices.Contains(extra, name) {
				return "", fmt.Errorf("sshtest: %w", err)
			}
			continue // built into the shell
		}
		if program, err = filepath.Abs(program); err != nil {
			return "", err
		}
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			return "", err
		}
	}
	return dir, nil
}
