// Package operations is the vocabulary of rbee: every operation, the events it
// sends while it runs, and the report or error it ends with.
//
// # The model
//
// One [Operation] goes in; a stream of [Event] values comes out, and one
// [Report] or one error. Whatever can do that is a [Runner]: the queen's router
// inside the rbee program, or a client (package operations/client) of a queen or a hive far away. A program
// that speaks to a Runner does not know which of them it has.
//
//	report, err := runner.Run(ctx, operations.PackageSync{DryRun: true}, nil)
//
// Over HTTP an operation becomes a job, which runs whether it is watched or not;
// [github.com/rbee-keeper/rbee/operations/client] says how.
//
// # Who does what
//
// Package operations (the Package types) bring machines to what hives.conf says
// and are done by the queen, as are the Hive operations and [Infer]. Operations
// on worker processes and models are done on the machine itself;
// [ShouldForwardToHive] is that rule.
//
// # Wire form
//
// An operation is one JSON object. The key "operation" holds its [Kind], the
// other keys are its fields, and optional fields may be absent or null:
//
//	{"operation":"package_sync","hive_alias":"gpu-1","dry_run":true}
//
// Every operation type writes that form through encoding/json, and [Parse]
// reads it. Parse is strict: an unknown operation, an unknown field, a field
// given twice and an operation that rbee no longer has are refused by name, the
// last with the operation that replaces it.
//
// The package imports the standard library only.
package operations
