// Package workers keeps the worker processes of one machine: it starts engines,
// watches them until they serve, starts them again when they fail, and ends them
// so that nothing of them is left.
//
// # One worker, one keeper
//
// Every worker has a record on disk and a goroutine, its keeper. The keeper does
// what the worker's state asks for and then enters the next state; the table of
// states is [follows], and each state's work is one function:
//
//	starting  place the worker on devices, find a port, make the process   start.go
//	loading   probe until it serves, as long as it shows signs of life      load.go
//	ready     watch it, keep its log small                                  lifecycle.go
//	draining  finish requests, end the whole group, wait for its memory     stop.go
//	failed    wait until it may be tried again                              lifecycle.go
//
// No load begins in memory that an earlier one still has: whoever ends processes
// waits for their memory, memory.go, and whoever is placed waits for them.
//
// The record is written before each state's work begins. A hive that is killed
// at any point leaves records from which the next one goes on: [Manager.Start]
// adopts processes that still run and cleans up after those that do not.
//
// # Whose process is it
//
// A worker's process leads a session and a process group of its own, and has the
// variable RBEE_WORKER with a random value in its environment. Its processes are
// the group's, their descendants, those that carry the variable, and those that
// were seen among them before (package proc names processes for good), which are
// on record: an engine may write over its environment, and a child whose leader
// has died is another's. Nothing else is ever signaled.
//
// # Workers outlive the hive
//
// Engines write to files, not to pipes of the hive, and [Manager.Close] leaves
// them alone. Where systemd runs the hive, each worker gets a scope of its own.
package workers
