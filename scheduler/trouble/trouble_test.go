// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/cicadamq/cicada/delay"
)

// A store that refuses every flush for days, or a range that cannot be read, must be one line in the
// log and another at its end: a line for each attempt hides all others. Each new trouble is told.
func TestTroubleIsToldOnce(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	work := Loop{Log: zap.New(core), What: "flush"}
	for range 2 {
		for range 1000 {
			work.Note(errors.New("status 403, ExpiredToken"))
			work.Note(fmt.Errorf("%w: no answer", delay.ErrUnavailable)) // the tier tells this
		}
		work.Note(nil)
		work.Note(nil)
	}
	var lines []string
	for _, e := range logs.All() {
		lines = append(lines, e.Level.String()+" "+e.Message)
	}
	once := []string{
		"error background work fails, will be repeated", "info background work succeeds again",
	}
	require.Equal(t, append(once, once...), lines)
	require.Contains(t, logs.All()[0].ContextMap()["error"], "ExpiredToken")
}
