// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/cicadamq/cicada/delay"
)

// History is what happened to the ids of one shard.
type History struct {
	// Margin is how far beyond the time of a crash a push message counts as claimed (R8, R12).
	Margin time.Duration
	// Forgets says that finished ids are forgotten within the history.
	Forgets bool

	clock   int64 // counts calls and answers
	began   int64 // when the process started
	crashed int64 // when the last one ended
	lost    int64 // when a disk was lost, or another owner took the shard
	at      delay.Due
	regs    []*Register
}

// Register is the history of one id.
type Register struct {
	h       *History
	named   bool // the id is the client's
	push    bool // its target is one
	expires bool // a content of it may expire
	mortal  bool // or die of its attempts
	once    bool // or be finished before it is handed over
	ops     []*Op
	seen    int64 // when the last crash was taken in
	life    int64 // the process of the last operation started then
	raced   bool
	under   int // calls under way
}

// Op is one operation under way or done. Its zero value is not used.
type Op struct {
	Call
	reg        *Register
	answer     Answer
	start, end int64
}

// Kind is what was asked for.
type Kind uint8

// The operations. The first ones are calls of clients.
const (
	Submit Kind = iota
	Replace
	Cancel
	Stop
	Reschedule
	Fire
	Get
	Retry  // of a dead letter
	Delete // of a dead letter
	Ack
	Attempt // the daemon hands the message over
	Outcome // a receiver has answered; the daemon may never learn of it
	ghost   // a claim that a crash may have hidden
	crash
	loss
)

var kindNames = [...]string{
	"submit", "replace", "cancel", "stop", "reschedule", "fire", "get", "retry", "delete", "ack",
	"attempt", "outcome", "ghost", "crash", "loss",
}

// Call is what was asked for.
type Call struct {
	Kind    Kind
	Content int       // which message: submit, replace, attempt
	Due     delay.Due // submit, replace, reschedule, attempt; 0 is not known
}

// Result is how an operation was answered.
type Result uint8

// The results.
const (
	Unknown   Result = iota // no answer
	Done                    // it was done: accepted, cancelled, moved, stopped, acked, delivered
	Stopped                 // stop: no further attempt follows
	Duplicate               // submit: the same content was accepted before
	Exists                  // submit: another content has the id
	TooLate                 // in this state
	NotFound                // no such message
	InState                 // get: in this state
	Failed                  // outcome: the receiver has refused the message for good
	NoEffect                // it had none for certain
)

// Answer is the answer to a Call.
type Answer struct {
	Result     Result
	State      delay.State // TooLate, InState
	Due        delay.Due   // of what was moved, or is scheduled
	Generation uint32      // 0 is not known
	Tier       bool        // the change is durable in the bucket
	At         delay.Due   // when, by the guarded clock
}

// Add begins the history of an id. named: it is the client's; push: its target is one.
func (h *History) Add(named, push bool) *Register {
	r := &Register{h: h, named: named, push: push}
	h.regs = append(h.regs, r)
	return r
}

func (h *History) tick() int64 {
	h.clock++
	return h.clock
}

// May notes what can become of a content of the id by itself.
func (r *Register) May(expire, die, once bool) {
	r.expires, r.mortal, r.once = r.expires || expire, r.mortal || die, r.once || once
}

// Opened notes that a process started and knows at now what it may believe.
func (h *History) Opened(now delay.Due) {
	h.began, h.at = h.tick(), max(h.at, now)
}

// Crashed notes that the process ended; lost: with its disk, or because another took the shard.
func (h *History) Crashed(now delay.Due, lost bool) {
	h.crashed, h.at = h.tick(), max(h.at, now)
	if lost {
		h.lost = h.crashed
	}
}

// Begin notes a call.
func (r *Register) Begin(c Call) *Op {
	r.catchUp()
	o := &Op{Call: c, reg: r, start: r.h.tick(), end: math.MaxInt64}
	r.ops = append(r.ops, o)
	r.under++
	r.raced = r.raced || r.under > 1
	return o
}

// End notes the answer. A nil Op is of a call that is not watched.
func (o *Op) End(a Answer) {
	if o == nil {
		return
	}
	o.answer, o.end = a, o.reg.h.tick()
	o.reg.under = max(o.reg.under-1, 0)
	if a.Result == Unknown {
		o.end = math.MaxInt64
	}
}

// Void takes a call back that had no effect for certain, or of which nothing can be said.
func (o *Op) Void() { o.End(Answer{Result: NoEffect}) }

// Handed notes that a message was handed over at now.
func (r *Register) Handed(c Call, now delay.Due) {
	r.catchUp()
	r.raced = r.raced || r.under > 0
	o := &Op{Call: c, reg: r, start: r.h.began, end: r.h.tick()}
	o.answer = Answer{Result: Done, At: now}
	r.ops = append(r.ops, o)
}

// Open notes a call that has no answer of its own.
func (r *Register) Open(c Call) { r.Answered(c, Unknown) }

// Answered notes what a receiver answered to an attempt.
func (r *Register) Answered(c Call, result Result) {
	r.catchUp()
	o := &Op{Call: c, reg: r, start: r.h.tick(), end: math.MaxInt64}
	o.answer = Answer{Result: result}
	r.ops = append(r.ops, o)
}

// Busy reports whether a call is under way.
func (r *Register) Busy() bool {
	r.catchUp()
	return r.under > 0
}

// Shared reports whether another call is under way beside the one that asks.
func (r *Register) Shared() bool { return r.under > 1 }

// catchUp takes in the crashes since the last operation.
func (r *Register) catchUp() {
	h := r.h
	if h.crashed > r.seen && len(r.ops) > 0 {
		if r.life < h.crashed && r.life > 0 {
			r.point(ghost, r.life, h.crashed)
		}
		r.point(crash, h.crashed, h.crashed)
		if h.lost > r.seen {
			r.point(loss, h.crashed, h.crashed)
		}
		r.under = 0
	}
	r.seen = h.crashed
	r.life = h.began
}

func (r *Register) point(k Kind, from, to int64) {
	o := &Op{Call: Call{Kind: k}, reg: r, start: from, end: to}
	o.answer = Answer{Result: Done, At: r.h.at}
	r.ops = append(r.ops, o)
}

// Verdict is what Check found.
type Verdict struct {
	Registers int
	Raced     int       // ids with calls at the same time, or an attempt during one
	Unknown   int       // ids for which the time was not enough
	Broken    *Register // the first id that no order explains; nil is none
}

// maxUnknown bounds the ids whose time runs out; the rest is not looked at then.
const maxUnknown = 20

// Check looks for an order for every id. limit is the time for each of them.
func (h *History) Check(limit time.Duration) (v Verdict) {
	for _, r := range h.regs {
		v.Registers++
		r.catchUp()
		if v.Unknown >= maxUnknown {
			v.Unknown++
			continue
		}
		if r.raced {
			v.Raced++
		}
		switch r.check(limit) {
		case porcupine.Illegal:
			v.Broken = r
			return v
		case porcupine.Unknown:
			v.Unknown++
		case porcupine.Ok:
		}
	}
	return v
}

func (r *Register) check(limit time.Duration) porcupine.CheckResult {
	ops := make([]porcupine.Operation, 0, len(r.ops))
	for _, o := range r.ops {
		if o.answer.Result == NoEffect || o.Kind == Get && o.answer.Result == Unknown {
			continue
		}
		ops = append(ops, porcupine.Operation{
			Input: o.Call, Output: o.answer, Call: o.start, Return: o.end,
		})
	}
	if len(ops) < 2 {
		return porcupine.Ok
	}
	return porcupine.CheckOperationsTimeout(r.model(), ops, limit)
}

func (r *Register) model() porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{State{}} },
		Step: func(s, in, out any) (next []any) {
			call, isCall := in.(Call)
			answer, isAnswer := out.(Answer)
			state, isState := s.(State)
			if !isCall || !isAnswer || !isState {
				return nil
			}
			for _, n := range r.step(state, &call, &answer) {
				next = append(next, n)
			}
			return next
		},
		Hash: func(s any) uint64 {
			state, _ := s.(State)
			return uint64(state.Phase) + uint64(state.Content)<<8 + uint64(state.Due)<<24
		},
	}
	return m.ToModel()
}

// String tells the history, one operation on a line.
func (r *Register) String() string {
	ops := slices.Clone(r.ops)
	slices.SortStableFunc(ops, func(a, b *Op) int { return int(a.start - b.start) })
	var b strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&b, "[%d, %s] %s\n", o.start, until(o.end), o)
	}
	return b.String()
}

func until(end int64) string {
	if end == math.MaxInt64 {
		return "open"
	}
	return fmt.Sprint(end)
}

// String tells one operation and its answer.
func (o *Op) String() string {
	c, a := &o.Call, &o.answer
	return fmt.Sprintf("%s of %d due %d: %s %s due %d generation %d tier %v at %d",
		kindNames[c.Kind], c.Content, c.Due, resultNames[a.Result], a.State, a.Due, a.Generation,
		a.Tier, a.At)
}

var resultNames = [...]string{
	"no answer", "done", "stopped", "duplicate", "exists", "too late", "not found", "is", "failed",
	"without effect",
}
