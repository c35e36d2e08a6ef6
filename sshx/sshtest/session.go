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

// session serves one session channel, which runs one command.
func (h *Host) session(newChannel ssh.NewChannel, conn net.Conn) {
	ch, requests, err := newChannel.Accept()
	if err != nil {
		return
	}
	defer ch.Close()
	env := h.environment(conn)
	for r := range requests {
		switch r.Type {
		case "env": // sshd accepts no variables by default either
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

// defaultPath is the default PATH of sshd, with the directories of macOS.
const defaultPath = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/opt/homebrew/bin"

func (h *Host) environment(conn net.Conn) []string {
	clientHost, clientPort, _ := net.SplitHostPort(conn.RemoteAddr().String())
	host, port, _ := net.SplitHostPort(h.address)
	env := []string{
		"HOME=" + h.home, "USER=" + h.options.User, "LOGNAME=" + h.options.User, "SHELL=" + h.options.Shell,
		"PATH=" + defaultPath, fmt.Sprintf("SSH_CONNECTION=%s %s %s %s", clientHost, clientPort, host, port),
	}
	return append(env, h.options.Env...)
}

// exec runs a command. It uses pipes, so that EOF on standard input and writes to a closed connection have the same effect as
// under sshd.
func (h *Host) exec(ch ssh.Channel, requests <-chan *ssh.Request, start *ssh.Request, command string, env []string) {
	io.WriteString(ch, h.options.StartupOutput)
	if h.options.NoExec != "" {
		start.Reply(true, nil)
		go ssh.DiscardRequests(requests)
		io.WriteString(ch, h.options.NoExec)
		sendExit(ch, 0)
		return
	}
	cmd := exec.Command(h.options.Shell, "-c", command)
	cmd.Dir, cmd.Env = h.home, env
	startSession(cmd)
	pipes, err := startPiped(cmd)
	start.Reply(err == nil, nil)
	if err != nil {
		return
	}
	group := cmd.Process.Pid
	h.trackGroup(group, true)
	defer func() { h.trackGroup(group, groupExists(group)) }()

	var output sync.WaitGroup
	output.Go(func() { copyOutput(ch, pipes.out) })
	output.Go(func() { copyOutput(ch.Stderr(), pipes.err) })
	go func() {
		io.Copy(pipes.in, ch)
		pipes.in.Close()
	}()
	exited := make(chan struct{})
	disconnected := make(chan struct{})
	go func() { // requests is closed when the client closes the channel or the connection
		defer close(disconnected)
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
		case <-exited:
		default:
			hangUpGroup(group)
		}
	}()
	cmd.Wait()
	close(exited)
	reportExit(ch, cmd.ProcessState)
	output.Wait() // like sshd, wait until all processes have closed the pipes
	ch.CloseWrite()
	ch.Close()
	<-disconnected
}

func copyOutput(to io.Writer, from *os.File) {
	io.Copy(to, from)
	from.Close()
}

// stdPipes holds the pipe ends of this process for the standard streams of a command.
type stdPipes struct{ in, out, err *os.File }

// startPiped starts the command with pipes as standard streams.
func startPiped(cmd *exec.Cmd) (p stdPipes, err error) {
	var child, parent [3]*os.File
	defer func() {
		for i := range child {
			if child[i] != nil {
				child[i].Close()
			}
			if err != nil && parent[i] != nil {
				parent[i].Close()
			}
		}
	}()
	for i := range child {
		r, w, err := os.Pipe()
		if err != nil {
			return stdPipes{}, err
		}
		if child[i], parent[i] = w, r; i == 0 {
			child[i], parent[i] = r, w
		}
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = child[0], child[1], child[2]
	if err := cmd.Start(); err != nil {
		return stdPipes{}, err
	}
	return stdPipes{parent[0], parent[1], parent[2]}, nil
}

// reportExit sends the exit status or the signal; see RFC 4254, section 6.10.
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

// trackGroup adds or removes a process group that Close kills.
func (h *Host) trackGroup(group int, exists bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if exists {
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
	disconnected := make(chan struct{})
	go func() { // requests is closed when the client closes the channel or the connection
		defer close(disconnected)
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
	case <-disconnected:
		target.Close()
		<-finished
	}
}

// reason returns the text of the system error, which is what sshd sends.
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
