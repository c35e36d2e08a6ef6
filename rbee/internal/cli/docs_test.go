package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// testedBlock matches a shell block of the documentation that is marked as runnable offline.
var testedBlock = regexp.MustCompile("(?s)<!-- tested -->\n```(sh|console)\n(.*?)```")

// TestDocsBlocks runs the marked shell blocks of the README and the manuals, each in a new home
// directory. Every command must succeed.
func TestDocsBlocks(t *testing.T) {
	t.Parallel()
	files := []string{"../../../README.md"}
	manuals, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := 0
	for _, file := range append(files, manuals...) {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range testedBlock.FindAllStringSubmatch(string(data), -1) {
			blocks++
			script := block[2]
			if block[1] == "console" {
				script = consoleCommands(script)
			}
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), i+1), func(t *testing.T) {
				t.Parallel()
				runBlock(t, script)
			})
		}
	}
	if blocks < 2 {
		t.Errorf("found %d blocks with the mark <!-- tested -->, want at least 2", blocks)
	}
}

// consoleCommands returns the commands of a console block, without their output.
func consoleCommands(block string) string {
	var commands strings.Builder
	for line := range strings.Lines(block) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			commands.WriteString(command)
		}
	}
	return commands.String()
}

// runBlock runs a shell block. The hive of `rbee init` gets an unused port, so that the test does
// not depend on the default port of this machine.
func runBlock(t *testing.T, script string) {
	t.Helper()
	home := homeDir(t)
	setPort := fmt.Sprintf("\nif [ -e ~/.config/rbee/hives.conf ]; then sed -i.bak 's/^hive_port = 8600$/hive_port = %d/' ~/.config/rbee/hives.conf; fi\n", unusedPort(t))
	lines := strings.SplitAfter(script, "\n")
	env := []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "LC_ALL=C.UTF-8"}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(home, ".local/share/rbee")); err == nil { // the block failed
			cmd := exec.Command("rbee", "uninstall", "--yes")
			cmd.Env = env
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("rbee uninstall exits with %v, want success:\n%s", err, text)
			}
		}
	})
	cmd := exec.Command("sh", "-ex", "-c", strings.Join(lines, setPort))
	cmd.Dir, cmd.Env = home, env
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the block exits with %v, want success:\n%s", err, text)
	}
}
