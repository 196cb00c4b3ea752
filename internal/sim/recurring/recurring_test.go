// SPDX-License-Identifier: Apache-2.0

package recurring

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/model"
)

// told is a book of one schedule that is due every second from 1000 on, and what it complains of.
type told struct {
	*Book
	d     *def
	wrong []string
}

func tell(policy delay.Misfire, limit uint32) *told {
	s := &told{}
	losses := 0
	s.Book = &Book{World: World{
		Rand: rand.New(rand.NewPCG(1, 1)), Losses: func() int { return losses },
		Fail: func(format string, args ...any) { s.wrong = append(s.wrong, fmt.Sprintf(format, args...)) },
	}}
	s.d = &def{period: 1000, first: 1000, made: model.Yes, fired: map[delay.Due]uint64{}}
	s.d.draft = delay.Draft{Message: delay.Message{
		ID: "s", Target: "log:", Body: []byte("s0;"),
		Recurrence: &delay.Recurrence{Misfire: policy, MisfireLimit: limit},
	}}
	s.defs = []*def{s.d}
	return s
}

// fire delivers firings, each as seconds; missed is how many the last one says were missed.
func (s *told) fire(missed int, seconds ...delay.Due) *told {
	for i, n := range seconds {
		a := &broker.Delivery{
			ID: delay.FiringID("s", n*1000), Due: n * 1000, Target: "log:", Body: []byte("s0;"),
			Headers: []delay.Header{{Name: delay.HeaderScheduleID, Value: "s"}},
		}
		if missed > 0 && i == len(seconds)-1 {
			a.Headers = append(a.Headers, delay.Header{Name: delay.HeaderMissed, Value: fmt.Sprint(missed)})
		}
		s.Attempted(s.Of(a), a, false)
	}
	return s
}

// down has the shard miss a time, in seconds.
func (s *told) down(from, to delay.Due) *told {
	s.Settled(from * 1000)
	s.Opened(from*1000+1, to*1000-1, to*1000)
	return s
}

func (s *told) end(until delay.Due) *told {
	s.calm, s.calmEnd, s.over = until*1000-2000, until*1000, true
	s.d.ended, s.d.endedAt = model.Yes, until*1000
	s.Check()
	return s
}

// A judge that never speaks proves nothing: each invariant is shown a history that keeps it and one
// that does not.
func TestJudge(t *testing.T) {
	const once, all, skip = delay.FireOnce, delay.FireAll, delay.SkipMissed
	for name, c := range map[string]struct {
		good, bad *told
		want      string
	}{
		"no instant (G1)": {
			tell(once, 0).fire(0, 1, 2, 3).end(3), func() *told {
				s := tell(once, 0).fire(0, 1, 2)
				s.d.first = 1001
				return s.fire(0, 3)
			}(), "it is due every",
		},
		"skip (G2)": {
			tell(skip, 0).fire(0, 1, 2).down(2, 6).fire(3, 6).end(6),
			tell(skip, 0).fire(0, 1, 2).down(2, 6).fire(2, 5), "policy is skip",
		},
		"fire_once (G2)": {
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(2, 5).fire(0, 6).end(6),
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(0, 3), "policy is fire_once",
		},
		"fire_all (G2)": {
			tell(all, 2).fire(0, 1, 2).down(2, 6).fire(1, 4).fire(0, 5, 6).end(6),
			tell(all, 2).fire(0, 1, 2).down(2, 6).fire(0, 3), "policy is fire_all",
		},
		"an instant is lost (G3)": {
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(2, 5).fire(0, 6).end(6),
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(1, 5).fire(0, 6).end(6), "neither fired",
		},
		"an instant is told twice (G3)": {
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(2, 5).fire(0, 6).end(6),
			tell(once, 0).fire(0, 1, 2).down(2, 6).fire(3, 5).fire(0, 6).end(6), "twice",
		},
		"missed in time (G4)": {
			tell(once, 0).fire(0, 1).down(1, 3).fire(1, 3).end(3),
			tell(once, 0).fire(0, 1).down(3, 4).fire(1, 3).fire(0, 4).end(4), "was in time",
		},
		"fires after its end (G5)": {
			tell(once, 0).fire(0, 1, 2, 3).end(3),
			tell(once, 0).fire(0, 1, 2, 3).end(3).fire(0, 4), "and ended at",
		},
		"does not go on (G6)": {
			tell(once, 0).fire(0, 1, 2, 3).end(3),
			tell(once, 0).fire(0, 1, 2).end(6), "without any faults",
		},
	} {
		t.Run(name, func(t *testing.T) {
			require.Empty(t, c.good.wrong)
			require.NotEmpty(t, c.bad.wrong)
			require.Contains(t, c.bad.wrong[0], c.want)
		})
	}
}
