package sshconfig_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/rbee-keeper/rbee/sshx/sshconfig"
)

const exampleConfig = `
Host gpu-*
  HostName %h.lab.example
  User bee
  ProxyJump gate.example
Host gpu-1
  Port 2222
Host *
  IdentityFile ~/.ssh/id_%r
`

// exampleFile writes exampleConfig to a file. Programs normally use the zero value of sshconfig.Options to read the files of
// the user.
func exampleFile() (path string, remove func()) {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	path = filepath.Join(dir, "config")
	if err := os.WriteFile(path, []byte(exampleConfig), 0o600); err != nil {
		log.Fatal(err)
	}
	return path, func() { os.RemoveAll(dir) }
}

// Get the settings for a host.
func ExampleConfig_Resolve() {
	path, remove := exampleFile()
	defer remove()

	config, err := sshconfig.Load(sshconfig.Options{Files: []string{path}, Home: "/home/me"})
	if err != nil {
		log.Fatal(err)
	}
	host, err := config.Resolve(sshconfig.Target{Host: "gpu-1"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(host.Address())
	fmt.Println("through", host.Jump[0].HostName)
	fmt.Println("with", host.IdentityFiles[0])
	// Output:
	// bee@gpu-1.lab.example:2222
	// through gate.example
	// with /home/me/.ssh/id_bee
}

// List the hosts in a file.
func ExampleConfig_Hosts() {
	path, remove := exampleFile()
	defer remove()

	config, err := sshconfig.Load(sshconfig.Options{Files: []string{path}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Hosts("gpu-*"))
	// Output: [gpu-1]
}
