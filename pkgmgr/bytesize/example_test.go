package bytesize_test

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/bytesize"
)

func ExampleFormat() {
	fmt.Println(bytesize.Format(512), bytesize.Format(64<<10), bytesize.Format(uint64(32641351680)))
	// Output: 512 B 64.0 KiB 30.4 GiB
}
