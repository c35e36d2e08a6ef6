// Command rbee keeps GPU machines as one file says.
package main

import (
	"context"
	"os"

	"github.com/rbee-keeper/rbee/rbee"
)

func main() {
	os.Exit(rbee.Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr, os.Environ()))
}
