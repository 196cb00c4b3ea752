// SPDX-License-Identifier: Apache-2.0

package history

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// The states of a message, as the API names them.
const (
	absent    = "not_found"
	scheduled = "scheduled"
	claimed   = "claimed"
	delivered = "delivered"
	cancelled = "cancelled"
	expired   = "expired"
	dead      = "dead"
)

// anyDue is the due of a message whose relative time was resolved in an answer that got lost.
const anyDue = -1

// message is what one id names. It is comparable.
type message struct {
	state string
	body  string
	due   int64
	gen   int64
	try   int64 // attempts that were seen
	ttl   int64
	max   int64
	moved bool // its due is no longer that of the send
	given bool // back, by a nack
	blind bool // called claimed by an answer; no attempt was seen
	acked int64
	then  string // what an attempt at a receiver makes of it once that is recorded
	ends  bool   // stopped while it was leased: dead unless its last attempt succeeds
}

// past is what the message was before, back to what a lost disk cannot take.
type past struct {
	was    message
	before *past
}

// version is a state of the model. Its past is interned, so that versions can be compared.
type version struct {
	message
	past *past
}

// call is the input of the model: what was asked, and what is known about the moment.
type call struct {
	Event
	answer  Event
	push    bool
	unseen  bool  // an unanswered pull may have claimed it
	horizon int64 // what is due until then may have been claimed before a crash; ms
	crash   bool  // a push was told something before an incident
	lost    bool  // an earlier disk may have known the lease
	repeat  bool  // the receipt was used before
	late    bool  // the lease may have run out
	now     int64 // the latest instant that the daemon may believe, ms
}

// lifeOf is the life of one message as a model for porcupine. disk says that disks get lost.
func lifeOf(disk bool) porcupine.Model {
	m := &model{disk: disk, pasts: map[past]*past{}}
	model := porcupine.NondeterministicModel{
		Init: func() []any { return []any{version{message: message{state: absent}}} },
		Step: func(state, input, _ any) []any { return m.step(state.(version), input.(call)) },
		DescribeOperation: func(input, _ any) string {
			c := input.(call)
			return fmt.Sprint(c.What, " ", c.answer.Answer)
		},
	}
	return model.ToModel()
}

type model struct {
	disk  bool
	pasts map[past]*past
}

// step is every state that the message may be in after the call.
func (m *model) step(v version, c call) []any {
	var out []any
	add := func(next message, floor bool) {
		n := version{message: next, past: v.past}
		switch {
		case !m.disk:
			n.past = nil
		case floor && c.What == Send: // what became of it since may still be lost
			n.past = m.trim(v.past, next)
			if next != v.message && v.state != absent && v.body == next.body {
				n.past = m.intern(past{v.message, n.past})
			}
		case floor:
			n.past = nil
		case next != v.message:
			n.past = m.intern(past{v.message, v.past})
		}
		if !slices.Contains(out, any(n)) {
			out = append(out, n)
		}
	}
	if c.What == Lost || c.What == Takeover {
		out = append(out, v)
		for p := v.past; p != nil; p = p.before {
			out = append(out, version{message: p.was, past: p.before})
		}
		return out
	}
	for _, was := range aged(v.message, c) {
		for _, next := range outcomes(was, c) {
			add(next, c.answer.Tier)
		}
	}
	return out
}

// trim leaves out of a past what was not yet this message.
func (m *model) trim(p *past, now message) *past {
	if p == nil {
		return nil
	}
	before := m.trim(p.before, now)
	if p.was.state == absent || p.was.body != now.body || p.was.gen != now.gen {
		return before
	}
	return m.intern(past{p.was, before})
}

func (m *model) intern(p past) *past {
	if m.pasts[p] == nil {
		m.pasts[p] = &p
	}
	return m.pasts[p]
}

// aged is what time alone may have made of a message.
func aged(v message, c call) []message {
	out := []message{v}
	open := v.state == scheduled || v.state == claimed
	if open && v.ttl > 0 && (v.due == anyDue || c.now >= v.due+v.ttl) {
		next := v
		next.state = expired
		out = append(out, next)
	}
	if open && v.then != "" {
		next := v
		next.state, next.then = v.then, ""
		out = append(out, next)
	}
	if open && v.ends {
		next := v
		next.state, next.ends = dead, false
		out = append(out, next)
	}
	if open && v.max > 0 && (v.try >= v.max || c.unseen || v.blind) {
		next := v
		next.state = dead
		out = append(out, next)
	}
	return out
}

// outcomes is what may follow from a state and an answer.
func outcomes(v message, c call) []message {
	switch c.What {
	case Send:
		return sent(v, c)
	case Cancel, Stop:
		return cancels(v, c)
	case Patch, Fire:
		return moves(v, c)
	case Get:
		return got(v, c)
	case Retry:
		return retried(v, c)
	case Attempt:
		return attempted(v, c)
	case Ack, Nack, Extend:
		return settled(v, c)
	}
	return nil
}

func finished(v message) bool {
	return v.state != absent && v.state != scheduled && v.state != claimed
}

// hidden reports whether a message that looks scheduled may be claimed, by a pull whose answer got
// lost or because a crash leaves it open (R8).
func hidden(v message, c call) bool {
	return v.state == scheduled && (c.unseen || v.due == anyDue && c.horizon > 0 ||
		v.due <= c.horizon)
}

// blindly is the message once an answer said that it is claimed.
func blindly(v message) message {
	if v.state == scheduled {
		v.state, v.blind = claimed, true
	}
	return v
}

func sent(v message, c call) []message {
	fresh := message{
		state: scheduled, body: c.Body, due: c.Due, gen: 1, ttl: c.TTL, max: c.Event.Max,
	}
	if c.Delay > 0 {
		fresh.due = anyDue
	}
	if c.answer.Answer == OK {
		fresh.due = c.answer.Due
	}
	again := fresh
	again.gen = v.gen + 1
	same := v.state != absent && v.body == c.Body
	var out []message
	switch c.answer.Answer {
	case Refused:
		return []message{v}
	case Unknown:
		out = append(out, v)
		if v.state == absent {
			out = append(out, fresh)
		} else if c.Replace && !same && v.state != claimed {
			out = append(out, again)
		}
	case OK:
		switch {
		case c.answer.Duplicate:
			if same && c.answer.Gen == v.gen && fits(v, c, c.answer.State) {
				out = append(out, seen(v, c.answer.State))
			}
		case v.state == absent && c.answer.Gen == 1:
			out = append(out, fresh)
		case v.state != absent && c.Replace && !same && v.state != claimed && c.answer.Gen == v.gen+1:
			out = append(out, again)
		}
	case "ALREADY_EXISTS":
		// A bucket knows the due that a message has, not the one that it was sent with: after the
		// loss of a disk the first request of one that was moved looks like another.
		forgotten := c.lost && v.moved
		if v.state != absent && (!same || forgotten) && !c.Replace {
			out = append(out, v)
		}
	case "TOO_LATE":
		if c.Replace && (v.state == claimed || hidden(v, c)) {
			out = append(out, blindly(v))
		}
	}
	return out
}

func cancels(v message, c call) []message {
	gone, stopped := v, v
	gone.state, stopped.ends = cancelled, stopped.state != dead
	if v.state == scheduled {
		stopped = blindly(stopped)
	}
	mayCancel := v.state == scheduled || v.state == cancelled
	mayStop := c.What == Stop && (v.state == claimed || v.state == dead || hidden(v, c))
	var out []message
	switch c.answer.Answer {
	case Refused:
		return []message{v}
	case Unknown:
		out = append(out, v)
		if mayCancel {
			out = append(out, gone)
		}
		if mayStop {
			out = append(out, stopped)
		}
	case "CANCELLED":
		if mayCancel {
			out = append(out, gone)
		}
	case "STOPPED":
		if mayStop {
			out = append(out, stopped)
		}
	case "TOO_LATE":
		if v.state == claimed && c.What == Cancel || v.state == claimed && (c.unseen || v.blind) ||
			finished(v) && v.state != cancelled || hidden(v, c) {
			out = append(out, blindly(v))
		}
	case "NOT_FOUND":
		if v.state == absent {
			out = append(out, v)
		}
	}
	return out
}

func moves(v message, c call) []message {
	moved := v
	moved.moved = true
	switch {
	case c.answer.Answer == "RESCHEDULED" || c.answer.Answer == "FIRED":
		moved.due = c.answer.Due
	case c.What == Patch:
		moved.due = c.Due
	default:
		moved.due = anyDue
	}
	switch c.answer.Answer {
	case Refused:
		return []message{v}
	case Unknown:
		if v.state == scheduled {
			return []message{v, moved}
		}
		return []message{v}
	case "RESCHEDULED", "FIRED":
		if v.state == scheduled {
			return []message{moved}
		}
	case "TOO_LATE":
		if v.state == claimed || finished(v) || hidden(v, c) {
			return []message{blindly(v)}
		}
	case "NOT_FOUND":
		if v.state == absent {
			return []message{v}
		}
	}
	return nil
}

// fits reports whether a message in this state may be called by that name.
func fits(v message, c call, name string) bool {
	switch name {
	case v.state:
		return true
	case claimed: // or it expires just now
		return hidden(v, c) || v.state == scheduled && v.ttl > 0 && c.now >= v.due+v.ttl
	case dead:
		return v.ends
	case scheduled: // nobody knows whether it is claimed
		return v.state == claimed && (v.blind || c.push)
	}
	return false
}

// seen is the message once it was called by a name.
func seen(v message, name string) message {
	if name == claimed {
		return blindly(v)
	}
	return v
}

func got(v message, c call) []message {
	switch c.answer.Answer {
	case OK:
		if fits(v, c, c.answer.State) && (c.answer.Gen == 0 || c.answer.Gen == v.gen) {
			return []message{seen(v, c.answer.State)}
		}
		return nil
	case "NOT_FOUND":
		if v.state == absent {
			return []message{v}
		}
		return nil
	}
	return []message{v}
}

func retried(v message, c call) []message {
	next := v
	next.state, next.due, next.try, next.given, next.blind = scheduled, anyDue, 0, false, false
	may := v.state == dead || v.state == expired
	switch c.answer.Answer {
	case OK:
		if may {
			return []message{next}
		}
		return nil
	case Unknown:
		if may {
			return []message{v, next}
		}
	}
	return []message{v}
}

// attempted: a pull brought it, or a receiver was asked and gave the answer's state.
func attempted(v message, c call) []message {
	open := v.state == scheduled || v.state == claimed
	if c.push && c.crash && (v.state == delivered || v.state == dead) {
		open = true // its outcome was not on the disk yet (S6)
	}
	if !open || v.ends || v.body != c.Body || v.due != c.Due && v.due != anyDue {
		return nil
	}
	if !c.push && c.Try <= v.try {
		return nil
	}
	next := v
	next.state, next.due, next.try, next.given, next.blind = claimed, c.Due, c.Try, false, false
	next.then = ""
	if c.push && v.state == delivered {
		return []message{v} // once yes, nothing takes it back
	}
	switch c.answer.Answer {
	case OK, Unknown:
		next.then = delivered
	case Refused:
		next.then = dead
	}
	return []message{next}
}

func settled(v message, c call) []message {
	mine := v.state == claimed && v.try == c.Try && !v.given
	done := v
	switch c.What {
	case Ack:
		done.state, done.acked = delivered, c.Try
	case Nack:
		done.given = true
	}
	switch c.answer.Answer {
	case Refused:
		return []message{v}
	case Unknown:
		if mine {
			return []message{v, done}
		}
		return []message{v}
	case "ACKED":
		// What a lost disk knew of is taken for delivered when its receipt comes back.
		if !mine && (v.state == delivered && (v.acked == c.Try || c.lost) || c.repeat ||
			v.state == absent && c.lost) {
			return []message{v}
		}
		return maybe(mine, done)
	case "NACKED", "EXTENDED":
		if !mine && c.repeat {
			return []message{v}
		}
		return maybe(mine, done)
	case "SUPERSEDED", "NOT_FOUND":
		if !mine || c.late || c.unseen {
			return []message{v}
		}
	}
	return nil
}

func maybe(is bool, m message) []message {
	if is {
		return []message{m}
	}
	return nil
}

// String is for people.
func (v message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s due %d generation %d attempts %d", v.state, v.due, v.gen, v.try)
	if v.blind {
		b.WriteString(" (claimed by somebody)")
	}
	return b.String()
}
