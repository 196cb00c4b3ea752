// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/ctl/client"
)

// The exit statuses.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitAuth        = 4
	exitConflict    = 5 // TOO_LATE, already exists, CROWDED, held by its broker
	exitInterrupted = 130
)

// usageError is a command line that cannot be meant.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// statusError carries an exit status whose message has been printed already.
type statusError struct{ status int }

func (e *statusError) Error() string { return fmt.Sprintf("exit status %d", e.status) }

// exitStatus is the status for err.
func exitStatus(err error) int {
	var usage *usageError
	var done *statusError
	var answer *client.Error
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	case errors.As(err, &done):
		return done.status
	case errors.As(err, &usage), errors.Is(err, delay.ErrInvalid),
		strings.HasPrefix(err.Error(), "unknown command"):
		return exitUsage
	case errors.As(err, &answer):
		return answerStatus(answer)
	case errors.Is(err, delay.ErrNotFound):
		return exitNotFound
	default:
		return exitError
	}
}

func answerStatus(e *client.Error) int {
	if e.Result == "CROWDED" {
		return exitConflict // with other messages; the daemon is not overloaded
	}
	switch e.Status {
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitAuth
	case http.StatusConflict:
		return exitConflict
	default:
		return exitError
	}
}

// worse keeps the status that matters more when a command works on several messages: an error
// over a conflict over not found.
func worse(a, b int) int {
	rank := func(s int) int {
		switch s {
		case exitOK:
			return 0
		case exitNotFound:
			return 1
		case exitConflict:
			return 2
		default:
			return 3
		}
	}
	if rank(b) > rank(a) {
		return b
	}
	return a
}
