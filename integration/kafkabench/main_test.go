// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A consumer that overlooks a message that is missing, early or there twice would call a wrong
// program fast.
func TestConsumerCounts(t *testing.T) {
	l := &lab{noise: noise()}
	now := time.UnixMilli(1_700_000_000_000)
	c := &consumer{seen: make([]bool, 3)}
	record := func(n int, due int64) *kgo.Record { return &kgo.Record{Value: l.body(n, due)} }
	c.note(now, record(0, now.UnixMilli()-5))
	require.Equal(t, 1, c.count)
	require.Equal(t, []time.Duration{5 * time.Millisecond}, c.late)
	c.note(now, record(0, now.UnixMilli()))
	require.Equal(t, 1, c.twice)
	c.note(now, record(1, now.UnixMilli()+1))
	require.Equal(t, 1, c.early)
	require.Equal(t, 2, c.count)
	c.note(now, record(3, now.UnixMilli()))
	require.Error(t, c.err)
	c.err = nil
	c.note(now, &kgo.Record{Value: []byte("x")})
	require.Error(t, c.err)
}

// A goal that is missed must be called so, whichever way round it is.
func TestVerdicts(t *testing.T) {
	for want, rows := range map[string][]row{
		"": {{Value: 1}},
		"met": {
			{Value: 100, Goal: 100}, {Value: 99, Goal: 100, Below: true},
			{Value: 100, Goal: 100, Of: "x", Ratio: 0.5, Least: 0.5}, {Of: "x", Ratio: 1, Least: 1},
		},
		"missed": {
			{Value: 99, Goal: 100}, {Value: 100, Goal: 100, Below: true},
			{Value: 100, Goal: 100, Of: "x", Ratio: 0.4, Least: 0.5},
			{Value: 99, Goal: 100, Of: "x", Ratio: 0.6, Least: 0.5},
		},
	} {
		for _, r := range rows {
			require.Equal(t, want, r.verdict(), "%+v", r)
		}
	}
	text := table([]row{{Figure: "f", Value: 123_456, Unit: perSecond, Goal: 100_000, CPU: 3}})
	require.Contains(t, text, "| 100,000/s | 123,000/s, 3.0 us CPU | met |")
	require.Len(t, strings.Split(strings.TrimSpace(text), "\n"), 3)
}

// The bar must end where the run does, or it says how far it is not.
func TestSteps(t *testing.T) {
	o, err := parse([]string{"-repeat", "2", "-only", "intake,steady"})
	require.NoError(t, err)
	require.Equal(t, 3+(1+8)+1, o.steps())
	_, err = parse([]string{"-only", "everything"})
	require.Error(t, err)
}

func TestMedian(t *testing.T) {
	require.InDelta(t, 2.0, median([]float64{3, 1, 2}), 0)
	require.InDelta(t, 1.5, median([]float64{2, 1}), 0)
	require.Equal(t, time.Duration(99), quantile([]time.Duration{0, 99}, 0.99))
}
