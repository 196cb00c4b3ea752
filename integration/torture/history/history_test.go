// SPDX-License-Identifier: Apache-2.0

package history

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const (
	daemonA = "http://a"
	daemonB = "http://b"
	queue   = "pull:q"
	hook    = "http://hooks/good"
)

// script writes a history by hand: time is in milliseconds since a begin.
type script struct {
	events []Event
	ops    int64
}

const begin = int64(1_800_000_000_000) // ms

func at(ms int64) int64 { return (begin + ms) * int64(time.Millisecond) }

// call is asked and answered.
func (s *script) call(from, to int64, asked, answer Event) *script {
	s.ops++
	asked.At, asked.Op, asked.Proc = at(from), s.ops, "c1"
	if asked.Daemon == "" {
		asked.Daemon = daemonA
	}
	answer.At, answer.Op, answer.Proc, answer.End = at(to), s.ops, "c1", true
	answer.What, answer.ID = asked.What, asked.ID
	s.events = append(s.events, asked, answer)
	return s
}

func (s *script) sent(t int64, target string, due int64) *script {
	return s.call(t, t+1, Event{What: Send, ID: "m", Target: target, Body: "b", Due: begin + due},
		Event{Answer: OK, Due: begin + due, Gen: 1, State: scheduled})
}

func (s *script) pulled(t, try, due, lease int64, receipt string) *script {
	return s.call(t, t+1, Event{What: Pull, Target: queue, Lease: lease}, Event{
		Answer: OK, Got: []Given{{ID: "m", Receipt: receipt, Try: try, Due: begin + due, Body: "b"}},
	})
}

func (s *script) settled(t int64, what, receipt, answer string) *script {
	return s.call(t, t+1, Event{What: what, ID: "m", Receipt: receipt, Lease: 1000},
		Event{Answer: answer})
}

func (s *script) changed(t int64, what, answer string) *script {
	return s.call(t, t+1, Event{What: what, ID: "m", Due: begin + 500},
		Event{Answer: answer, Due: begin + 500})
}

func (s *script) pushed(t, try, due int64, answer string) *script {
	return s.add(t, Event{
		What: Attempt, ID: "m", Target: hook, Body: "b", Due: begin + due, Try: try, Lease: 1,
		Answer: answer,
	})
}

// fired is a first attempt that began at from, says the daemon, and came at t.
func (s *script) fired(from, t int64, answer string) *script {
	return s.add(t, Event{
		What: Attempt, ID: "m", Target: hook, Body: "b", Due: begin + 5, Try: 1, Lease: 1,
		Answer: answer, Fired: begin + from,
	})
}

func (s *script) add(t int64, e Event) *script {
	e.At = at(t)
	s.events = append(s.events, e)
	return s
}

func (s *script) fault(t int64, what string) *script {
	return s.add(t, Event{What: what, Daemon: daemonA})
}

func (s *script) crashed(t int64) *script {
	return s.fault(t, Kill).fault(t, Exit).fault(t+1, Launch)
}

// ended looks at the message and the books.
func (s *script) ended(t int64, state string, books map[string]int64) *script {
	s.call(t, t+1, Event{What: Get, ID: "m", Note: Final}, Event{Answer: OK, State: state})
	note, _ := json.Marshal(books)
	return s.add(t+2, Event{What: Books, Note: string(note)})
}

func one(state string) map[string]int64 { return map[string]int64{"accepted": 1, state: 1} }

func start() *script { return (&script{}).fault(0, Launch) }

func (s *script) check() Report {
	return Check(s.events, Options{Hold: 3 * time.Second, InFlight: 10, Timeout: time.Second})
}

// Every rule must find a history that breaks it (X2): a rule that is blind says nothing about the
// daemon. Each story is told once as it may be and once with one thing that must not be.
func TestRulesSee(t *testing.T) {
	for name, tc := range map[string]struct {
		good, bad *script
		rule      string
	}{
		"attempt before the due": {
			good: start().sent(1, hook, 100).pushed(101, 1, 100, OK).ended(900, delivered, one(delivered)),
			bad:  start().sent(1, hook, 100).pushed(98, 1, 100, OK).ended(900, delivered, one(delivered)),
			rule: "early",
		},
		"the daemon says that it was early": {
			good: start().sent(1, hook, 100).add(101, Event{
				What: Attempt, ID: "m", Body: "b", Due: begin + 100, Try: 1, Answer: OK, Fired: begin + 100,
			}).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 100).add(101, Event{
				What: Attempt, ID: "m", Body: "b", Due: begin + 100, Try: 1, Answer: OK, Fired: begin + 99,
			}).ended(900, delivered, one(delivered)),
			rule: "early",
		},
		"a forward step is followed at once": {
			good: start().sent(1, hook, 3600_000).add(10, Event{What: Step, Wall: int64(time.Hour)}).
				pushed(3600, 1, 3600_000, OK).ended(9000, delivered, one(delivered)),
			bad: start().sent(1, hook, 3600_000).add(10, Event{What: Step, Wall: int64(time.Hour)}).
				pushed(900, 1, 3600_000, OK).ended(9000, delivered, one(delivered)),
			rule: "early",
		},
		"a forward step after one back is followed at once": {
			good: start().sent(1, hook, 50).add(10, Event{What: Step, Wall: int64(-time.Hour)}).
				add(20, Event{What: Step, Wall: 0}).pushed(60, 1, 50, OK).
				ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 7200_000).add(10, Event{What: Step, Wall: int64(-time.Hour)}).
				add(20, Event{What: Step, Wall: int64(2 * time.Hour)}).pushed(60, 1, 7200_000, OK).
				ended(900, delivered, one(delivered)),
			rule: "early",
		},
		"delivered after CANCELLED": {
			good: start().sent(1, hook, 100).changed(10, Cancel, "CANCELLED").
				ended(900, cancelled, one(cancelled)),
			bad: start().sent(1, hook, 100).changed(10, Cancel, "CANCELLED").pushed(120, 1, 100, OK).
				ended(900, cancelled, one(cancelled)),
			rule: "cancelled",
		},
		"CANCELLED after delivered": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").changed(20, Cancel, "TOO_LATE").
				settled(30, Ack, "r", "ACKED").ended(900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").changed(20, Cancel, "CANCELLED").
				settled(30, Ack, "r", "ACKED").ended(900, delivered, one(delivered)),
			rule: "order",
		},
		"TOO_LATE without a claim": {
			good: start().sent(1, hook, 5000).crashed(50).changed(60, Cancel, "TOO_LATE").
				pushed(5001, 1, 5000, OK).ended(9000, delivered, one(delivered)),
			bad: start().sent(1, hook, 5000).changed(60, Cancel, "TOO_LATE").pushed(5001, 1, 5000, OK).
				ended(9000, delivered, one(delivered)),
			rule: "order",
		},
		"TOO_LATE of what was accepted after the crash": {
			good: start().crashed(1).sent(10, hook, 5000).changed(60, Cancel, "CANCELLED").
				ended(9000, cancelled, one(cancelled)),
			bad: start().crashed(1).sent(10, hook, 5000).changed(60, Cancel, "TOO_LATE").
				pushed(5001, 1, 5000, OK).ended(9000, delivered, one(delivered)),
			rule: "order",
		},
		"moved, and delivered with the old due": {
			good: start().sent(1, hook, 100).changed(10, Patch, "RESCHEDULED").pushed(501, 1, 500, OK).
				ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 100).changed(10, Patch, "RESCHEDULED").pushed(501, 1, 100, OK).
				ended(900, delivered, one(delivered)),
			rule: "order",
		},
		"two messages with one id": {
			good: start().sent(1, hook, 100).call(10, 11,
				Event{What: Send, ID: "m", Target: hook, Body: "other", Due: begin + 100},
				Event{Answer: "ALREADY_EXISTS"}).pushed(101, 1, 100, OK).
				ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 100).call(10, 11,
				Event{What: Send, ID: "m", Target: hook, Body: "other", Due: begin + 100},
				Event{Answer: OK, Due: begin + 100, Gen: 1, State: scheduled}).pushed(101, 1, 100, OK).
				ended(900, delivered, one(delivered)),
			rule: "order",
		},
		"an attempt given twice": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").pulled(1100, 2, 5, 1000, "s").
				settled(1200, Ack, "s", "ACKED").ended(1900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").pulled(1100, 1, 5, 1000, "s").
				settled(1200, Ack, "s", "ACKED").ended(1900, delivered, one(delivered)),
			rule: "order",
		},
		"the ack of an old lease takes the new one away": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").pulled(1100, 2, 5, 1000, "s").
				settled(1200, Ack, "r", "SUPERSEDED").settled(1300, Ack, "s", "ACKED").
				ended(1900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").pulled(1100, 2, 5, 1000, "s").
				settled(1200, Ack, "r", "ACKED").ended(1900, delivered, one(delivered)),
			rule: "order",
		},
		"a lease in force is superseded": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(100, Ack, "r", "ACKED").ended(900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(100, Ack, "r", "SUPERSEDED").settled(150, Ack, "r", "ACKED").
				ended(900, delivered, one(delivered)),
			rule: "order",
		},
		"came back after its ack": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(20, Ack, "r", "ACKED").crashed(30).ended(900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(20, Ack, "r", "ACKED").crashed(30).pulled(1200, 2, 5, 1000, "s").
				ended(1900, delivered, one(delivered)),
			rule: "acked",
		},
		"came back long after its ack, after the loss of a disk": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(20, Ack, "r", "ACKED").fault(5000, Lost).pulled(6000, 1, 5, 1000, "s").
				settled(6100, Ack, "s", "ACKED").ended(7000, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(20, Ack, "r", "ACKED").fault(25000, Lost).pulled(26000, 1, 5, 1000, "s").
				settled(26100, Ack, "s", "ACKED").ended(27000, delivered, one(delivered)),
			rule: "acked",
		},
		"leased to two": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").crashed(100).
				pulled(1100, 2, 5, 1000, "s").settled(1200, Ack, "s", "ACKED").
				ended(1900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").crashed(100).
				pulled(500, 2, 5, 1000, "s").settled(600, Ack, "s", "ACKED").
				ended(1900, delivered, one(delivered)),
			rule: "lease",
		},
		"an extended lease is not kept": {
			good: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(900, Extend, "r", "EXTENDED").pulled(1950, 2, 5, 1000, "s").
				settled(1990, Ack, "s", "ACKED").ended(2900, delivered, one(delivered)),
			bad: start().sent(1, queue, 5).pulled(10, 1, 5, 1000, "r").
				settled(900, Extend, "r", "EXTENDED").pulled(1500, 2, 5, 1000, "s").
				settled(1600, Ack, "s", "ACKED").ended(2900, delivered, one(delivered)),
			rule: "lease",
		},
		"repeated without an incident": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).crashed(20).pushed(60, 2, 5, OK).
				ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).pushed(60, 2, 5, OK).
				ended(900, delivered, one(delivered)),
			rule: "repeated",
		},
		// The receiver did not get to run before the daemon had given up, or it did.
		"repeated after a yes in time": {
			good: start().sent(1, hook, 5).fired(10, 800, OK).pushed(1100, 2, 5, OK).
				ended(1900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).fired(790, 800, OK).pushed(1100, 2, 5, OK).
				ended(1900, delivered, one(delivered)),
			rule: "repeated",
		},
		"repeated across SIGTERM": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, "RETRY").fault(20, Term).fault(40, Exit).
				fault(50, Launch).pushed(60, 2, 5, OK).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).fault(20, Term).fault(40, Exit).
				fault(50, Launch).pushed(60, 2, 5, OK).ended(900, delivered, one(delivered)),
			rule: "drained",
		},
		"nobody sent it": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).
				add(20, Event{What: Attempt, ID: "other", Answer: OK}).
				ended(900, delivered, one(delivered)),
			rule: "strange",
		},
		"accepted and gone": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad:  start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, absent, one(delivered)),
			rule: "lost",
		},
		"accepted with tier and gone with the disk": {
			good: start().sent(1, hook, 500).fault(50, Lost).ended(900, absent, one("lost_with_disk")),
			bad: start().call(1, 2, Event{What: Send, ID: "m", Target: hook, Body: "b", Due: begin + 500},
				Event{Answer: OK, Due: begin + 500, Gen: 1, State: scheduled, Tier: true}).
				fault(50, Lost).ended(900, absent, one("lost_with_disk")),
			rule: "order",
		},
		"never delivered": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad:  start().sent(1, hook, 5).ended(900, scheduled, one(delivered)),
			rule: "lost",
		},
		"called delivered without an attempt": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad:  start().sent(1, hook, 5).ended(900, delivered, one(delivered)),
			rule: "order",
		},
		"books that do not balance": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).
				ended(900, delivered, map[string]int64{"accepted": 2, "delivered": 1}),
			rule: "books",
		},
		"books of one too many": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).
				ended(900, delivered, map[string]int64{"accepted": 2, "delivered": 2}),
			rule: "books",
		},
		"the supervisor saw it": {
			good: start().sent(1, hook, 5).pushed(10, 1, 5, OK).ended(900, delivered, one(delivered)),
			bad: start().sent(1, hook, 5).pushed(10, 1, 5, OK).add(20, Event{What: Failed, Note: "why"}).
				ended(900, delivered, one(delivered)),
			rule: "ended",
		},
	} {
		t.Run(name, func(t *testing.T) {
			good := tc.good.check()
			require.Empty(t, good.Violations, "%v", good.Violations)
			var rules []string
			for _, v := range tc.bad.check().Violations {
				rules = append(rules, v.Rule)
			}
			require.Contains(t, rules, tc.rule)
		})
	}
}

// A crash may repeat so much and no more: the bound must be counted for each incident (S6).
func TestBound(t *testing.T) {
	s := start()
	const n = 10 + unsynced + 1
	note, err := json.Marshal(map[string]int64{"accepted": n, "delivered": n})
	require.NoError(t, err)
	for i := range int64(n) {
		id := string(rune('a'+i%26)) + time.Duration(i).String()
		s.call(1, 2, Event{What: Send, ID: id, Target: hook, Body: id, Due: begin + 5},
			Event{Answer: OK, Due: begin + 5, Gen: 1})
		for j, when := range []int64{10, 100} {
			s.add(when, Event{
				What: Attempt, ID: id, Body: id, Due: begin + 5, Try: int64(j) + 1, Lease: 1, Answer: OK,
			})
		}
		s.call(900, 901, Event{What: Get, ID: id, Note: Final}, Event{Answer: OK, State: delivered})
	}
	s.crashed(50).add(950, Event{What: Books, Note: string(note)})
	r := s.check()
	require.Len(t, r.Violations, 1)
	require.Equal(t, "bound", r.Violations[0].Rule)
	require.Equal(t, []Incident{{At: at(50), What: Kill, Repeated: n, Bound: n - 1}}, r.Incidents)
}

// What the successor of a paused daemon decided holds: answers that the old one gives afterwards
// are no answers, and must not be taken for a broken promise, nor hide one.
func TestZombie(t *testing.T) {
	s := start().sent(1, hook, 500).fault(10, Freeze).
		add(20, Event{What: Takeover, Daemon: daemonB}).add(21, Event{What: Launch, Daemon: daemonB}).
		call(100, 101, Event{What: Cancel, ID: "m", Daemon: daemonB}, Event{Answer: "NOT_FOUND"}).
		fault(200, Thaw).
		call(5, 210, Event{What: Cancel, ID: "m"}, Event{Answer: "TOO_LATE"}).
		fault(300, Exit).ended(900, absent, one("lost_with_disk"))
	require.Empty(t, s.check().Violations)
	s = start().sent(1, hook, 500).fault(10, Freeze).
		add(20, Event{What: Takeover, Daemon: daemonB}).add(21, Event{What: Launch, Daemon: daemonB}).
		call(100, 101, Event{What: Cancel, ID: "m", Daemon: daemonB},
			Event{Answer: "CANCELLED", Tier: true}).
		fault(200, Thaw).pushed(600, 1, 500, OK).ended(900, cancelled, one(cancelled))
	require.NotEmpty(t, s.check().Violations)
}

// The bound of what a daemon may believe must follow each clock: too high, and early attempts pass;
// too low, and good ones are accused.
func TestBelieved(t *testing.T) {
	for name, tc := range map[string]struct {
		steps []step
		at    int64
		want  int64 // ms since the begin
	}{
		"no step":          {nil, 5000, 5000},
		"small step":       {[]step{{at(1000), int64(time.Second), 0}}, 5000, 6000},
		"held":             {[]step{{at(1000), int64(time.Hour), 0}}, 3999, 3999},
		"held long enough": {[]step{{at(1000), int64(time.Hour), 0}}, 4001, 3_604_001},
		"suspended": {
			[]step{{at(1000), int64(time.Hour), int64(time.Hour)}}, 1001, 3_601_001,
		},
		"back":           {[]step{{at(1000), -int64(time.Hour), 0}}, 3000, 999},
		"back and right": {[]step{{at(1000), -int64(time.Hour), 0}, {at(2000), 0, 0}}, 3000, 3000},
		"back and far": {
			[]step{{at(1000), -int64(time.Hour), 0}, {at(2000), int64(time.Hour), 0}}, 3000, 3000,
		},
		"far and right in time": {[]step{{at(1000), int64(time.Hour), 0}, {at(2000), 0, 0}}, 9000, 9000},
	} {
		t.Run(name, func(t *testing.T) {
			c := &clock{hold: int64(3 * time.Second), steps: tc.steps}
			c.lives = []life{{daemonA, at(0), math.MaxInt64}}
			require.InDelta(t, begin+tc.want, c.latest(at(tc.at)), 6)
		})
	}
}

// A client that was killed leaves half a line; everything before it counts, and a line that is
// whole and broken is an error.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	log, err := Create(dir, "c1")
	require.NoError(t, err)
	_, err = log.Write(Event{What: Send, ID: "a", Op: log.Op()}, Event{What: Get, ID: "b"})
	require.NoError(t, err)
	require.NoError(t, log.Close())
	name := filepath.Join(dir, "c1.log")
	whole, err := os.ReadFile(name)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(name, append(whole, `{"at":1,"wh`...), 0o644))
	events, err := Read(dir)
	require.NoError(t, err)
	require.Len(t, events, 2)
	require.Equal(t, "c1", events[0].Proc)
	require.NoError(t, os.WriteFile(name, append(whole, "{\"at\":1,\"wh\n"...), 0o644))
	_, err = Read(dir)
	require.ErrorContains(t, err, "c1.log:3")
}
