package model_test

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/model"
)

func ExampleParseRef() {
	ref, err := model.ParseRef("org/bee-GGUF:Q4_K_M@v1")
	fmt.Println(ref.Repo, ref.Part, ref.Revision, err)
	_, err = model.ParseRef("bee")
	fmt.Println(err)
	// Output:
	// org/bee-GGUF Q4_K_M v1 <nil>
	// invalid model "bee": want org/repo[:quantization][@revision], org/repo:file or a URL
}
