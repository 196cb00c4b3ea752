// SPDX-License-Identifier: Apache-2.0

//go:build exam

package sim

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/scheduler/planted"
)

// examSeeds is within how many seeds every planted bug must be found.
const examSeeds = 500

// A simulation that finds nothing may be blind: each of these mistakes must be found.
func TestExam(t *testing.T) {
	for bug := planted.None + 1; bug < planted.Bugs; bug++ {
		t.Run(strings.ReplaceAll(bug.String(), " ", "-"), func(t *testing.T) {
			t.Setenv(planted.Variable, strconv.Itoa(int(bug)))
			for seed := uint64(1); seed <= examSeeds; seed++ {
				if why := found(t, seed); why != "" {
					t.Logf("%-44s found by seed %d: %.150s", bug, seed, why)
					return
				}
			}
			require.Fail(t, "not found", "%v in %d seeds", bug, examSeeds)
		})
	}
}

// found plays a seed and says what broke; a panic of the product is a finding too.
func found(t *testing.T, seed uint64) (why string) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			why = fmt.Sprint("panic: ", r)
		}
	}()
	_, err := Run(t.Context(), Draw(seed))
	if err == nil {
		return ""
	}
	why, _, _ = strings.Cut(err.Error(), "\n")
	return why
}
