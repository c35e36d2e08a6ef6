// Package clienttest tests rbee with clients of other projects: OpenAI's own library, and
// a browser. It is a module of its own, so that programs that import rbee do not get the
// dependencies of these tests into their module graph:
//
//	go -C rbee/internal/clienttest test ./...
package clienttest

import (
	"os"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestMain builds the program and puts it first in PATH.
func TestMain(m *testing.M) {
	os.Exit(queentest.WithProgram("../../..", m.Run))
}
