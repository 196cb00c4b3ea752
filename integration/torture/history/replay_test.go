// SPDX-License-Identifier: Apache-2.0

package history

import (
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// CICADA_HISTORY=/tmp/cicada-torture-…/7/logs judges the logs of a round again, for whoever looks
// for what went wrong in it.
func TestReplay(t *testing.T) {
	dir := os.Getenv("CICADA_HISTORY")
	if dir == "" {
		t.Skip("CICADA_HISTORY names no logs")
	}
	events, err := Read(dir)
	require.NoError(t, err)
	r := Check(events, Options{Hold: 3 * time.Second, InFlight: 250, Timeout: 2 * time.Second})
	t.Log(r.Counts, r.LateMS)
	for _, v := range r.Violations {
		t.Error(v)
	}
}
