package lockfile_test

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rbee-keeper/rbee/pkgmgr/lockfile"
)

func ExampleLoad() {
	dir, err := os.MkdirTemp("", "rbee-example-")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := lockfile.Path(filepath.Join(dir, "hives.conf"))
	fmt.Println(filepath.Base(path))

	lock, err := lockfile.Load(path) // the file does not exist: an empty lockfile
	if err != nil {
		fmt.Println(err)
		return
	}
	lock.SetWorker("vllm", "latest", "0.11.0", time.Now())
	if err := lock.Save(); err != nil {
		fmt.Println(err)
		return
	}

	lock, err = lockfile.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	w, locked := lock.Worker("vllm", "latest")
	fmt.Println(w.Type, w.Requested, w.Version, locked)
	// Output:
	// hives.lock
	// vllm latest 0.11.0 true
}
