package wire

import "github.com/rbee-keeper/rbee/operations"

// Cause classifies an error whose message is sent as text.
type Cause struct {
	Reason  operations.Reason  `json:"reason"`
	Subject operations.Subject `json:"subject,omitzero"`
}

// CauseOf returns the cause of err, or nil if err is nil.
func CauseOf(err error) *Cause {
	if err == nil {
		return nil
	}
	return &Cause{Reason: operations.ReasonOf(err), Subject: operations.SubjectOf(err)}
}

// Fail records text and the cause of err as the error of the step with this index.
func (r *Result) Fail(index int, text string, err error) {
	r.Errors[index] = text
	if r.Causes == nil {
		r.Causes = map[int]Cause{}
	}
	r.Causes[index] = *CauseOf(err)
}

// CauseOf returns the cause of the error of the step with this index, or nil if the machine
// did not send one.
func (r *Result) CauseOf(index int) *Cause {
	if c, ok := r.Causes[index]; ok {
		return &c
	}
	return nil
}

// Error returns an error with the message text and the cause c. If c is nil, as with an
// older rbee on the machine, the reason is [operations.ReasonFailed].
func (c *Cause) Error(text string) error {
	e := &operations.Error{Code: operations.CodeFailed, Reason: operations.ReasonFailed, Message: text}
	if c != nil && c.Reason != "" {
		e.Reason, e.Subject = c.Reason, c.Subject
	}
	return e
}
