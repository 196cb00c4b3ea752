// SPDX-License-Identifier: Apache-2.0

//go:build exam

package planted

import (
	"os"
	"strconv"
)

// Variable is the environment variable that holds the number of the planted bug.
const Variable = "CICADA_PLANTED"

// Is reports whether b is planted. It does not allocate: tests of what must not may be guards.
func Is(b Bug) bool {
	var buf [20]byte
	return string(strconv.AppendInt(buf[:0], int64(b), 10)) == os.Getenv(Variable)
}
