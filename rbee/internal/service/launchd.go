package service

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// bootstrapRetryInterval is the interval at which bootstrap retries to load an agent.
const bootstrapRetryInterval = 50 * time.Millisecond

// launchd is the service manager of macOS. It runs the daemon as a launch agent of the user,
// who must be logged in to the GUI.
type launchd struct{ s *Service }

// Name implements [Manager].
func (launchd) Name() string { return Launchd }

// guiDomain returns the launchctl(1) domain of the user's GUI login.
func guiDomain() string { return fmt.Sprintf("gui/%d", os.Getuid()) }

// agent returns the path of the service file and the label of the agent.
func (l launchd) agent() (path, label string, err error) {
	home, err := l.s.userHome()
	if err != nil {
		return "", "", err
	}
	label = l.s.Label
	return filepath.Join(home, "Library", "LaunchAgents", label+".plist"), label, nil
}

// File returns the path of the property list of the agent.
func (l launchd) File() (string, error) {
	path, _, err := l.agent()
	return path, err
}

// Start implements [Manager].
func (l launchd) Start(ctx context.Context, auto bool) (<-chan struct{}, error) {
	return nil, l.start(ctx, l.s.Plist(), auto)
}

// start implements [fileManager].
func (l launchd) start(ctx context.Context, text string, auto bool) error {
	path, _, err := l.agent()
	if err != nil {
		return err
	}
	if err := l.s.writeFile(path, text); err != nil {
		return err
	}
	if err := l.Enable(ctx, true); err != nil { // a disabled agent cannot be loaded
		return err
	}
	if err := l.bootstrap(ctx, path); err != nil || auto {
		return err
	}
	return l.Enable(ctx, false) // the agent keeps running, but is not loaded at the next login
}

// bootstrap loads the agent, which starts it. It retries while launchd still unloads the
// previous agent with the same label, because bootstrap fails until that agent has stopped.
func (l launchd) bootstrap(ctx context.Context, path string) error {
	start, limit := time.Now(), l.s.timeLimits().load
	for {
		_, err := l.s.run(ctx, "launchctl", "bootstrap", guiDomain(), path)
		waited := time.Since(start)
		if err == nil || waited > limit+l.s.StopTimeout || waited > limit && !l.isLoaded(ctx) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(bootstrapRetryInterval):
		}
	}
}

// Enable sets whether launchd loads the agent at login. It does not use RunAtLoad, which
// KeepAlive overrides.
func (l launchd) Enable(ctx context.Context, auto bool) error {
	_, label, err := l.agent()
	if err != nil {
		return err
	}
	verb := "disable"
	if auto {
		verb = "enable"
	}
	_, err = l.s.run(ctx, "launchctl", verb, guiDomain()+"/"+label)
	return err
}

// Stop implements [Manager].
func (l launchd) Stop(ctx context.Context) error {
	path, label, err := l.agent()
	if err != nil {
		return nil // without a home directory, no agent exists
	}
	if _, err := os.Stat(path); err != nil {
		return nil // not installed
	}
	if !l.isLoaded(ctx) {
		return nil
	}
	_, err = l.s.runStop(ctx, "launchctl", "bootout", guiDomain()+"/"+label)
	return err
}

// isLoaded reports whether launchd has loaded the agent, or is still unloading it.
func (l launchd) isLoaded(ctx context.Context) bool {
	_, err := l.s.run(ctx, "launchctl", "print", guiDomain()+"/"+l.s.Label)
	return err == nil
}

// Remove implements [Manager].
func (l launchd) Remove(ctx context.Context) error {
	path, _, err := l.agent()
	if err != nil {
		return nil // without a home directory, no agent exists
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_ = l.Enable(ctx, true) // removes the agent from the list of disabled agents
	return l.s.removeFile(path)
}

// Plist returns the service file for launchd; see launchd.plist(5). AbandonProcessGroup
// keeps child processes running when the daemon stops.
func (s *Service) Plist() string {
	str := func(v string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(v)) // a strings.Builder never fails
		return "<string>" + b.String() + "</string>"
	}
	var command, env, logKeys strings.Builder
	for _, arg := range append([]string{s.Program}, s.Args...) {
		command.WriteString(str(arg))
	}
	for _, v := range s.fileEnv(Launchd) {
		name, value, _ := strings.Cut(v, "=")
		env.WriteString("\n		<key>" + name + "</key>" + str(value))
	}
	if s.Log != "" {
		logKeys.WriteString("\n	<key>StandardOutPath</key>" + str(s.Log) + "\n	<key>StandardErrorPath</key>" + str(s.Log))
	}
	children := ""
	if s.KeepChildren {
		children = "\n	<key>AbandonProcessGroup</key><true/>"
	}
	return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>` + str(s.Label) + `
	<key>ProgramArguments</key>
	<array>` + command.String() + `</array>
	<key>EnvironmentVariables</key>
	<dict>` + env.String() + `
	</dict>
	<key>WorkingDirectory</key><string>/</string>` + logKeys.String() + `
	<key>RunAtLoad</key><true/>
	<key>KeepAlive</key>
	<dict><key>SuccessfulExit</key><false/></dict>
	<key>ThrottleInterval</key><integer>2</integer>
	<key>ExitTimeOut</key>` + fmt.Sprintf("<integer>%d</integer>", int(s.StopTimeout/time.Second)) + children + `
</dict>
</plist>
`
}
