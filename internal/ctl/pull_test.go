// SPDX-License-Identifier: Apache-2.0

package ctl

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// A client that hides a refused ack leaves its user with duplicates that nobody can explain: what
// was pulled is printed, and each refusal is named, counted, and told by the exit status. So is an
// ack that got no answer.
func TestPullAckRefused(t *testing.T) {
	pulled := `{"messages":[{"id":"o-1","receipt":"R1","attempt":1,"body":"a"},` +
		`{"id":"o-2","receipt":"R2","attempt":1,"body":"b"},` +
		`{"id":"o-3","receipt":"R3","attempt":1,"body":"c"}]}`
	for _, c := range []struct {
		acked  string
		status int
		says   []string
	}{
		{`{"results":[{"receipt":"R1","result":"ACKED"},{"receipt":"R2","result":"ACKED"},` +
			`{"receipt":"R3","result":"ACKED"}]}`, exitOK, nil},
		{`{"results":[{"receipt":"R1","result":"ACKED"},{"receipt":"R2","result":"SUPERSEDED"},` +
			`{"receipt":"R3","result":"ACKED"}]}`, exitConflict,
			[]string{"R2: SUPERSEDED", "1 of 3 not acked"}},
		{`{"results":[{"receipt":"R1","result":"NOT_FOUND"},{"receipt":"R2","result":"ACKED"},` +
			`{"receipt":"R3","result":"NOT_FOUND"}]}`, exitNotFound,
			[]string{"R1: NOT_FOUND", "R3: NOT_FOUND", "2 of 3 not acked"}},
		{`{"results":[{"receipt":"R1","result":"NOT_FOUND"},{"receipt":"R2","result":"SUPERSEDED"},` +
			`{"receipt":"R3","result":"UNKNOWN"}]}`, exitConflict, []string{"3 of 3 not acked"}},
		{`{"results":[{"receipt":"R1","result":"ACKED"}]}`, exitError, []string{"1 answers to 3"}},
		{`503 {"code":"unavailable","message":"shutting down"}`, exitError,
			[]string{"shutting down"}},
	} {
		w := newWorld(t, canned{
			`POST /v1/queues/q/pull {"max":100,"wait":"0s","lease":"30s"}`: pulled,
			`POST /v1/queues/q/ack {"receipts":["R1","R2","R3"]}`:          c.acked,
		})
		require.Equal(t, c.status, w.do("", "pull q --ack -o jsonl"), c.acked)
		for _, id := range []string{"o-1", "o-2", "o-3"} {
			require.Contains(t, w.out.String(), id)
		}
		for _, text := range c.says {
			require.Contains(t, w.out.String(), text)
		}
		if c.says == nil {
			require.NotContains(t, w.out.String(), "not acked")
		}
	}
}
