package sshtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
)

// basicTools lists the tools that Put and simple scripts need.
var basicTools = []string{"sh", "cat", "mkdir", "mv", "rm", "chmod", "wc", "sleep", "printf", "echo", "test", "true", "false", "ls", "pwd", "env", "kill", "sed", "tr"}

// Tools creates links in dir to a basic set of POSIX tools and to the extra tools, and returns dir. If a host uses dir as its
// PATH, other tools such as gzip or sha256sum are not available. Tools returns an error if an extra tool is not installed.
func Tools(dir string, extra ...string) (path string, err error) {
	for _, name := range append(slices.Clone(basicTools), extra...) {
		program, err := exec.LookPath(name)
		if err != nil {
			if slices.Contains(extra, name) {
				return "", fmt.Errorf("sshtest: %w", err)
			}
			continue // a shell builtin
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
