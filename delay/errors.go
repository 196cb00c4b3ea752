// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"errors"
	"fmt"
)

// The kinds of errors. A caller acts differently on each; everything else is detail in the text.
// internal/server maps each to one Connect code and HTTP status.
var (
	// Of a request.
	ErrInvalid       = errors.New("invalid argument")
	ErrNotFound      = errors.New("not found")
	ErrExists        = errors.New("already exists")
	ErrTooLate       = errors.New("too late")
	ErrPrecondition  = errors.New("failed precondition") // something else must happen first
	ErrUnimplemented = errors.New("unimplemented")
	// Of the moment: the same request may succeed later.
	ErrUnavailable = errors.New("unavailable")
	ErrOverloaded  = errors.New("overloaded")
	ErrCrowded     = errors.New("crowded") // more are due then than their target's limit lets through
	ErrDiskFull    = errors.New("disk full")
	// Of the process: nothing more will succeed here.
	ErrClosed  = errors.New("closed")
	ErrFenced  = errors.New("fenced by another owner")
	ErrCorrupt = errors.New("corrupt")
)

// FieldError is an ErrInvalid that names the field of the request.
type FieldError struct {
	Field  string // as in the API: "deliver_at"
	Reason string
}

// Error is the field and the reason.
func (e *FieldError) Error() string { return e.Field + ": " + e.Reason }

// Unwrap makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Unwrap() error { return ErrInvalid }

// Invalid is a FieldError with a formatted reason.
func Invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// CrowdedError is an ErrCrowded that knows a later second with room.
type CrowdedError struct {
	Target    Target
	Due       Due // as asked for
	Suggested Due // 0: none was found
}

// Error names the target, the due and what is suggested.
func (e *CrowdedError) Error() string {
	text := fmt.Sprintf("%v: %s has no room at %v", ErrCrowded, e.Target, e.Due)
	if e.Suggested > 0 {
		text += fmt.Sprintf("; there is some at %v", e.Suggested)
	}
	return text
}

// Unwrap makes errors.Is(err, ErrCrowded) true.
func (e *CrowdedError) Unwrap() error { return ErrCrowded }
