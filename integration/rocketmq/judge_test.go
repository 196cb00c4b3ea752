// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// arrived is a plan that was sent, and what its consumers get when all is well.
func arrived(t *testing.T) (*Plan, []Received) {
	t.Helper()
	p := NewPlan(1, 6)
	var got []Received
	for i, o := range p.Orders {
		if o.isTimer && o.Message.Delay == 0 {
			o.Message.Due = 1_000_000 + o.delay.Milliseconds()
		}
		o.Sent = Sent{
			ID: fmt.Sprint("id", i), At: 1_000_000, Broker: "b", Queue: o.Message.Queue, Status: "SEND_OK",
		}
		if o.Recall {
			continue
		}
		m := Received{
			Topic: o.Topic, Broker: "b", Queue: o.Sent.Queue, Offset: int64(i), ID: o.Sent.ID,
			Tags: o.Tags, Keys: o.Keys, Flag: o.Flag, Born: o.Sent.At + 1, Stored: o.due(),
			At: o.due() + 20, Body: o.Body, Properties: maps.Clone(o.Properties),
		}
		if o.Part == Doomed {
			m.Properties = map[string]string{rescuedBy: "x"}
			maps.Copy(m.Properties, o.Properties)
		}
		got = append(got, m)
	}
	return p, got
}

// A judge that sees nothing would call every run good: each thing that can be wrong must be found,
// and a run in which all is well must be called so.
func TestJudgeFindsWhatIsWrong(t *testing.T) {
	p, got := arrived(t)
	v := p.Judge(got)
	require.Empty(t, v.Lost)
	require.Empty(t, v.Twice)
	require.Empty(t, v.Wrong)
	require.Equal(t, Count{Sent: 12, Delivered: 12, ByCicada: 12}, v.Sum(Doomed))
	require.Equal(t, Count{Sent: 24, Delivered: 24}, v.Sum(Early, Late))
	require.Equal(t, Count{Sent: 4}, v.Sum(Recalled))
	require.Len(t, v.Lateness, 12)
	require.Equal(t, 20*time.Millisecond, v.Lateness[0])

	for name, spoil := range map[string]struct {
		do   func(got []Received) []Received
		find func(v *Verdict) bool
	}{
		"lost": {func(got []Received) []Received { return got[1:] },
			func(v *Verdict) bool { return len(v.Lost) == 1 }},
		"twice": {func(got []Received) []Received {
			for _, again := range got {
				if again.Properties[rescuedBy] == "" {
					again.Offset = 1000
					return append(got, again)
				}
			}
			return got
		}, func(v *Verdict) bool { return len(v.Twice) == 1 && len(v.Doubled) == 0 }},
		"twice, once by Cicada": {func(got []Received) []Received {
			again := got[0]
			again.Offset, again.Properties = 1000, map[string]string{rescuedBy: "x"}
			maps.Copy(again.Properties, got[0].Properties)
			return append(got, again)
		}, func(v *Verdict) bool { return len(v.Twice) == 1 && len(v.Doubled) == 1 }},
		"again": {func(got []Received) []Received { return append(got, got[0]) },
			func(v *Verdict) bool { return v.Again == 1 && len(v.Twice) == 0 }},
		"early":    spoiled(func(m *Received) { m.Stored = 1_000_000 }, "before it was due"),
		"queue":    spoiled(func(m *Received) { m.Queue++ }, "arrived in"),
		"body":     spoiled(func(m *Received) { m.Body = []byte("?") }, "a body of"),
		"tags":     spoiled(func(m *Received) { m.Tags += "?" }, "TAGS"),
		"keys":     spoiled(func(m *Received) { m.Keys += "?" }, "TAGS"),
		"flag":     spoiled(func(m *Received) { m.Flag++ }, "TAGS"),
		"born":     spoiled(func(m *Received) { m.Born = m.Stored + 100_000 }, "born at"),
		"stranger": spoiled(func(m *Received) { m.ID = "stranger" }, "nobody sent"),
		"property": spoiled(func(m *Received) {
			for name := range m.Properties {
				m.Properties[name] += "?"
			}
		}, "property p"),
		"delayed again": spoiled(func(m *Received) {
			m.Properties = map[string]string{rescuedBy: "x", "TIMER_OUT_MS": "1"}
		}, "released with TIMER_OUT_MS"),
		"recalled": {func(got []Received) []Received {
			for _, o := range p.Orders {
				if o.Recall {
					return append(got, Received{ID: o.Sent.ID, Offset: 1000})
				}
			}
			return got
		}, func(v *Verdict) bool { return says(v, "was recalled") }},
	} {
		t.Run(name, func(t *testing.T) {
			var got []Received
			p, got = arrived(t)
			require.True(t, spoil.find(p.Judge(spoil.do(got))))
		})
	}
}

// spoiled spoils a message with properties; the verdict must say so.
func spoiled(do func(m *Received), text string) struct {
	do   func(got []Received) []Received
	find func(v *Verdict) bool
} {
	return struct {
		do   func(got []Received) []Received
		find func(v *Verdict) bool
	}{func(got []Received) []Received {
		for i := range got {
			if len(got[i].Properties) > 0 && got[i].Properties[rescuedBy] == "" {
				do(&got[i])
				break
			}
		}
		return got
	}, func(v *Verdict) bool { return says(v, text) }}
}

func says(v *Verdict, text string) bool { return strings.Contains(strings.Join(v.Wrong, "\n"), text) }

// A seed must give the same messages again, or a failure cannot be looked into; and a plan must hold
// what the tests are about.
func TestPlan(t *testing.T) {
	require.Equal(t, NewPlan(7, 12), NewPlan(7, 12))
	require.NotEqual(t, NewPlan(7, 12), NewPlan(8, 12))
	p := NewPlan(7, 12)
	have := map[string]int{}
	for _, o := range p.Orders {
		have[string(o.Part)+" "+o.Kind()]++
		have[fmt.Sprintf("tags %t", o.Tags != "")]++
		have[fmt.Sprintf("keys %d", strings.Count(o.Keys, " "))]++
		have[fmt.Sprintf("large %t", len(o.Body) > 4<<10)]++
		require.True(t, (o.Part == Early) == (o.delay < time.Minute))
		require.False(t, o.Recall && (!o.isTimer || o.Part == Early))
	}
	for _, part := range []Part{Early, Doomed, Late} {
		require.Equal(t, 12, have[string(part)+" delay level"])
		require.LessOrEqual(t, 12, have[string(part)+" timer"])
	}
	for _, some := range []string{"tags true", "tags false", "keys 0", "keys 1", "large true", "large false"} {
		require.Positive(t, have[some], some)
	}
}
