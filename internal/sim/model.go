// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/swarm"
)

// answer is what is known of something that was asked for: a crash leaves it at maybe.
type answer uint8

const (
	no answer = iota
	maybe
	yes
)

// message is one content that a client sent: what it was told of it, and the truth of the
// receivers. Another content under the same id is another message.
type message struct {
	no    int
	draft delay.Draft
	id    delay.ID // "" until an answer or a delivery names it
	named bool     // the id is the client's
	aside bool     // its id names another message, or may
	key   delay.Key

	accepted answer
	refused  bool // answered with an error that promises that nothing was stored
	tier     bool // answered as durable in the bucket
	out      int  // requests about it under way
	moving   int  // of these, those that change its due
	mixed    bool // several of those overlapped

	dues  []delay.Due // one of them holds
	every []delay.Due // that ever held
	loose bool        // a due is known only roughly
	moved bool

	cancelled, stopped, replaced answer
	cancelTier                   bool
	cancels                      int    // cancels under way
	deleted                      answer // from the dead letters

	attempts int
	lastTurn uint64 // when the last attempt was learnt
	ackTurn  uint64 // when the ack was answered
	ackLife  int    // and by which incarnation
	slack    int    // attempts that were claimed before STOPPED was answered
	last     uint32 // number of the last attempt
	lastBoot int
	flying   bool // with a sink
	taken    int
	told     bool // the sink reported it delivered, in this life of the disk
	toldAt   delay.Due
	toldBoot int
	refusals int // attempts that the receiver refused for good
	acked    answer
	acks     int       // under way
	leased   delay.Due // a lease that is known runs until then

	done      bool // a receiver has it for good
	final     bool // finished durably on this disk
	finalTier bool // and in the bucket
	forgiven  bool // lost with a disk, as its durability allowed
	revived   bool // may be attempted again: a disk was lost, or it rose from the dead
	retried   bool // rose from the dead
}

// model is what the clients and the receivers know.
type model struct {
	all      []*message
	named    map[delay.ID]*message // the newest content of each client's id
	unsure   int                   // requests whose outcome a crash left open
	losses   int
	retried  int
	reserved []delay.ID
	pauses   []delay.Target // every target that was ever paused
}

func (m *model) init() { m.named = make(map[delay.ID]*message) }

// find is the message that a body names.
func (m *model) find(body []byte) *message {
	if n, ok := swarm.Number(body); ok && n < len(m.all) {
		return m.all[n]
	}
	return nil
}

// crashed forgets what lived in the process.
func (m *model) crashed() {
	for _, msg := range m.all {
		if msg.out > 0 {
			m.unsure += msg.out
		}
		if msg.moving > 0 {
			msg.loose = true
		}
		msg.out, msg.moving, msg.flying, msg.cancels, msg.acks = 0, 0, false, 0, 0
		msg.mixed = false
	}
}

// paused remembers a target to be resumed in the end.
func (m *model) paused(t delay.Target) {
	if !slices.Contains(m.pauses, t) {
		m.pauses = append(m.pauses, t)
	}
}

// may adds a due that could hold from now on.
func (m *message) may(due delay.Due) {
	if !slices.Contains(m.dues, due) {
		m.dues = append(m.dues, due)
	}
	if !slices.Contains(m.every, due) {
		m.every = append(m.every, due)
	}
}

// earliest is the least due that could hold.
func (m *message) earliest() delay.Due { return slices.Min(m.dues) }

// untouched reports whether nothing was ever asked or done about m but to accept it.
func (m *message) untouched() bool {
	return m.attempts == 0 && !m.moved && m.moving == 0 && m.cancelled == no && m.stopped == no &&
		m.replaced == no && m.deleted == no && !m.done && !m.revived && !m.forgiven
}

// owed reports whether the message must be delivered or end in a way somebody asked for.
func (m *message) owed() bool {
	return m.accepted == yes && !m.forgiven && !m.done && m.replaced == no
}

// lose notes that a disk was lost or set aside: uploaded is the last seq that the bucket has for
// sure.
func (m *model) lose(uploaded delay.Seq) {
	m.losses++
	for _, msg := range m.all {
		msg.lost(uploaded)
	}
}

// lost is what the loss of a disk means for m: uploaded is the last seq that the bucket holds for
// sure (S3).
func (m *message) lost(uploaded delay.Seq) {
	kept := m.tier || !m.moved && m.draft.Cold && m.key.Seq > 0 && m.key.Seq <= uploaded &&
		m.replaced == no && m.cancelled == no // what is cancelled before its upload is not uploaded
	if !kept {
		m.forgiven = true
	}
	undo := func(a *answer, durable bool) {
		if *a == yes && !durable {
			*a = maybe
		}
	}
	undo(&m.cancelled, m.cancelTier)
	undo(&m.stopped, false)
	undo(&m.replaced, false)
	if m.moved && (!m.tier || m.loose) {
		m.dues, m.loose = slices.Clone(m.every), true
	}
	if !m.finalTier {
		m.final, m.told, m.revived = false, false, true
		if m.acked != no {
			m.acked = maybe
		}
	}
	m.leased, m.flying = 0, false
}
