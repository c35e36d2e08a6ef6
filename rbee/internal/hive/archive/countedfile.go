package archive

import (
	"os"

	"github.com/rbee-keeper/rbee/rbee/internal/hive/progress"
)

// countedFile adds the bytes that are read from a file to ph.
type countedFile struct {
	*os.File
	ph *progress.Phase
}

// Read implements io.Reader.
func (c countedFile) Read(p []byte) (int, error) {
	n, err := c.File.Read(p)
	c.ph.Add(int64(n))
	return n, err
}
