// Package sshtest makes throw-away SSH hosts on the loopback interface, for tests and demonstrations.
//
// [New] starts a [Host] inside this process: the real SSH protocol, a real shell with its own home directory, and
// faults on demand (cut lines, silence, latency, changed host keys). [OpenSSH] puts the machine's own sshd in its place,
// where it is installed, so that the same test can run against the real thing.
//
// Commands run as the current user on this machine: a host is a fresh home directory, not a sandbox.
package sshtest
