// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"os"

	"golang.org/x/term"
)

// IsTerminal reports whether a person reads f.
func IsTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
