// SPDX-License-Identifier: Apache-2.0

package history

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// What may be repeated after an incident, beside what was in flight (S6).
const unsynced = 1000

// What the checker allows for.
const (
	// claimAhead is how far ahead of the time the claim horizon may be, with the pause of a
	// takeover (R8, R12).
	claimAhead = 20 * time.Second
	// uploadedWithin is how old an outcome may be that the loss of a disk takes, while the bucket
	// answers: some flushes, and the start of a machine that is busy.
	uploadedWithin = 10 * time.Second
	// linearizeWithin bounds the search for an order of one message's events.
	linearizeWithin = 20 * time.Second
	// leap is how long after a step a clock may jump once more: a hold ends.
	leap = int64(10 * time.Second)
)

// Options are what the checker must know of a run.
type Options struct {
	Hold     time.Duration // clock.max_hold
	InFlight int64         // attempts of push targets at a time, all together
	Timeout  time.Duration // of a webhook call
}

// Violation is a promise that did not hold.
type Violation struct {
	Rule   string  `json:"rule"`
	ID     string  `json:"id,omitempty"`
	Text   string  `json:"text"`
	Events []Event `json:"-"` // of the message, of all logs, with what was done to the daemon
}

// String is for people.
func (v Violation) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s: %s", v.Rule, v.ID, v.Text)
	for _, e := range v.Events {
		b.WriteString("\n    " + e.String())
	}
	return b.String()
}

// Incident is what may repeat attempts.
type Incident struct {
	At       int64  `json:"at"`
	What     string `json:"what"`
	Repeated int64  `json:"repeated"`
	Bound    int64  `json:"bound"` // 0: none is promised, or none may
}

// Report is the result.
type Report struct {
	Counts     map[string]int64 `json:"counts"`
	Incidents  []Incident       `json:"incidents"`
	LateMS     map[string]int64 `json:"late_ms"` // first attempts at receivers, p50 to max
	Violations []Violation      `json:"violations"`
}

// checker is one run of Check.
type checker struct {
	Report
	opts   Options
	events []Event // in the order of time
	faults []Event
	clock  *clock
	disk   bool // disks were lost, or the shard taken over
	ids    map[string]*story
	opened []pull // pulls without an answer
}

// story is everything that was written about one id.
type story struct {
	id       string
	target   string
	first    int64 // call
	ops      []porcupine.Operation
	attempts []attempt
	leases   map[string]*lease // by receipt
	replaced bool
	retried  bool
	accepted bool
	final    string
}

type attempt struct {
	at    int64 // it was seen
	since int64 // it may have begun
	push  bool
	given Given
	said  string // of a receiver
	until int64  // its answer was complete
}

type lease struct {
	id       string
	given    Given
	call     int64
	answered int64
	shortest int64 // the earliest end that it may have
	holds    []hold
	released int64
}

// hold is a time in which nobody else may have the message.
type hold struct{ from, to int64 }

type pull struct {
	target   string
	from, to int64
}

// Check judges a run.
func Check(events []Event, opts Options) Report {
	Sort(events)
	c := &checker{
		opts: opts, events: events, ids: map[string]*story{}, clock: clockOf(events, opts.Hold),
		Report: Report{Counts: map[string]int64{}, LateMS: map[string]int64{}},
	}
	c.sortOut()
	c.read()
	for _, id := range slices.Sorted(maps.Keys(c.ids)) {
		s := c.ids[id]
		c.early(s)
		c.cancelled(s)
		c.acked(s)
		c.leased(s)
		c.order(s)
		c.finished(s)
	}
	c.repeated()
	c.books()
	c.late()
	return c.Report
}

// violate notes a violation with everything that was written about the message.
func (c *checker) violate(rule, id, format string, args ...any) {
	c.Counts["violations"]++
	if len(c.Violations) >= 50 {
		return
	}
	v := Violation{Rule: rule, ID: id, Text: fmt.Sprintf(format, args...)}
	from, to := int64(math.MaxInt64), int64(0)
	for _, e := range c.events {
		if e.mentions(id) && id != "" {
			v.Events = append(v.Events, e)
			if e.Note != Final && e.Proc != "settle" {
				from, to = min(from, e.At), max(to, e.At)
			}
		}
	}
	for _, e := range c.faults {
		if e.At >= from-int64(time.Second) && e.At <= to {
			v.Events = append(v.Events, e)
		}
	}
	Sort(v.Events)
	c.Violations = append(c.Violations, v)
}

func (e Event) mentions(id string) bool {
	return e.ID == id || slices.ContainsFunc(e.Got, func(g Given) bool { return g.ID == id })
}

// sortOut finds what was done to the daemon.
func (c *checker) sortOut() {
	for _, e := range c.events {
		switch e.What {
		case Launch, Ready, Kill, Freeze, Thaw, Term, Exit, Lost, Takeover, Step, Cut, Heal, Full,
			Room:
			c.faults = append(c.faults, e)
			c.Counts[e.What]++
		case Failed:
			c.violate("ended", "", "%s", e.Note)
		}
		if e.What == Lost || e.What == Takeover {
			c.disk = true
		}
	}
}

// read joins calls and answers and tells each message's story.
func (c *checker) read() {
	type key struct {
		proc string
		op   int64
	}
	open := map[key]Event{}
	for _, e := range c.events {
		switch {
		case e.Op == 0:
			if e.What == Attempt {
				c.pushed(e)
			}
		case !e.End:
			open[key{e.Proc, e.Op}] = e
			if e.What == Send { // it may be attempted before it is answered
				s := c.story(e.ID, e.At)
				c.Counts["messages"] += b2i(s.target == "")
				s.target = e.Target
			}
		default:
			call := open[key{e.Proc, e.Op}]
			delete(open, key{e.Proc, e.Op})
			c.joined(call, e)
		}
	}
	for _, call := range slices.SortedFunc(maps.Values(open), func(a, b Event) int {
		return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Proc, b.Proc), cmp.Compare(a.Op, b.Op))
	}) { // of clients that were killed
		c.joined(call, Event{At: call.At, Answer: Unknown})
	}
}

// zombie reports whether an answer came from a daemon that another one had followed.
func (c *checker) zombie(call Event, at int64) bool {
	after := false
	for _, e := range c.faults {
		if e.At > at {
			break
		}
		if e.What == Takeover {
			after = e.Daemon != call.Daemon && call.Daemon != ""
		}
	}
	return after
}

func (c *checker) joined(call, answer Event) {
	c.Counts["calls"]++
	if answer.Answer != Unknown && c.disk && c.zombie(call, answer.At) {
		c.Counts["answers of a follower's predecessor"]++
		answer = Event{At: answer.At, Answer: Unknown}
	}
	ret := answer.At
	if answer.Answer == Unknown {
		c.Counts["unanswered"]++
		// What was asked may happen until the process is gone.
		if died, ok := c.clock.died(call.Daemon, call.At); !ok {
			ret = math.MaxInt64
		} else {
			ret = max(ret, died)
		}
	}
	if call.What == Pull {
		c.pulled(call, answer, ret)
		return
	}
	s := c.story(call.ID, call.At)
	if call.What == Send {
		s.accepted = s.accepted || answer.Answer == OK
		s.replaced = s.replaced || call.Replace && (answer.Gen > 1 || answer.Answer == Unknown)
	}
	s.retried = s.retried || call.What == Retry
	if call.What == Get && call.Note == Final {
		s.final = cmp.Or(answer.State, absent)
	}
	c.released(call, answer)
	s.ops = append(s.ops, porcupine.Operation{
		Input: c.input(s, call, answer, ret), Call: call.At, Return: ret,
	})
}

// Final is the note of the last look at a message.
const Final = "final"

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func (c *checker) story(id string, at int64) *story {
	s := c.ids[id]
	if s == nil {
		s = &story{id: id, first: at, leases: map[string]*lease{}}
		c.ids[id] = s
	}
	return s
}

// input is what the model needs to know.
func (c *checker) input(s *story, asked, answer Event, ret int64) call {
	in := call{Event: asked, answer: answer, push: !strings.HasPrefix(s.target, "pull:")}
	in.now = math.MaxInt64
	if ret != math.MaxInt64 {
		in.now = c.clock.latest(ret)
	}
	if l := s.leases[asked.Receipt]; l != nil && asked.Receipt != "" {
		in.Try = l.given.Try
		in.late = answer.At >= l.shortest || c.clock.stepped(l.call-leap, answer.At)
		for _, o := range s.ops {
			before := o.Input.(call)
			in.repeat = in.repeat || before.Receipt == asked.Receipt && before.What == asked.What
		}
	}
	return in
}

// pulled tells of each message that came.
func (c *checker) pulled(asked, answer Event, ret int64) {
	if answer.Answer == Unknown {
		c.opened = append(c.opened, pull{asked.Target, asked.At, ret})
		return
	}
	for _, g := range answer.Got {
		c.Counts["leases"]++
		s := c.ids[g.ID]
		if s == nil {
			c.violate("strange", g.ID, "nobody sent it")
			continue
		}
		if s.target != asked.Target {
			c.violate("strange", g.ID, "of %s came from %s", s.target, asked.Target)
		}
		s.attempts = append(s.attempts, attempt{at: answer.At, since: asked.At, given: g})
		end := asked.At + asked.Lease*int64(time.Millisecond)
		s.leases[g.Receipt] = &lease{
			id: g.ID, given: g, call: asked.At, answered: answer.At, shortest: end,
			holds: []hold{{answer.At, end}}, released: math.MaxInt64,
		}
		s.ops = append(s.ops, porcupine.Operation{
			Call: asked.At, Return: answer.At, Input: call{
				Event: Event{What: Attempt, ID: g.ID, Body: g.Body, Due: g.Due, Try: g.Try},
				now:   c.clock.latest(answer.At),
			},
		})
	}
}

// released notes what ends or moves the end of a lease.
func (c *checker) released(asked, answer Event) {
	s := c.ids[asked.ID]
	switch asked.What {
	case Ack, Nack:
		if l := s.leases[asked.Receipt]; l != nil {
			l.released = min(l.released, asked.At)
		}
	case Stop, Retry:
		for _, l := range s.leases {
			l.released = min(l.released, asked.At)
		}
	case Extend:
		l := s.leases[asked.Receipt]
		if l == nil || answer.Answer != "EXTENDED" && answer.Answer != Unknown {
			return
		}
		end := asked.At + asked.Lease*int64(time.Millisecond)
		l.shortest = min(l.shortest, end)
		for i := range l.holds {
			l.holds[i].to = min(l.holds[i].to, max(end, asked.At))
		}
		if answer.Answer == "EXTENDED" {
			l.holds = append(l.holds, hold{answer.At, end})
		}
	}
}

// pushed tells of an attempt at a receiver. Answer is what it said, Lease how long it took, in ms.
func (c *checker) pushed(e Event) {
	c.Counts["pushes"]++
	s := c.ids[e.ID]
	if s == nil {
		c.violate("strange", e.ID, "nobody sent it")
		return
	}
	since := s.first
	for _, a := range s.attempts {
		since = max(since, a.at)
	}
	if len(c.clock.steps) == 0 { // it was not claimed before its due
		since = min(max(since, e.Due*int64(time.Millisecond)), e.At)
	}
	said := e.Answer
	if c.took(e) > c.opts.Timeout/2 && said == OK {
		said = Unknown // the daemon may have given up
	}
	s.attempts = append(s.attempts, attempt{
		at: e.At, since: since, push: true, said: said, until: e.At + e.Lease*int64(time.Millisecond),
		given: Given{ID: e.ID, Body: e.Body, Due: e.Due, Try: e.Try, Fired: e.Fired},
	})
	in := call{Event: e, push: true, now: c.clock.latest(e.At)}
	in.answer.Answer = said
	s.ops = append(s.ops, porcupine.Operation{Call: since, Return: e.At, Input: in})
}

// took is how long the daemon has waited for an answer: from when it says that it began, which may
// be before the receiver got to run. Where clocks are stepped its word cannot be compared.
func (c *checker) took(e Event) time.Duration {
	answered := time.Duration(e.Lease) * time.Millisecond
	stepped := slices.ContainsFunc(c.clock.steps, func(s step) bool {
		return s.wall != 0 || s.boot != 0
	})
	if e.Fired == 0 || stepped {
		return answered
	}
	return max(answered, answered+time.Duration(e.At)-time.Duration(e.Fired)*time.Millisecond)
}

// early: S1, R21. What was attempted once may be attempted again whatever the clock says then.
func (c *checker) early(s *story) {
	type first struct {
		body string
		due  int64
	}
	seen := map[first]bool{}
	for _, a := range s.attempts {
		if seen[first{a.given.Body, a.given.Due}] {
			continue
		}
		seen[first{a.given.Body, a.given.Due}] = true
		if g := a.given; g.Fired != 0 && g.Fired < g.Due {
			c.violate("early", s.id, "attempt %d began %d ms before its due, says the daemon", g.Try,
				g.Due-g.Fired)
			return
		}
		if latest := c.clock.latest(a.at); a.given.Due > latest {
			c.violate("early", s.id, "attempt %d came %d ms before its due", a.given.Try,
				a.given.Due-latest)
			return
		}
	}
}

// cancelled: S5, whatever the order of calls may have been.
func (c *checker) cancelled(s *story) {
	if s.replaced || s.retried {
		return // the order of calls decides
	}
	for _, o := range s.ops {
		in := o.Input.(call)
		if in.answer.Answer == "CANCELLED" && len(s.attempts) > 0 && (!c.disk || in.answer.Tier) {
			c.violate("cancelled", s.id, "answered CANCELLED, and attempted %d times",
				len(s.attempts))
			return
		}
	}
}

// acked: what was acknowledged stays away, but for what the loss of a disk takes (S6).
func (c *checker) acked(s *story) {
	if s.retried {
		return
	}
	for _, o := range s.ops {
		in := o.Input.(call)
		if in.What != Ack || in.answer.Answer != "ACKED" {
			continue
		}
		body := s.leases[in.Receipt].given.Body
		if s.renewed(body) {
			continue // the order of calls decides
		}
		for _, a := range s.attempts {
			if !a.push && a.since > in.answer.At && a.given.Body == body &&
				!c.taken(o.Call, a.since) {
				c.violate("acked", s.id, "came back %s after its ack",
					time.Duration(a.at-in.answer.At))
				return
			}
		}
	}
}

// renewed reports whether a replacement with this body was repeated: after another one it starts a
// generation of its own.
func (s *story) renewed(body string) bool {
	n := 0
	for _, o := range s.ops {
		if c, ok := o.Input.(call); ok && c.What == Send && c.Replace && c.Body == body {
			n++
		}
	}
	return n > 1
}

// taken reports whether the loss of a disk may have taken what was asked for then: its answer may
// have been on the way when the disk was lost.
func (c *checker) taken(from, to int64) bool {
	cut := int64(0)
	began := int64(-1)
	for _, e := range c.faults {
		switch {
		case e.What == Cut:
			began = max(e.At, from)
		case e.What == Heal && began >= 0:
			cut += max(e.At-began, 0)
			began = -1
		case (e.What == Lost || e.What == Takeover) && e.At >= from && e.At <= to:
			down := cut
			if began >= 0 {
				down += max(e.At-began, 0)
			}
			if e.At-from <= int64(uploadedWithin)+down {
				return true
			}
		}
	}
	return false
}

// leased: one consumer at a time (S7).
func (c *checker) leased(s *story) {
	for _, l := range s.leases {
		for _, a := range s.attempts {
			if a.push || a.given.Receipt == l.given.Receipt || a.at > l.released ||
				c.clock.stepped(l.call-leap, a.at) || c.between(l.call, a.at, Lost, Takeover) {
				continue
			}
			for _, h := range l.holds {
				if a.at > h.from && a.at < h.to {
					c.violate("lease", s.id, "attempt %d came while attempt %d had %s left",
						a.given.Try, l.given.Try, time.Duration(h.to-a.at))
					return
				}
			}
		}
	}
}

func (c *checker) between(from, to int64, what ...string) bool {
	return slices.ContainsFunc(c.faults, func(e Event) bool {
		return e.At >= from && e.At <= to && slices.Contains(what, e.What)
	})
}

// order: porcupine decides whether the calls and attempts are the life of one message.
func (c *checker) order(s *story) {
	for i := range s.ops {
		o := &s.ops[i]
		in := o.Input.(call)
		c.unsure(s, &in, *o)
		o.Input = in
	}
	for _, e := range c.faults {
		if (e.What == Lost || e.What == Takeover) && e.At > s.first {
			s.ops = append(s.ops, porcupine.Operation{Call: e.At, Return: e.At, Input: call{Event: e}})
		}
	}
	switch porcupine.CheckOperationsTimeout(lifeOf(c.disk), s.ops, linearizeWithin) {
	case porcupine.Illegal:
		c.violate("order", s.id, "no message could have lived like this: %s", stuck(c.disk, s.ops))
	case porcupine.Unknown:
		c.Counts["undecided"]++
	default:
		c.Counts["linearized"]++
	}
}

// stuck tells how far an order could be found, and which calls do not follow.
func stuck(disk bool, ops []porcupine.Operation) string {
	_, info := porcupine.CheckOperationsVerbose(lifeOf(disk), ops, linearizeWithin)
	var best []porcupine.Operation
	for _, partition := range info.PartialLinearizationsOperations() {
		for _, part := range partition {
			if len(part) > len(best) {
				best = part
			}
		}
	}
	return fmt.Sprintf("after %v, none of %v", tell(best), tell(slices.DeleteFunc(slices.Clone(ops),
		func(o porcupine.Operation) bool {
			return slices.ContainsFunc(best, func(b porcupine.Operation) bool {
				return b.Call == o.Call && b.Return == o.Return && b.Input.(call).Op == o.Input.(call).Op
			})
		})))
}

// tell describes calls.
func tell(ops []porcupine.Operation) []string {
	var out []string
	for _, o := range ops {
		c := o.Input.(call)
		text := c.What
		if c.Try > 0 {
			text += fmt.Sprint(" ", c.Try)
		}
		if c.answer.Answer != "" {
			text += ": " + c.answer.Answer
		}
		if c.answer.State != "" {
			text += " " + c.answer.State
		}
		out = append(out, text)
	}
	return out
}

// unsure fills in what a crash or a lost answer leaves open at this call.
func (c *checker) unsure(s *story, in *call, o porcupine.Operation) {
	in.unseen = slices.ContainsFunc(c.opened, func(p pull) bool {
		return p.target == s.target && p.from < o.Return && p.to >= s.first
	})
	in.push = !strings.HasPrefix(s.target, "pull:")
	for _, e := range c.faults {
		if e.At < s.first || e.At > o.Return {
			continue
		}
		switch e.What {
		case Launch:
			if in.push {
				in.horizon = max(in.horizon, c.clock.latest(e.At)+claimAhead.Milliseconds())
			}
		case Lost, Takeover:
			in.lost = true
			in.horizon = max(in.horizon, c.clock.latest(e.At)+claimAhead.Milliseconds())
		}
		switch e.What {
		case Kill, Freeze, Lost, Takeover, Exit:
			in.crash = true
		}
	}
}

// finished: S2.
func (c *checker) finished(s *story) {
	if s.final != "" {
		c.Counts["in the end "+s.final]++
	}
	switch {
	case s.final == scheduled || s.final == claimed:
		c.violate("lost", s.id, "is %s in the end", s.final)
	case s.final == absent && s.accepted && !c.disk:
		c.violate("lost", s.id, "was accepted and is not there in the end")
	case s.final == "" && s.accepted:
		c.violate("lost", s.id, "nobody looked for it in the end")
	}
}

// repeated: S6, for receivers that said yes.
func (c *checker) repeated() {
	index := map[incidentKey]int{}
	for _, e := range c.faults {
		i := Incident{At: e.At, What: e.What, Bound: c.opts.InFlight + unsynced}
		switch e.What {
		case Kill, Freeze, Exit:
		case Lost, Takeover:
			i.Bound = 0
		case Term:
			i.Bound = 0
		default:
			continue
		}
		index[incident(e)] = len(c.Incidents)
		c.Incidents = append(c.Incidents, i)
	}
	for _, id := range slices.Sorted(maps.Keys(c.ids)) {
		s := c.ids[id]
		for i, a := range s.attempts {
			if !a.push || a.said != OK {
				continue
			}
			for _, b := range s.attempts[i+1:] {
				if b.given.Body == a.given.Body && b.at > a.until && !s.retried &&
					!s.renewed(b.given.Body) {
					c.repeat(s, a, b, index)
					break // the next yes counts what follows it
				}
			}
		}
	}
	for _, i := range c.Incidents {
		c.Counts["repeated"] += i.Repeated
		if i.Bound > 0 && i.Repeated > i.Bound {
			c.violate("bound", "", "%d repetitions after %s", i.Repeated, i.What)
		}
	}
	c.Incidents = slices.DeleteFunc(c.Incidents, func(i Incident) bool {
		return i.What == Exit && i.Repeated == 0
	})
}

// incidentKey tells incidents apart: several may happen in one instant.
type incidentKey struct {
	at   int64
	what string
}

func incident(e Event) incidentKey { return incidentKey{e.At, e.What} }

// repeat charges one repetition to the incident that explains it.
func (c *checker) repeat(s *story, a, b attempt, index map[incidentKey]int) {
	drained := false
	for _, e := range c.faults {
		if e.At < a.at || e.At > b.at {
			continue
		}
		switch e.What {
		case Kill, Freeze, Lost, Takeover:
			c.Incidents[index[incident(e)]].Repeated++
			return
		case Exit:
			if !drained {
				c.Incidents[index[incident(e)]].Repeated++
				return
			}
			c.violate("drained", s.id, "repeated across SIGTERM: attempt %d after a yes to %d",
				b.given.Try, a.given.Try)
			return
		case Term:
			drained = true
		}
	}
	c.violate("repeated", s.id, "attempt %d came %s after a yes to attempt %d", b.given.Try,
		time.Duration(b.at-a.until), a.given.Try)
}

// Books is the note of an event with the daemon's books.
const Books = "books"

// books: S10.
func (c *checker) books() {
	var last *Event
	for i := range c.events {
		if c.events[i].What == Books {
			last = &c.events[i]
		}
	}
	if last == nil {
		c.violate("books", "", "nobody looked at them")
		return
	}
	var b map[string]int64
	if err := json.Unmarshal([]byte(last.Note), &b); err != nil {
		c.violate("books", "", "%v: %s", err, last.Note)
		return
	}
	sum := b["pending"] + b["delivered"] + b["cancelled"] + b["expired"] + b["dead"] +
		b["lost_with_disk"] + b["suppressed"]
	if sum != b["accepted"] || b["pending"] != 0 {
		c.violate("books", "", "do not balance in the end: %v", b)
	}
	if c.disk {
		return
	}
	for _, state := range []string{cancelled, expired, dead, delivered} {
		want := c.Counts["in the end "+state]
		if b[state] < want {
			c.violate("books", "", "%d are %s and %d are booked", want, state, b[state])
		}
	}
	if most, least := c.accepts(); b["accepted"] < least || b["accepted"] > most {
		c.violate("books", "", "%d accepted, and between %d and %d were", b["accepted"], least, most)
	}
}

// accepts bounds how many messages were accepted, each generation counted.
func (c *checker) accepts() (most, least int64) {
	for _, s := range c.ids {
		if s.final == absent || s.final == "" {
			continue
		}
		least++
		most++
		for _, o := range s.ops {
			in := o.Input.(call)
			if in.What != Send || !in.Replace || in.answer.Duplicate {
				continue
			}
			// A generation counts when the one before was finished.
			most += b2i(in.answer.Answer == Unknown || in.answer.Gen > 1)
		}
	}
	return most, least
}

// late measures first attempts at receivers.
func (c *checker) late() {
	var all []int64
	for _, s := range c.ids {
		if len(s.attempts) > 0 && s.attempts[0].push {
			a := s.attempts[0]
			all = append(all, max(0, (a.at+c.clock.at(a.at).wall)/int64(time.Millisecond)-a.given.Due))
		}
	}
	if len(all) == 0 {
		return
	}
	slices.Sort(all)
	for name, part := range map[string]int{"p50": 50, "p90": 90, "p99": 99, "max": 100} {
		c.LateMS[name] = all[min(len(all)*part/100, len(all)-1)]
	}
}
