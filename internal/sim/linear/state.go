// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"slices"

	"github.com/cicadamq/cicada/delay"
)

// Phase is where an id is.
type Phase uint8

// The phases.
const (
	Absent Phase = iota // never accepted, or forgotten
	Scheduled
	Claimed
	Delivered
	Cancelled
	Expired
	Dead
	Buried // a dead letter that was deleted
	Lost   // too much happened since the last durable change before a disk was lost: anything
)

// maxBack bounds the earlier states that are remembered.
const maxBack = 6

// Snap is a state that the loss of a disk may bring back.
type Snap struct {
	Phase      Phase
	Content    int
	Due        delay.Due
	Generation uint32
	Stopped    bool // no attempt may follow
}

// State is the state of one id. It is a value.
type State struct {
	Snap
	Doubt bool // claimed, and perhaps by nobody
	Slack bool // an attempt that was claimed before it was stopped may still arrive
	Ghost bool // it is claimed, and nobody saw the attempt
	Hard  bool // the end was answered: no crash takes it back
	Back  [maxBack]Snap
	Backs uint8
	Over  bool // there were more than Back holds
}

// to is s in another phase, with the way back.
func (s State) to(p Phase) State {
	if s.Phase == p {
		return s
	}
	n := s.push()
	n.Phase, n.Doubt, n.Hard, n.Slack, n.Ghost = p, false, false, false, false
	return n
}

// push remembers the state as one that may come back.
func (s State) push() State {
	if slices.Contains(s.Back[:s.Backs], s.Snap) {
		return s
	}
	if int(s.Backs) == maxBack {
		s.Over = true
		return s
	}
	s.Back[s.Backs] = s.Snap
	s.Backs++
	return s
}

// durable forgets the way back when the change is in the bucket.
func (s State) durable(tier bool) State {
	if tier {
		s.Back, s.Backs, s.Over = [maxBack]Snap{}, 0, false
	}
	return s
}

// scheduled is a new content, or the same one with another due.
func (s State) scheduled(content int, due delay.Due, generation uint32) State {
	n := s.push()
	n.Snap = Snap{Phase: Scheduled, Content: content, Due: due, Generation: generation}
	n.Doubt, n.Hard, n.Slack, n.Ghost = false, false, false, false
	return n
}

func (p Phase) finished() bool { return p >= Delivered && p <= Buried }

// phaseOf translates what an answer says.
func phaseOf(s delay.State) Phase {
	switch s {
	case delay.Claimed:
		return Claimed
	case delay.Delivered:
		return Delivered
	case delay.Cancelled:
		return Cancelled
	case delay.Expired:
		return Expired
	case delay.Dead:
		return Dead
	default:
		return Scheduled
	}
}

// step gives the states in which s may be after an operation; none when it cannot have been
// answered so. What nobody sees may happen before it (N4).
func (r *Register) step(s State, c *Call, a *Answer) (next []State) {
	for _, b := range r.before(s, a) {
		if b.Phase == Lost && c.Kind < ghost {
			next = append(next, b) // whatever
			continue
		}
		next = r.apply(next, b, c, a)
	}
	return next
}

// before are the states that s may have come to by itself.
func (r *Register) before(s State, a *Answer) []State {
	all := []State{s}
	if s.Phase == Scheduled && r.expires {
		all = append(all, s.to(Expired))
	}
	if s.Phase == Scheduled && (r.expires || r.once) && (a.At == 0 || s.Due <= a.At) {
		doubt := s.to(Claimed) // and found to have expired, or finished and not handed over
		doubt.Doubt = true
		all = append(all, doubt)
		if r.once {
			all = append(all, doubt.to(Delivered))
		}
	}
	if s.Phase == Claimed {
		if r.once {
			all = append(all, s.to(Delivered))
		}
		if r.expires {
			all = append(all, s.to(Expired))
		}
		if r.mortal || s.Stopped {
			all = append(all, s.to(Dead))
		}
	}
	if r.h.Forgets {
		for _, x := range all {
			if x.Phase.finished() {
				all = append(all, x.scheduled(0, 0, 0).to(Absent))
			}
		}
	}
	return all
}

func (r *Register) apply(next []State, s State, c *Call, a *Answer) []State {
	if a.Result == Unknown {
		next = append(next, s) // it did not happen
	}
	switch c.Kind {
	case Submit, Replace:
		return submit(next, s, c, a)
	case Cancel, Stop, Reschedule, Fire:
		return r.change(next, s, c, a)
	case Get:
		return r.get(next, s, a)
	case Retry, Delete:
		return retry(next, s, c, a)
	case Ack:
		return r.ack(next, s, a)
	case Attempt:
		return attempt(next, s, c, a)
	case Outcome:
		return outcome(next, s, a)
	case ghost, crash, loss:
		return r.trouble(next, s, c, a)
	}
	return next
}

// submit: one content has the id until it is finished, and its window over (S4).
func submit(next []State, s State, c *Call, a *Answer) []State {
	switch a.Result {
	case Unknown, Done:
		generation := s.Generation + 1
		switch {
		case s.Phase == Absent:
			generation = 1
		case c.Kind == Replace && s.Content != c.Content && s.Phase != Claimed:
		default:
			return next
		}
		if a.Generation != 0 && a.Generation != generation {
			return next
		}
		due := c.Due
		if a.Due != 0 {
			due = a.Due
		}
		return append(next, s.scheduled(c.Content, due, generation).durable(a.Tier))
	case Duplicate:
		if s.Phase != Absent && s.Content == c.Content {
			return append(next, s.durable(a.Tier && s.Phase == Scheduled))
		}
	case Exists:
		if s.Phase != Absent && s.Content != c.Content {
			return append(next, s)
		}
	case TooLate:
		if s.Phase == Claimed {
			return append(next, s)
		}
	case Stopped, NotFound, InState, Failed, NoEffect:
	}
	return next
}

// change: exact while the message is unclaimed, TOO_LATE from then on (S5).
func (r *Register) change(next []State, s State, c *Call, a *Answer) []State {
	switch a.Result {
	case Unknown, Done:
		return append(next, changed(s, c, a)...)
	case Stopped:
		if s.Phase == Claimed {
			return append(next, stopped(s))
		}
	case TooLate:
		p := phaseOf(a.State)
		if s.Phase == p || s.Phase == Buried && (p == Dead || p == Expired) ||
			r.untraced(s) && (p == Delivered || p == Claimed) {
			s.Hard = s.Hard || p.finished() // synced before the answer
			return append(next, s)
		}
	case NotFound:
		if s.Phase == Absent || s.Phase == Buried {
			return append(next, s)
		}
	case Duplicate, Exists, InState, Failed, NoEffect:
	}
	return next
}

// untraced reports whether the id is one that the server made and knows nothing of: it takes such
// a message for delivered, or for claimed when a disk was lost (R14, R12).
func (r *Register) untraced(s State) bool { return s.Phase == Absent && !r.named }

func stopped(s State) State {
	n := s.push()
	n.Stopped, n.Slack = true, true
	return n
}

// changed is s after a change that was done, or may have been.
func changed(s State, c *Call, a *Answer) []State {
	switch {
	case c.Kind <= Stop && s.Phase == Cancelled && a.Result == Done:
		return []State{s.durable(a.Tier)}
	case c.Kind == Stop && s.Phase == Claimed && a.Result == Unknown:
		return []State{stopped(s)}
	case s.Phase != Scheduled:
		return nil
	case c.Kind <= Stop:
		n := s.to(Cancelled).durable(a.Tier)
		n.Hard = a.Result == Done
		return []State{n}
	case a.Result == Done:
		return []State{s.scheduled(s.Content, a.Due, s.Generation).durable(a.Tier)}
	default: // a fire says nothing of the due that it would have given
		return []State{s.scheduled(s.Content, c.Due, s.Generation)}
	}
}

func (r *Register) get(next []State, s State, a *Answer) []State {
	p := phaseOf(a.State)
	switch {
	case a.Result == NotFound:
		if s.Phase == Absent || s.Phase == Buried {
			next = append(next, s)
		}
	case s.Phase == p && (p != Scheduled || a.Due == s.Due || s.Due == 0),
		p == Scheduled && s.Phase == Claimed && s.Doubt,
		s.Phase == Buried && (p == Dead || p == Expired),
		r.untraced(s) && p == Delivered:
		if a.Generation == 0 || s.Generation == 0 || a.Generation == s.Generation {
			next = append(next, s)
		}
	}
	return next
}

func retry(next []State, s State, c *Call, a *Answer) []State {
	dead := s.Phase == Dead || s.Phase == Expired
	switch {
	case a.Result == NotFound && s.Phase != Dead:
		return append(next, s)
	case !dead || a.Result == NotFound:
		return next
	case c.Kind == Delete:
		return append(next, s.to(Buried))
	default:
		return append(next, s.scheduled(s.Content, a.Due, s.Generation))
	}
}

// ack: what was acked never comes back (S6).
func (r *Register) ack(next []State, s State, a *Answer) []State {
	if s.Phase == Absent && r.h.Forgets {
		return append(next, s)
	}
	if s.Phase != Claimed && s.Phase != Delivered {
		return next
	}
	n := s.to(Delivered)
	n.Hard = n.Hard || a.Result == Done
	return append(next, n)
}

// attempt: of what is not finished, when it is due, and not of what was stopped.
func attempt(next []State, s State, c *Call, a *Answer) []State {
	if s.Phase != Scheduled && s.Phase != Claimed || s.Content != c.Content || s.Stopped && !s.Slack ||
		c.Due > a.At || s.Due != 0 && s.Due != c.Due {
		return next
	}
	n := s.to(Claimed)
	n.Doubt, n.Slack = false, false
	return append(next, n)
}

// outcome: the daemon may hear of it or not.
func outcome(next []State, s State, a *Answer) []State {
	next = append(next, s)
	switch {
	case s.Phase != Claimed:
	case a.Result == Failed:
		next = append(next, s.to(Dead))
	default:
		next = append(next, s.to(Delivered))
	}
	return next
}

// trouble: what a crash and the loss of a disk may do (N2, N3).
func (r *Register) trouble(next []State, s State, c *Call, a *Answer) []State {
	claimed := func(s State, margin delay.Due) {
		if s.Phase == Scheduled && s.Due <= margin {
			n := s.to(Claimed)
			n.Doubt, n.Ghost = true, c.Kind == ghost
			next = append(next, n)
		}
	}
	late := a.At.Add(r.h.Margin)
	switch {
	case c.Kind == ghost:
		next = append(next, s)
		claimed(s, a.At)
	case c.Kind == crash:
		if s.Ghost { // neither its lease nor what was pushed was seen by anybody
			next = append(next, s.to(Scheduled))
		}
		s.Slack, s.Ghost = false, false
		s.Doubt = s.Doubt || s.Phase == Claimed // nobody wrote the attempt down
		next = append(next, s)
		if r.push {
			claimed(s, late)
		}
		if !s.Hard && (s.Phase == Delivered || s.Phase == Dead || s.Phase == Expired) {
			back := s.to(Claimed)
			back.Doubt = true
			next = append(next, back)
		}
		if s.Phase == Expired && !s.Hard {
			next = append(next, s.to(Scheduled))
		}
	case s.Over:
		return append(next, State{Snap: Snap{Phase: Lost}})
	default:
		for _, snap := range append([]Snap{s.Snap}, s.Back[:s.Backs]...) {
			n := State{Snap: snap}
			next = append(next, n)
			claimed(n, late)
			if snap.Phase == Claimed {
				n.Doubt = true
				next = append(next, n)
				n.Phase = Scheduled // nobody knows any more
				next = append(next, n)
			}
		}
	}
	return next
}
