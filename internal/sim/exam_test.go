// SPDX-License-Identifier: Apache-2.0

//go:build exam

package sim

import (
	"flag"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// examSeeds is within how many seeds every planted bug must be found.
const examSeeds = 2000

var bugFlag = flag.Int("sim.bug", 0, "plant this mistake alone")

// profileOf is the part of the product in which the bug is: others find it too, but later.
func profileOf(bug planted.Bug) swarm.Profile {
	switch {
	case bug == planted.PredicateForgotten || bug == planted.PredicateCountedTwice:
		return swarm.Purges
	case bug >= planted.DeleteAtOnce && bug < planted.NoPause || bug == planted.ParkedMissed:
		return swarm.GC
	case bug >= planted.NoPause && bug <= planted.TakenUnread:
		return swarm.Owners
	default:
		return swarm.Everything
	}
}

// A simulation that finds nothing may be blind: each of these mistakes must be found.
func TestExam(t *testing.T) {
	for bug := planted.None + 1; bug < planted.Bugs; bug++ {
		if *bugFlag > 0 && planted.Bug(*bugFlag) != bug {
			continue
		}
		t.Run(strings.ReplaceAll(bug.String(), " ", "-"), func(t *testing.T) {
			t.Setenv(planted.Variable, strconv.Itoa(int(bug)))
			for seed := uint64(1); seed <= examSeeds; seed++ {
				if why := found(t, seed, profileOf(bug)); why != "" {
					t.Logf("%-44s found by seed %d: %.150s", bug, seed, why)
					return
				}
			}
			require.Fail(t, "not found", "%v in %d seeds", bug, examSeeds)
		})
	}
}

// found plays a seed and says what broke; a panic of the product is a finding too.
func found(t *testing.T, seed uint64, p swarm.Profile) (why string) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil {
			why = fmt.Sprint("panic: ", r)
		}
	}()
	_, err := Run(t.Context(), swarm.DrawProfile(seed, p))
	if err == nil {
		return ""
	}
	why, _, _ = strings.Cut(err.Error(), "\n")
	return why
}
