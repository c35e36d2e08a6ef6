// Package operations defines the operations of rbee, the events that an operation
// sends while it runs, and the report or error that it returns.
//
// # Running an operation
//
// A [Runner] runs an [Operation], sends [Event] values while the operation runs, and
// returns a [Report] or an error. The queen's router inside the rbee program is a
// Runner, and so is a client of a queen or a hive (package operations/client). A
// program that uses a Runner does not depend on where the operation runs.
//
//	report, err := runner.Run(ctx, operations.PackageSync{DryRun: true}, nil)
//
// Over HTTP, an operation runs as a job, which continues even if no client watches it.
// See [github.com/rbee-keeper/rbee/operations/client].
//
// # Routing
//
// The queen runs the Package operations, the Hive operations and [Infer]. The hive runs
// operations on worker processes and models. [ShouldForwardToHive] implements this rule.
//
// # Wire form
//
// An operation is one JSON object. The value of the key "operation" is its [Kind]; the
// other keys are its fields. Optional fields may be absent or null:
//
//	{"operation":"package_sync","hive_alias":"gpu-1","dry_run":true}
//
// Every operation type implements [json.Marshaler] with this form, and [Parse] parses
// it. Parse is strict: it rejects unknown operations, unknown fields and
// duplicate fields. For an operation that was removed from rbee, the error names
// the replacement.
package operations
