// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

//go:generate go test -run TestStateMachineDocument -update .

// labels says what each transition of the table means. A transition without a word, or a word
// without a transition, fails the test.
var labels = map[[2]State]string{
	{Scheduled, Scheduled}:  "rescheduled, fired early, replaced, parked",
	{Scheduled, Claimed}:    "leased to a puller or handed to a sink",
	{Scheduled, Delivered}:  "a ledger or mark says so (R17)",
	{Scheduled, Cancelled}:  "cancelled or purged",
	{Scheduled, Expired}:    "ttl or not_after passed",
	{Scheduled, Dead}:       "target refused it unseen",
	{Scheduled, Suppressed}: "guarded, and its own broker delivered it (R18)",
	{Claimed, Claimed}:      "attempt failed, next one waits",
	{Claimed, Delivered}:    "acknowledged",
	{Claimed, Expired}:      "ttl or not_after passed between attempts",
	{Claimed, Dead}:         "rejected, out of attempts, or stopped",
	{Delivered, Scheduled}:  "replaced, next generation",
	{Cancelled, Scheduled}:  "replaced, next generation",
	{Expired, Scheduled}:    "retried from the dead letters, or replaced",
	{Suppressed, Scheduled}: "replaced, next generation",
	{Dead, Scheduled}:       "retried from the dead letters, or replaced",
}

const (
	stateFile  = "../docs/state-machine.md"
	stateBegin = "<!-- begin: generated from delay/state.go by go generate ./delay -->\n"
	stateEnd   = "<!-- end: generated -->\n"
)

// stateDiagram draws the table of state.go.
func stateDiagram(t *testing.T) string {
	var out strings.Builder
	out.WriteString("\n```mermaid\nstateDiagram-v2\n    [*] --> scheduled : accepted\n")
	used := 0
	for from := Scheduled; from <= Suppressed; from++ {
		for _, to := range transitions[from] {
			label, ok := labels[[2]State{from, to}]
			require.True(t, ok, "%s to %s has no label", from, to)
			fmt.Fprintf(&out, "    %s --> %s : %s\n", from, to, label)
			used++
		}
	}
	require.Len(t, labels, used, "a label belongs to no transition")
	for s := Scheduled; s <= Suppressed; s++ {
		if s.Finished() {
			fmt.Fprintf(&out, "    %s --> [*]\n", s)
		}
	}
	out.WriteString("```\n\n| from \\ to |")
	for to := Scheduled; to <= Suppressed; to++ {
		fmt.Fprintf(&out, " %s |", to)
	}
	out.WriteString("\n|---|" + strings.Repeat("---|", int(Suppressed)+1) + "\n")
	for from := Scheduled; from <= Suppressed; from++ {
		fmt.Fprintf(&out, "| **%s** |", from)
		for to := Scheduled; to <= Suppressed; to++ {
			word := ""
			if from.CanFollow(to) {
				word = labels[[2]State{from, to}]
			}
			fmt.Fprintf(&out, " %s |", word)
		}
		out.WriteString("\n")
	}
	out.WriteString("\n")
	return out.String()
}

// The picture in the document must be the table in the code.
func TestStateMachineDocument(t *testing.T) {
	source, err := os.ReadFile(stateFile)
	require.NoError(t, err)
	before, rest, ok := strings.Cut(string(source), stateBegin)
	require.True(t, ok, "no line %q in %s", strings.TrimSpace(stateBegin), stateFile)
	old, after, ok := strings.Cut(rest, stateEnd)
	require.True(t, ok, "no line %q in %s", strings.TrimSpace(stateEnd), stateFile)
	diagram := stateDiagram(t)
	if *update {
		whole := before + stateBegin + diagram + stateEnd + after
		require.NoError(t, os.WriteFile(stateFile, []byte(whole), 0o644))
		return
	}
	require.Equal(t, diagram, old, "run go generate ./delay")
}

// Finished messages only start over; a claimed one can never be cancelled (S5).
func TestTransitions(t *testing.T) {
	for from := Scheduled; from <= Suppressed; from++ {
		for to := Scheduled; to <= Suppressed; to++ {
			if from.Finished() {
				require.Equal(t, to == Scheduled, from.CanFollow(to), "%s to %s", from, to)
			}
		}
	}
	require.False(t, Claimed.CanFollow(Cancelled))
	require.False(t, Claimed.CanFollow(Scheduled))
}

// The words of the API must be read back, and others refused.
func TestStateWords(t *testing.T) {
	for s := Scheduled; s <= Suppressed; s++ {
		got, ok := ParseState(s.String())
		require.True(t, ok)
		require.Equal(t, s, got)
	}
	_, ok := ParseState("lost")
	require.False(t, ok)
	require.Equal(t, "unknown", State(200).String())
	require.Equal(t, []string{"hot", "warm", "cold"}, []string{Hot.String(), Warm.String(), Cold.String()})
}

// Books that count a message twice or not at all must not balance (S10).
func TestBooks(t *testing.T) {
	b := Books{Accepted: 21, Pending: 1, Delivered: 2, Cancelled: 3, Expired: 4, Dead: 5, LostWithDisk: 6}
	require.True(t, b.Balanced())
	b.Pending--
	require.False(t, b.Balanced())
}
