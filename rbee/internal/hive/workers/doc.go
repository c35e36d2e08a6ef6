// Package workers manages the worker processes of one machine. It starts engines,
// watches them, restarts them when they fail, and stops them with all their
// processes.
//
// # States
//
// Every worker has a record on disk and a goroutine, its supervisor. The supervisor
// runs the function of the current state, which enters the next state. [transitions]
// is the state table. The functions are:
//
//	starting  start         select devices and a port, start the process         start.go
//	loading   awaitReady    probe until the worker is ready or stalls            ready.go
//	ready     monitor       watch the process, rotate its log                    lifecycle.go
//	draining  shutDown      finish requests, stop the processes, await memory    stop.go
//	failed    awaitRestart  wait for the next restart                            lifecycle.go
//
// No worker loads into memory that an earlier worker has not released yet: stopping
// includes the wait for the memory (memory.go), and placement waits for workers that
// are stopping.
//
// The record is written before the work of a state starts. If the hive daemon is
// killed, the next one continues from the records: [Manager.Start] adopts processes
// that still run and cleans up after the others.
//
// # Processes of a worker
//
// The process of a worker leads its own session and process group and has a random
// value in the environment variable RBEE_WORKER. The processes of a worker are the
// members of its group, their descendants, the processes with this variable, and the
// members in the record, identified as in package proc. The record is necessary
// because an engine may overwrite its environment, and a child gets another parent
// when its leader exits. Other processes are never signaled.
//
// # Lifetime
//
// Workers continue to run when the hive daemon exits: engines write to files, not to
// pipes, and [Manager.Close] does not stop them. If systemd runs the daemon, each worker
// has a separate scope.
package workers
