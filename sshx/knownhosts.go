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

// plainHostKeys are the host key algorithms asked of a host about which nothing is known, best first. Certificates are
// asked only of hosts for which known_hosts has an authority.
var plainHostKeys = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
}

// nowhere stands for the remote address where known_hosts is searched by name only.
var nowhere = &net.TCPAddr{IP: net.IPv4zero}

// knownHosts keeps parsed known_hosts files, one set for all hosts. A set is parsed again when a file has changed.
type knownHosts struct {
	mu   sync.Mutex // guards sets, and orders changes to the files
	sets map[string]*knownSet
}

type knownSet struct {
	stamp string // sizes and times of the files when they were parsed
	db    *knownhosts.HostKeyDB
	names map[string]string // cleaned copy -> the file it was made of
}

// open gives the parsed files. Files that do not exist are empty.
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

// statAll drops the files that do not exist.
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

// parseCleaned parses files that hold lines which the parser refuses and OpenSSH passes over, such as keys of an
// unknown type: it parses copies in which those lines are empty, so that line numbers stay right.
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

// validKnownHost tells whether the parser will take the line.
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

// algorithms are the host key algorithms to ask for: those known for the host first, because a host that is known by
// one key and shows another would look like an attack.
func (s *knownSet) algorithms(host string) []string {
	algos := s.db.HostKeyAlgorithms(host)
	for _, a := range plainHostKeys {
		if !slices.Contains(algos, a) {
			algos = append(algos, a)
		}
	}
	return algos
}

// check compares key with what is known for host:port. It gives nil or a HostKeyError.
func (s *knownSet) check(host string, key ssh.PublicKey) *HostKeyError {
	err := s.db.HostKeyCallback()(host, nowhere, key)
	if err == nil {
		return nil
	}
	bad := &HostKeyError{Host: knownhosts.Normalize(host), KeyType: key.Type(), Fingerprint: ssh.FingerprintSHA256(key)}
	var mismatch *xknownhosts.KeyError
	var revoked *xknownhosts.RevokedError
	switch {
	case errors.As(err, &revoked):
		bad.Revoked = true
		bad.File, bad.Line = s.fileName(revoked.Revoked.Filename), revoked.Revoked.Line
	case !errors.As(err, &mismatch):
		bad.Err = err // a certificate that does not hold
	case len(mismatch.Want) > 0:
		want := mismatch.Want[0]
		for _, w := range mismatch.Want {
			if w.Key.Type() == key.Type() {
				want = w
				break
			}
		}
		bad.File, bad.Line = s.fileName(want.Filename), want.Line
	}
	return bad
}

func (s *knownSet) fileName(name string) string {
	if original, ok := s.names[name]; ok {
		return original
	}
	return name
}

// accept adds the key to the first file, unless someone else did meanwhile.
func (k *knownHosts) accept(files []string, host string, key ssh.PublicKey, hash bool) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	set, err := k.openLocked(files)
	if err != nil {
		return err
	}
	if bad := set.check(host, key); bad == nil {
		return nil
	} else if bad.File != "" {
		return bad
	}
	name := knownhosts.Normalize(host)
	if hash {
		name = xknownhosts.HashHostname(name)
	}
	if len(files) == 0 {
		return errors.New("there is no known_hosts file to write it to")
	}
	clear(k.sets) // a file's time may be too coarse to show the change
	return appendLine(files[0], xknownhosts.Line([]string{name}, key))
}

// appendLine adds a line to a file, which it creates with its folder if need be, readable by the user alone.
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
