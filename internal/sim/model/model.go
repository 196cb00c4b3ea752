// SPDX-License-Identifier: Apache-2.0

// Package model is what the clients of a simulated shard were told, and what its receivers have.
// It is confined to one goroutine.
package model

import (
	"slices"
	"strings"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/internal/sim/swarm"
	"github.com/cicadamq/cicada/scheduler"
)

// Answer is what is known of something that was asked for: a crash leaves it at maybe.
type Answer uint8

// The answers.
const (
	No Answer = iota
	Maybe
	Yes
)

// Message is one content that a client sent: what it was told of it, and the truth of the
// receivers. Another content under the same id is another message.
type Message struct {
	No     int
	Draft  delay.Draft
	ID     delay.ID // "" until an answer or a delivery names it
	Named  bool     // the id is the client's
	Aside  bool     // its id names another message, or may
	Key    delay.Key
	Racing bool // only the order of its calls is checked: its id is raced for
	Reg    *linear.Register

	Accepted Answer
	Refused  bool // answered with an error that promises that nothing was stored
	Tier     bool // answered as durable in the bucket
	Out      int  // requests about it under way
	Moving   int  // of these, those that change its due
	Mixed    bool // several of those overlapped

	Dues  []delay.Due // one of them holds
	Every []delay.Due // that ever held
	Loose bool        // a due is known only roughly
	Moved bool

	Cancelled, Stopped, Replaced Answer
	CancelTier                   bool
	Cancels                      int    // cancels under way
	Deleted                      Answer // from the dead letters

	Attempts int
	LastTurn uint64 // when the last attempt was learnt
	AckTurn  uint64 // when the ack was answered
	AckLife  int    // and by which incarnation
	Slack    int    // attempts that were claimed before STOPPED was answered
	Last     uint32 // number of the last attempt
	LastBoot int
	Flying   bool // with a sink
	Taken    int
	Told     bool // the sink reported it delivered, in this life of the disk
	ToldAt   delay.Due
	ToldBoot int
	Excuses  int // incidents and lost replies that may repeat it
	Refusals int // attempts that the receiver refused for good
	Acked    Answer
	Acks     int       // under way
	Leased   delay.Due // a lease that is known runs until then

	Done      bool // a receiver has it for good
	Final     bool // finished durably on this disk
	FinalTier bool // and in the bucket
	Forgiven  bool // lost with a disk, as its durability allowed
	Revived   bool // may be attempted again: a disk was lost, or it rose from the dead
	Retried   bool // rose from the dead
}

// Model is what the clients and the receivers know.
type Model struct {
	All      []*Message
	Named    map[delay.ID]*Message // the newest content of each client's id
	Unsure   int                   // requests whose outcome a crash left open
	Losses   int
	Retried  int
	Reserved []delay.ID
	Pauses   []delay.Target // every target that was ever paused

	Firings map[delay.ID]*Message // of schedules, that a receiver was given
	Recurs  bool                  // there are schedules: nobody was told of their firings
}

// Init makes m empty.
func (m *Model) Init() {
	m.Named, m.Firings = make(map[delay.ID]*Message), make(map[delay.ID]*Message)
}

// Find is the message that a body names, or the firing of a schedule that has this id.
func (m *Model) Find(id delay.ID, body []byte) *Message {
	if n, ok := swarm.Number(body); ok && n < len(m.All) {
		return m.All[n]
	}
	return m.Firings[id]
}

// Crashed forgets what lived in the process.
func (m *Model) Crashed() {
	for _, msg := range m.All {
		if msg.Out > 0 {
			m.Unsure += msg.Out
		}
		if msg.Moving > 0 {
			msg.Loose = true
		}
		msg.Out, msg.Moving, msg.Flying, msg.Cancels, msg.Acks = 0, 0, false, 0, 0
		msg.Mixed = false
	}
}

// Paused remembers a target to be resumed in the end.
func (m *Model) Paused(t delay.Target) {
	if !slices.Contains(m.Pauses, t) {
		m.Pauses = append(m.Pauses, t)
	}
}

// May adds a due that could hold from now on.
func (m *Message) May(due delay.Due) {
	if !slices.Contains(m.Dues, due) {
		m.Dues = append(m.Dues, due)
	}
	if !slices.Contains(m.Every, due) {
		m.Every = append(m.Every, due)
	}
}

// Earliest is the least due that could hold.
func (m *Message) Earliest() delay.Due { return slices.Min(m.Dues) }

// Untouched reports whether nothing was ever asked or done about m but to accept it.
func (m *Message) Untouched() bool {
	return m.Attempts == 0 && !m.Moved && m.Moving == 0 && m.Cancelled == No && m.Stopped == No &&
		m.Replaced == No && m.Deleted == No && !m.Done && !m.Revived && !m.Forgiven
}

// Owed reports whether the message must be delivered or end in a way somebody asked for.
func (m *Message) Owed() bool {
	return m.Accepted == Yes && !m.Forgiven && !m.Done && m.Replaced == No
}

// Lose notes that a disk was lost or set aside: uploaded is the last seq that the bucket has for
// sure.
func (m *Model) Lose(uploaded delay.Seq) {
	m.Losses++
	for _, msg := range m.All {
		msg.Lost(uploaded)
	}
}

// Lost is what the loss of a disk means for m: uploaded is the last seq that the bucket holds for
// sure (S3).
func (m *Message) Lost(uploaded delay.Seq) {
	kept := m.Tier || !m.Moved && m.Draft.Cold && m.Key.Seq > 0 && m.Key.Seq <= uploaded &&
		m.Replaced == No && m.Cancelled == No // what is cancelled before its upload is not uploaded
	if !kept {
		m.Forgiven = true
	}
	undo := func(a *Answer, durable bool) {
		if *a == Yes && !durable {
			*a = Maybe
		}
	}
	undo(&m.Cancelled, m.CancelTier)
	undo(&m.Stopped, false)
	undo(&m.Replaced, false)
	if m.Moved && (!m.Tier || m.Loose) {
		m.Dues, m.Loose = slices.Clone(m.Every), true
	}
	if !m.FinalTier {
		m.Final, m.Told, m.Revived = false, false, true
		if m.Acked != No {
			m.Acked = Maybe
		}
	}
	m.Leased, m.Flying = 0, false
}

// Move is a request that gives a message another due, under way.
type Move struct {
	before    []delay.Due
	Cancelled bool // it had been answered before
}

// BeginMove notes that the due may become due from now on.
func (m *Message) BeginMove(due delay.Due) Move {
	mv := Move{before: slices.Clone(m.Dues), Cancelled: m.Cancelled == Yes}
	m.Moving++
	m.Mixed = m.Mixed || m.Moving > 1
	m.Moved = true
	m.May(due)
	return mv
}

// EndMove notes the answer: the due that holds now, or none when it was refused for sure.
func (m *Message) EndMove(mv Move, due delay.Due, refused bool) {
	m.Moving--
	switch {
	case refused && !m.Mixed:
		m.Dues = mv.before
	case refused:
	case !m.Mixed:
		m.May(due)
		m.Dues, m.Loose = []delay.Due{due}, false
	default:
		m.May(due)
		m.Loose = true
	}
	m.Mixed = m.Mixed && m.Moving > 0
}

// Expires reports whether m may expire.
func (m *Message) Expires() bool { return m.Draft.TTL > 0 || m.Draft.NotAfter > 0 }

// MayDie reports whether something can have made m a dead letter. An attempt at a pull message may
// have died with the poll that leased it.
func (m *Message) MayDie(most uint32) bool {
	tried := m.Attempts > 0 || m.Draft.Target.IsPull()
	return m.Refusals > 0 || m.Stopped > No ||
		tried && m.Draft.MaxAttempts+most > 0
}

// Joined is how many messages replaced another one that was pending: they count once.
func (m *Model) Joined() int {
	n := 0
	for _, msg := range m.All {
		if msg.Replaced > No {
			n++
		}
	}
	return n
}

// Passes reports whether a message that was only accepted passes a filter but for its target.
func (m *Message) Passes(f *scheduler.Filter) bool {
	due := m.Earliest()
	return len(m.Dues) == 1 && due >= f.DueFrom && (f.DueTo == 0 || due < f.DueTo) &&
		(f.IDPrefix == "" || m.Named && strings.HasPrefix(string(m.ID), f.IDPrefix))
}
