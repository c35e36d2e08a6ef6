package ui

import (
	"slices"

	"github.com/rbee-keeper/rbee/operations"
)

// MultiHive is the report of a command that runs a separate operation on each of
// several hives.
type MultiHive struct {
	Hives []HiveResult `json:"hives"` // sorted by alias
}

// HiveResult is the report of one hive, or its error.
type HiveResult struct {
	Alias  string            `json:"alias"`
	Report operations.Report `json:"report,omitempty"`
	Error  *operations.Error `json:"error,omitempty"`
}

// Outcome implements [operations.Report]. It returns the worst outcome of all hives.
func (s *MultiHive) Outcome() operations.Outcome {
	var seen []operations.Outcome
	for _, h := range s.Hives {
		switch {
		case h.Error != nil:
			seen = append(seen, errorOutcome(h.Error.Code))
		case h.Report != nil:
			seen = append(seen, h.Report.Outcome())
		}
	}
	for _, o := range []operations.Outcome{
		operations.OutcomeFailed, operations.OutcomeInvalid, operations.OutcomeLocked,
		operations.OutcomeDrift, operations.OutcomeUnreachable,
	} {
		if slices.Contains(seen, o) {
			return o
		}
	}
	return operations.OutcomeOK
}

func errorOutcome(code operations.Code) operations.Outcome {
	switch code {
	case operations.CodeUnreachable:
		return operations.OutcomeUnreachable
	case operations.CodeLocked:
		return operations.OutcomeLocked
	case operations.CodeConfigInvalid:
		return operations.OutcomeInvalid
	default:
		return operations.OutcomeFailed
	}
}

// multiHive writes the reports, then the errors.
func (p *page) multiHive(s *MultiHive) error {
	tables := false // a table was written; an empty line separates tables
	for _, h := range s.Hives {
		if h.Report == nil {
			continue
		}
		if _, table := h.Report.(*operations.HiveCapabilitiesReport); table {
			if tables {
				p.linef("")
			}
			tables = true
		}
		if err := p.report(h.Report); err != nil {
			return err
		}
	}
	for _, h := range s.Hives {
		if h.Report != nil && h.Error == nil {
			continue
		}
		if tables {
			p.linef("")
			tables = false
		}
		p.failure(h.Alias, h.Error)
	}
	return nil
}
