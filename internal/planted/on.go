// SPDX-License-Identifier: Apache-2.0

//go:build exam

package planted

import (
	"os"
	"strconv"
)

// Variable is the environment variable that holds the number of the planted bug.
const Variable = "CICADA_PLANTED"

// Is reports whether b is planted.
func Is(b Bug) bool { return os.Getenv(Variable) == strconv.Itoa(int(b)) }
