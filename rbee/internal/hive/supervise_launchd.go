package hive

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

	"github.com/rbee-keeper/rbee/pkgmgr/wire"
)

// bootstrapTimeout bounds the wait for launchd to let go of the daemon before.
const bootstrapTimeout = 5 * time.Second

// launchd is the service manager of macOS. The daemon is an agent of the user's
// session on the screen, which must exist.
type launchd struct{ h *Hive }

func (launchd) name() string { return SupervisorLaunchd }

// guiDomain is the session's name in launchctl(1).
func guiDomain() string { return fmt.Sprintf("gui/%d", os.Getuid()) }

// agent is the service's file and label.
func (l launchd) agent() (path, label string, err error) {
	home, err := l.h.userHome()
	if err != nil {
		return "", "", err
	}
	label = l.h.serviceName("rbee.hive", home)
	return filepath.Join(home, "Library", "LaunchAgents", label+".plist"), label, nil
}

func (l launchd) start(ctx context.Context, auto bool) (<-chan struct{}, error) {
	path, label, err := l.agent()
	if err != nil {
		return nil, err
	}
	if err := l.h.writeService(path, plistText(label, l.h.Home, written(passedOn()))); err != nil {
		return nil, err
	}
	if err := l.enable(ctx, true); err != nil { // a disabled one cannot be loaded
		return nil, err
	}
	if err := l.bootstrap(ctx, path); err != nil || auto {
		return nil, err
	}
	return nil, l.enable(ctx, false) // it runs on, and is not loaded at the next login
}

// bootstrap loads the service, which starts it. launchd refuses for a moment
// while it still unloads one of the same label.
func (l launchd) bootstrap(ctx context.Context, path string) error {
	for end := time.Now().Add(bootstrapTimeout); ; {
		_, err := l.h.run(ctx, "launchctl", "bootstrap", guiDomain(), path)
		if err == nil || time.Now().After(end) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		case <-time.After(pollEvery):
		}
	}
}

// enable sets whether launchd loads the agent at login: RunAtLoad cannot say no
// where KeepAlive asks for a restart.
func (l launchd) enable(ctx context.Context, auto bool) error {
	_, label, err := l.agent()
	if err != nil {
		return err
	}
	verb := "disable"
	if auto {
		verb = "enable"
	}
	_, err = l.h.run(ctx, "launchctl", verb, guiDomain()+"/"+label)
	return err
}

func (l launchd) stop(ctx context.Context) error {
	path, label, err := l.agent()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no agent
	}
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // not there
	}
	target := guiDomain() + "/" + label
	if _, err := l.h.run(ctx, "launchctl", "print", target); err != nil {
		return nil //nolint:nilerr // not loaded
	}
	_, err = l.h.run(ctx, "launchctl", "bootout", target)
	return err
}

func (l launchd) remove(ctx context.Context) error {
	path, _, err := l.agent()
	if err != nil {
		return nil //nolint:nilerr // without a home directory there is no agent
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	_ = l.enable(ctx, true) // leaves no word of it in launchd's list of disabled ones
	return l.h.removeService(path)
}

// plistText is the agent's file for a home, with an environment, after
// launchd.plist(5).
// AbandonProcessGroup leaves running workers alone.
func plistText(label, home string, env []string) string {
	str := func(v string) string {
		var b strings.Builder
		_ = xml.EscapeText(&b, []byte(v)) // a strings.Builder never fails
		return "<string>" + b.String() + "</string>"
	}
	var more strings.Builder
	for _, v := range env {
		name, value, _ := strings.Cut(v, "=")
		more.WriteString("\n		<key>" + name + "</key>" + str(value))
	}
	log := str(home + "/" + logFile)
	return `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>Label</key>` + str(label) + `
	<key>ProgramArguments</key>
	<array>` + str(home+"/"+wire.Binary) + `<string>hive</string><string>serve</string></array>
	<key>EnvironmentVariables</key>
	<dict>
		<key>RBEE_HOME</key>` + str(home) + `
		<key>RBEE_SUPERVISOR</key>` + str(SupervisorLaunchd) + more.String() + `
	</dict>
	<key>WorkingDirectory</key><string>/</string>
	<key>StandardOutPath</key>` + log + `
	<key>StandardErrorPath</key>` + log + `
	<key>RunAtLoad</key><true/>
	<key>KeepAlive</key>
	<dict><key>SuccessfulExit</key><false/></dict>
	<key>ThrottleInterval</key><integer>2</integer>
	<key>ExitTimeOut</key><integer>10</integer>
	<key>AbandonProcessGroup</key><true/>
</dict>
</plist>
`
}
