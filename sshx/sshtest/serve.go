package sshtest

import (
	"crypto/subtle"
	"errors"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// loginTimeout limits the time until a connection has logged in.
const loginTimeout = 2 * time.Minute

func (h *Host) serve(conn *faultConn) {
	defer conn.Close()
	timer := time.AfterFunc(loginTimeout, func() { conn.Close() })
	server, channels, requests, err := ssh.NewServerConn(conn, h.serverConfig())
	timer.Stop()
	if err != nil {
		return
	}
	h.logins.Add(1)
	defer server.Close()
	go answerRequests(requests)
	sessions := make(chan struct{}, max(h.options.MaxSessions, 0))
	if h.options.MaxSessions <= 0 {
		sessions = make(chan struct{}, 10)
	}
	var open sync.WaitGroup
	defer open.Wait()
	for ch := range channels {
		switch ch.ChannelType() {
		case "session":
			select {
			case sessions <- struct{}{}:
				open.Add(1)
				go func() {
					defer open.Done()
					defer func() { <-sessions }()
					h.session(ch, conn)
				}()
			default:
				ch.Reject(ssh.ConnectionFailed, "open failed")
			}
		case "direct-tcpip":
			open.Add(1)
			go func() {
				defer open.Done()
				h.forward(ch)
			}()
		default:
			ch.Reject(ssh.UnknownChannelType, "unknown channel type")
		}
	}
}

// answerRequests accepts keepalive requests and rejects all other requests.
func answerRequests(requests <-chan *ssh.Request) {
	for r := range requests {
		if r.WantReply {
			r.Reply(r.Type == "keepalive@openssh.com", nil)
		}
	}
}

var errDenied = errors.New("permission denied")

func (h *Host) serverConfig() *ssh.ServerConfig {
	o := h.options
	authorities := ssh.CertChecker{
		IsUserAuthority: func(key ssh.PublicKey) bool { return containsKey(o.UserAuthorities, key) },
		UserKeyFallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if containsKey(o.AuthorizedKeys, key) {
				return nil, nil
			}
			return nil, errDenied
		},
	}
	c := &ssh.ServerConfig{
		MaxAuthTries:  o.MaxAuthTries,
		ServerVersion: "SSH-2.0-sshtest",
		PublicKeyCallback: func(m ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
			if m.User() != o.User {
				return nil, errDenied
			}
			return authorities.Authenticate(m, key)
		},
	}
	if o.Banner != "" {
		c.BannerCallback = func(ssh.ConnMetadata) string { return o.Banner }
	}
	check := func(m ssh.ConnMetadata, password string) (*ssh.Permissions, error) {
		if m.User() == o.User && subtle.ConstantTimeCompare([]byte(password), []byte(o.Password)) == 1 {
			return nil, nil
		}
		return nil, errDenied
	}
	switch {
	case o.Password == "":
	case o.KeyboardInteractive:
		c.KeyboardInteractiveCallback = func(m ssh.ConnMetadata, ask ssh.KeyboardInteractiveChallenge) (*ssh.Permissions, error) {
			answers, err := ask("", "", []string{"Password: "}, []bool{false})
			if err != nil || len(answers) != 1 {
				return nil, errDenied
			}
			return check(m, answers[0])
		}
	default:
		c.PasswordCallback = func(m ssh.ConnMetadata, password []byte) (*ssh.Permissions, error) {
			return check(m, string(password))
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, key := range h.hostKeys {
		c.AddHostKey(key)
	}
	return c
}

func containsKey(keys []ssh.PublicKey, key ssh.PublicKey) bool {
	for _, k := range keys {
		if string(k.Marshal()) == string(key.Marshal()) {
			return true
		}
	}
	return false
}
