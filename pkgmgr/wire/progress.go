package wire

// Progress reports the progress of the step with this index in its current phase. During a
// phase, the machine sends progress messages at most five times per second and at least once
// every two seconds, except while it receives an artifact.
type Progress struct {
	Index int `json:"index"`

	// Phase is the current phase.
	Phase Phase `json:"phase"`

	// Total is the number of bytes to process in phases that process bytes; 0 if
	// unknown. Bytes is the number of bytes processed so far.
	Bytes int64 `json:"bytes"`
	Total int64 `json:"total,omitempty"`

	// CountTotal is the number of items to process in the other phases; 0 if unknown.
	// Count is the number of items processed so far. Unit is the kind of the items.
	Count      int64 `json:"count,omitempty"`
	CountTotal int64 `json:"count_total,omitempty"`
	Unit       Unit  `json:"unit,omitempty"`
}

// Phase is a part of a step that installs or removes files.
type Phase string

// The phases of a step, with the unit of their progress in parentheses. A step skips phases
// that it does not need and may repeat a phase.
const (
	PhaseDownload    Phase = "download"    // download artifacts (bytes)
	PhaseUnpack      Phase = "unpack"      // unpack an archive (bytes) or wheels (packages)
	PhaseEnvironment Phase = "environment" // create the Python environment (packages)
	PhaseCompile     Phase = "compile"     // compile Python files to bytecode (files)
	PhaseCheck       Phase = "check"       // compute checksums (files)
	PhaseSync        Phase = "sync"        // flush files to disk (none)
	PhaseVerify      Phase = "verify"      // run the verify command of the recipe (none)
	PhaseRemove      Phase = "remove"      // remove files (files)
)

// Unit is the kind of the items that a [Progress] counts.
type Unit string

// The units of Count and CountTotal.
const (
	UnitFiles    Unit = "files"
	UnitPackages Unit = "packages"
)
