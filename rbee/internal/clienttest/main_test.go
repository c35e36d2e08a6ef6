// Package clienttest tests rbee with clients of other projects: OpenAI's library and a
// browser. It is a separate module, so that the dependencies of these tests are not in
// the module graph of programs that import rbee:
//
//	go -C rbee/internal/clienttest test ./...
package clienttest

import (
	"os"
	"testing"

	"github.com/rbee-keeper/rbee/rbee/internal/queentest"
)

// TestMain builds rbee and puts it first in PATH.
func TestMain(m *testing.M) {
	os.Exit(queentest.WithProgram("../../..", m.Run))
}
