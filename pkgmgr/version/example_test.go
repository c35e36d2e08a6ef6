package version_test

import (
	"fmt"

	"github.com/rbee-keeper/rbee/pkgmgr/version"
)

func ExampleParseRange() {
	r, err := version.ParseRange(">=0.8, <0.10")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(r.Has("0.7.9"), r.Has("0.9.2"), r.Has("0.10.0"), r.Versions())
	// Output: false true false [0.8 0.10]
}

func ExampleCompare() {
	fmt.Println(version.Compare("1.10", "1.9"), version.Compare("b999", "b1000"), version.Compare("0.9.0rc1", "v0.9.0"))
	// Output: 1 -1 -1
}

func ExampleNewest() {
	versions := []string{"0.8.5", "0.9.1", "0.10.0", "0.11.0rc1"}
	fmt.Println(version.Newest(version.Latest, versions), version.Newest("0.9.*", versions), version.Newest(">=0.11.0rc1", versions))
	// Output: 0.10.0 0.9.1 0.11.0rc1
}
