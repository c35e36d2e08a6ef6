package wire

// Progress reports how far the step with this index is within its current phase. A
// machine sends it at most five times a second, and at least every other second while
// a phase lasts.
type Progress struct {
	Index int `json:"index"`

	// Phase is the current phase.
	Phase Phase `json:"phase"`

	// Bytes of Total bytes are done in the phases that move bytes; a Total of 0 is
	// not known.
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total,omitempty"`

	// Count of CountTotal items are done in the other phases; a CountTotal of 0 is
	// not known. Unit names the items.
	Count      int64 `json:"count,omitempty"`
	CountTotal int64 `json:"count_total,omitempty"`
	Unit       Unit  `json:"unit,omitempty"`
}

// Phase is a part of an install or removal step.
type Phase string

// The phases of a step. A step skips the phases that it does not need, and may enter
// a phase more than once.
const (
	PhaseDownload    Phase = "download"    // the machine downloads artifacts; bytes
	PhaseUnpack      Phase = "unpack"      // unpacks an archive (bytes) or wheels (packages)
	PhaseEnvironment Phase = "environment" // creates the Python environment; packages
	PhaseCompile     Phase = "compile"     // compiles Python files to bytecode; files
	PhaseCheck       Phase = "check"       // computes checksums of files; files
	PhaseSync        Phase = "sync"        // flushes files to disk; no count
	PhaseVerify      Phase = "verify"      // runs the recipe's check; no count
	PhaseRemove      Phase = "remove"      // removes files; files
)

// Unit is what [Progress] counts.
type Unit string

// The units besides bytes.
const (
	UnitFiles    Unit = "files"
	UnitPackages Unit = "packages"
)
