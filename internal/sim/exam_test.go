// SPDX-License-Identifier: Apache-2.0

//go:build exam

package sim

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/internal/planted"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

var examFlag = flag.Uint64("sim.exam", 2000, "within how many seeds the mistake must be found")

// A simulation that finds nothing may be blind: a history must break a promise when the mistake of
// the environment is planted, and keep them all without it. See internal/exam, which runs this once
// for each mistake.
func TestExam(t *testing.T) {
	if os.Getenv(planted.Variable) == "" {
		t.Skip("no mistake is planted: set " + planted.Variable)
	}
	profile := swarm.Profile(*profileFlag)
	for seed := uint64(*fromFlag); seed < uint64(*fromFlag)+*examFlag; seed++ {
		why := found(t, seed, profile)
		if why == "" {
			continue
		}
		t.Setenv(planted.Variable, "0")
		require.Empty(t, found(t, seed, profile), "seed %d: without the mistake", seed)
		t.Logf("found by seed %d: %.300s", seed, why)
		return
	}
	require.Fail(t, "not found", "in %d seeds", *examFlag)
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
