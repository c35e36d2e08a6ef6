package sshx

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// plainHostKeys lists the host key algorithms for unknown hosts, in order of preference. Host certificates are requested
// only if known_hosts has a certificate authority for the host.
var plainHostKeys = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// anyAddr is a placeholder for the remote address: known_hosts is searched by name only.
var anyAddr = &net.TCPAddr{IP: net.IPv4zero}

// knownHosts caches parsed known_hosts files. A set of files is parsed again when a file has changed.
type knownHosts struct {
	mu   sync.Mutex // guards sets, and serializes changes to the files
	sets map[string]*knownSet
}

type knownSet struct {
	stamp string // sizes and modification times of the parsed files
	db    *knownhosts.HostKeyDB
	names map[string]string // name of a cleaned copy -> original file
}

// open returns the parsed files. It ignores missing files.
func (k *knownHosts) open(files []string) (*knownSet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.openLocked(files)
}

func (k *knownHosts) openLocked(files []string) (*knownSet, error) {
	key := strings.Join(files, "\x00")
	present, stamp, err := statAll(files)
	if err != nil {
		return nil, err
	}
	if set := k.sets[key]; set != nil && set.stamp == stamp {
		return set, nil
	}
	set := &knownSet{stamp: stamp}
	if set.db, err = knownhosts.NewDB(present...); err != nil {
		if set.db, set.names, err = parseCleaned(present); err != nil {
			return nil, err
		}
	}
	if k.sets == nil {
		k.sets = map[string]*knownSet{}
	}
	k.sets[key] = set
	return set, nil
}

// statAll returns the files that exist, and a stamp of their sizes and modification times.
func statAll(files []string) (present []string, stamp string, err error) {
	var b strings.Builder
	for _, file := range files {
		info, err := os.Stat(file)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		present = append(present, file)
		fmt.Fprintf(&b, "%s %d %d\n", file, info.Size(), info.ModTime().UnixNano())
	}
	return present, b.String(), nil
}

// parseCleaned parses files with lines that the parser rejects but OpenSSH ignores, such as keys of an unknown type. It
// parses copies in which those lines are empty, so that line numbers do not change.
func parseCleaned(files []string) (*knownhosts.HostKeyDB, map[string]string, error) {
	dir, err := os.MkdirTemp("", "known_hosts-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	names := map[string]string{}
	var copies []string
	for i, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, nil, err
		}
		lines := bytes.Split(text, []byte("\n"))
		for j, line := range lines {
			if !validKnownHost(line) {
				lines[j] = nil
			}
		}
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, bytes.Join(lines, []byte("\n")), 0o600); err != nil {
			return nil, nil, err
		}
		names[name] = file
		copies = append(copies, name)
	}
	db, err := knownhosts.NewDB(copies...)
	return db, names, err
}

// validKnownHost reports whether the parser accepts the line.
func validKnownHost(line []byte) bool {
	line = bytes.TrimSpace(line)
	if len(line) == 0 || line[0] == '#' {
		return true
	}
	_, hosts, key, _, _, err := ssh.ParseKnownHosts(line)
	if err != nil {
		return false
	}
	fields := strings.Fields(string(line))
	if strings.HasPrefix(fields[0], "@") {
		fields = fields[1:]
	}
	for _, host := range hosts {
		host = strings.TrimPrefix(host, "!")
		if strings.HasPrefix(host, "[") {
			if _, _, err := net.SplitHostPort(host); err != nil {
				return false
			}
		}
		if strings.HasPrefix(host, "|") && (strings.Count(host, "|") != 3 || !strings.HasPrefix(host, "|1|")) {
			return false
		}
	}
	return len(fields) >= 3 && fields[1] == key.Type()
}

// algorithms returns the host key algorithms to request. The algorithms of known keys are first: if a known host presented a
// key of another type, that key would look like a changed key.
func (s *knownSet) algorithms(host string) []string {
	algos := s.db.HostKeyAlgorithms(host)
	for _, a := range plainHostKeys {
		if !slices.Contains(algos, a) {
			algos = append(algos, a)
		}
	}
	return algos
}

// check compares key with the known keys of host:port. It returns nil if the key is known and valid.
func (s *knownSet) check(host string, key ssh.PublicKey) *HostKeyError {
	err := s.db.HostKeyCallback()(host, anyAddr, key)
	if err == nil {
		return nil
	}
	keyErr := &HostKeyError{Host: knownhosts.Normalize(host), KeyType: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	var mismatch *xknownhosts.KeyError
	var revoked *xknownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		keyErr.Revoked = true
		keyErr.File, keyErr.Line = s.fileName(revoked.Revoked.Filename), revoked.Revoked.Line
	case !errors.As(err, &mismatch):
		keyErr.Err = err // invalid certificate
	case len(mismatch.Want) > 0:
		want := mismatch.Want[0]
		for _, w := range mismatch.Want {
			if w.Key.Type() == key.Type() {
				want = w
				break
			}
		}
		keyErr.File, keyErr.Line = s.fileName(want.Filename), want.Line
	}
	return keyErr
}

func (s *knownSet) fileName(name string) string {
	if original, ok := s.names[name]; ok {
		return original
	}
	return name
}

// accept adds the key to the first file, unless the key is already known.
func (k *knownHosts) accept(files []string, host string, key ssh.PublicKey, hash bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	set, err := k.openLocked(files)
	if err != nil {
		return err
	}
	if keyErr := set.check(host, key); keyErr == nil {
		return nil
	} else if keyErr.File != "" {
		return keyErr
	}
	name := knownhosts.Normalize(host)
	if hash {
		name = xknownhosts.HashHostname(name)
	}
	if len(files) == 0 {
		return errors.New("no known_hosts file is configured")
	}
	clear(k.sets) // the modification time may be too coarse to show this change
	return appendLine(files[0], xknownhosts.Line([]string{name}, key))
}

// appendLine appends a line to a file. If necessary, it creates the file and its directory, accessible only to the user.
func appendLine(path, line string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
		last := make([]byte, 1)
		if _, err := f.ReadAt(last, info.Size()-1); err == nil && last[0] != '\n' {
			line = "\n" + line
		}
	}
	if _, err := f.WriteString(line + "\n"); err != nil {
		return err
	}
	return f.Close()
}
