package sshtest

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"

	"golang.org/x/crypto/ssh"
)

// session serves one session channel: one command.
func (h *Host) session(newChannel ssh.NewChannel, conn net.Conn) {
	ch, requests, err := newChannel.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	env := h.environment(conn)
	for r := range requests {
		switch r.Type {
		case "env": // as with sshd's default: nothing is accepted
			r.Reply(false, nil)
		case "exec":
			var msg struct{ Command string }
			if err := ssh.Unmarshal(r.Payload, &msg); err != nil {
				r.Reply(false, nil)
				continue
			}
			h.execs.Add(1)
			h.exec(ch, requests, r, msg.Command, env)
			return
		default:
			r.Reply(false, nil)
		}
	}
}

// defaultPath is sshd's, with what macOS adds.
const defaultPath = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/opt/homebrew/bin"

func (h *Host) environment(conn net.Conn) []string {
	clientHost, clientPort, _ := net.SplitHostPort(conn.RemoteAddr().String())
	ownHost, ownPort, _ := net.SplitHostPort(h.address)
	env := []string{
		"HOME=" + h.home, "USER=" + h.options.User, "LOGNAME=" + h.options.User, "SHELL=" + h.options.Shell,
		"PATH=" + defaultPath, fmt.Sprintf("SSH_CONNECTION=%s %s %s %s", clientHost, clientPort, ownHost, ownPort),
	}
	return append(env, h.options.Env...)
}

// exec runs the command with real pipes, so that a program which waits for the end of its input, or writes to a reader
// that is gone, sees what it would see under sshd.
func (h *Host) exec(ch ssh.Channel, requests <-chan *ssh.Request, start *ssh.Request, command string, env []string) {
	io.WriteString(ch, h.options.Noise)
	if h.options.NoExec != "" {
		start.Reply(true, nil)
		go ssh.DiscardRequests(requests)
		io.WriteString(ch, h.options.NoExec)
		sendExit(ch, 0)
		return
	}
	cmd := exec.Command(h.options.Shell, "-c", command)
	cmd.Dir, cmd.Env = h.home, env
	ownSession(cmd)
	pipes, err := startPiped(cmd)
	start.Reply(err == nil, nil)
	if err != nil {
		return
	}
	group := cmd.Process.Pid
	h.trackGroup(group, true)
	defer func() { h.trackGroup(group, groupLives(group)) }()

	var output sync.WaitGroup
	output.Go(func() { copyOut(ch, pipes.out) })
	output.Go(func() { copyOut(ch.Stderr(), pipes.err) })
	go func() {
		io.Copy(pipes.in, ch)
		pipes.in.Close()
	}()
	ended := make(chan struct{})
	gone := make(chan struct{})
	go func() { // the requests end when the client closes the channel or the connection
		defer close(gone)
		for r := range requests {
			if r.Type == "signal" {
				signalGroup(group, r.Payload)
			}
			if r.WantReply {
				r.Reply(false, nil)
			}
		}
		pipes.in.Close()
		pipes.out.Close()
		pipes.err.Close()
		select {
		case <-ended:
		default:
			hangUpGroup(group)
		}
	}()
	cmd.Wait()
	close(ended)
	reportExit(ch, cmd.ProcessState)
	output.Wait() // like sshd, wait until nobody holds the pipes any more
	ch.CloseWrite()
	ch.Close()
	<-gone
}

func copyOut(to io.Writer, from *os.File) {
	io.Copy(to, from)
	from.Close()
}

// piped are this side's ends of a command's pipes.
type piped struct{ in, out, err *os.File }

func startPiped(cmd *exec.Cmd) (p piped, err error) {
	var theirs, ours [3]*os.File
	defer func() {
		for i := range theirs {
			if theirs[i] != nil {
				theirs[i].Close()
			}
			if err != nil && ours[i] != nil {
				ours[i].Close()
			}
		}
	}()
	for i := range theirs {
		r, w, err := os.Pipe()
		if err != nil {
			return piped{}, err
		}
		if theirs[i], ours[i] = w, r; i == 0 {
			theirs[i], ours[i] = r, w
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	if err := cmd.Start(); err != nil {
		return piped{}, err
	}
	return piped{ours[0], ours[1], ours[2]}, nil
}

// reportExit sends the exit status or the signal, as RFC 4254 section 6.10 says.
func reportExit(ch ssh.Channel, state *os.ProcessState) {
	if name := signalName(state); name != "" {
		ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
			Name  string
			Core  bool
			Error string
			Lang  string
		}{Name: name}))
		return
	}
	sendExit(ch, uint32(state.ExitCode()))
}

func sendExit(ch ssh.Channel, status uint32) {
	ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
}

// trackGroup remembers a process group while it has members.
func (h *Host) trackGroup(group int, lives bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if lives {
		h.groups[group] = true
	} else {
		delete(h.groups, group)
	}
}

// forward serves one direct-tcpip channel.
func (h *Host) forward(newChannel ssh.NewChannel) {
	var msg struct {
		Host       string
		Port       uint32
		OriginHost string
		OriginPort uint32
	}
	if err := ssh.Unmarshal(newChannel.ExtraData(), &msg); err != nil || h.options.NoForward {
		newChannel.Reject(ssh.Prohibited, "administratively prohibited: open failed")
		return
	}
	target, err := net.Dial("tcp", net.JoinHostPort(msg.Host, strconv.Itoa(int(msg.Port))))
	if err != nil {
		newChannel.Reject(ssh.ConnectionFailed, reason(err))
		return
	}
	defer target.Close()
	ch, requests, err := newChannel.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	h.forwards.Add(1)
	gone := make(chan struct{})
	go func() { // the client has closed the channel or the connection
		defer close(gone)
		ssh.DiscardRequests(requests)
	}()
	var both sync.WaitGroup
	both.Go(func() {
		io.Copy(target, ch)
		target.(*net.TCPConn).CloseWrite()
	})
	both.Go(func() {
		io.Copy(ch, target)
		ch.CloseWrite()
	})
	finished := make(chan struct{})
	go func() { both.Wait(); close(finished) }()
	select {
	case <-finished:
	case <-gone:
		target.Close()
		<-finished
	}
}

// reason is the system's word for why connecting failed, as sshd would send it.
func reason(err error) string {
	var op *net.OpError
	if errors.As(err, &op) {
		err = op.Err
	}
	var sys *os.SyscallError
	if errors.As(err, &sys) {
		err = sys.Err
	}
	return err.Error()
}
