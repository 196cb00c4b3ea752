// SPDX-License-Identifier: Apache-2.0

package model

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/linear"
	"github.com/cicadamq/cicada/scheduler"
)

// Looked tells what is wrong with what a look at an accepted message found, "" when nothing is.
func (m *Message) Looked(info *scheduler.Info, err error) string {
	switch {
	case errors.Is(err, delay.ErrNotFound):
		return "accepted, and not found"
	case err != nil:
	case info.State == delay.Cancelled && m.Cancelled == No:
		return "it is cancelled, and nobody asked for that"
	case info.State == delay.Delivered && !m.Done && m.Acked == No && m.Cancelled == No &&
		m.Draft.Mode != delay.AtMostOnce && !m.Revived:
		return "it is called delivered, and no receiver has it"
	}
	return ""
}

// End is what the last look at a message found.
type End struct {
	Info        scheduler.Info
	Err         error
	Known       bool // what was found is this message, not another of its id
	Forgets     bool // finished ids are forgotten within the history
	MaxAttempts uint32
}

// Ended tells what is wrong with the end of a message, "" when nothing is.
func (m *Message) Ended(e *End) string {
	state := e.Info.State
	switch {
	case e.Err != nil && !errors.Is(e.Err, delay.ErrNotFound):
		return fmt.Sprintf("get: %v", e.Err)
	case e.Known && state == delay.Cancelled && m.Attempts > 0 && m.Cancelled > No && !m.Revived &&
		!m.Retried && m.Replaced == No:
		return fmt.Sprintf("cancelled in spite of %d attempts", m.Attempts)
	case m.Cancelled == Yes || !m.Owed() || m.Draft.Mode == delay.AtMostOnce:
		return ""
	}
	switch {
	case e.Err != nil && (e.Forgets && (m.Cancelled == Maybe || m.Acked == Maybe || m.Expires() ||
		m.MayDie(e.MaxAttempts)) || m.Deleted > No):
	case e.Err != nil:
		return "lost: accepted, and not found"
	case state == delay.Cancelled && m.Cancelled == Maybe:
	case state == delay.Expired && m.Expires():
	case state == delay.Dead && m.MayDie(e.MaxAttempts):
	case state == delay.Delivered && (m.Acked == Maybe || m.Cancelled == Maybe || m.Stopped > No ||
		m.Deleted > No):
	case state == delay.Delivered && e.Forgets && (m.Expires() || m.MayDie(e.MaxAttempts)):
	default:
		return fmt.Sprintf("lost: it is %s (%s), taken %d times", state, e.Info.Reason, m.Taken)
	}
	return ""
}

// Same reports whether what is delivered is what was sent.
func (m *Message) Same(d *broker.Delivery) bool {
	return string(m.Draft.Body) == string(d.Body) && m.Draft.Target == d.Target &&
		m.Draft.RoutingKey == d.RoutingKey && slices.Equal(m.Draft.Headers, d.Headers)
}

// Live reports whether the message must be somewhere: accepted, and nothing was done or asked that
// could have ended it.
func (m *Message) Live(maxAttempts uint32) bool {
	return m.Owed() && !m.Racing && !m.Aside && m.ID != "" && m.Out == 0 && m.Cancelled == No &&
		m.Stopped == No && m.Acked == No && !m.Told && m.Deleted == No && !m.Expires() &&
		!m.MayDie(maxAttempts) && m.Draft.Mode != delay.AtMostOnce
}

// Returned tells what the bucket knew of the end of a message that is pending there, "" when it
// need not have known any.
func (m *Message) Returned() string {
	switch {
	case m.FinalTier && !m.Retried:
		return "its end was in the bucket"
	case m.Cancelled == Yes && m.CancelTier && m.Moving == 0:
		return "its cancel was durable in the bucket"
	}
	return ""
}

// Booked compares the books with what clients were told, as far as no crash has left a request
// open; "" when they agree.
func (m *Model) Booked(b delay.Books) string {
	least, most := 0, 0
	for _, msg := range m.All {
		if msg.Accepted == Yes {
			least++
		}
		if msg.Accepted > No {
			most++
		}
	}
	if int(b.Accepted) < least-m.Joined() || int(b.Accepted) > most && !m.Recurs {
		return fmt.Sprintf("books say %d accepted, clients were told of %d to %d", b.Accepted, least,
			most)
	}
	return ""
}

// Fired makes the message of a firing: nobody sent it, so it begins when a receiver gets it first.
func (m *Model) Fired(d *broker.Delivery) *Message {
	msg := &Message{
		No: len(m.All), ID: delay.ID(string(d.ID)), Named: true, Aside: true, Accepted: Yes,
		LastBoot: -1, Reg: new(linear.History).Add(true, true),
	}
	m.All = append(m.All, msg)
	m.Firings[msg.ID] = msg
	msg.May(d.Due)
	msg.Draft.Due, msg.Draft.MaxAttempts = d.Due, 1
	return msg
}

// Fires notes what a firing looks like. After the loss of a disk it may be made once more, and say
// that others were missed.
func (m *Message) Fires(d *broker.Delivery, again bool) {
	if m.Draft.Body == nil || again {
		m.Draft.Target, m.Draft.RoutingKey = d.Target, d.RoutingKey
		m.Draft.Headers, m.Draft.Body = d.Headers, append([]byte(nil), d.Body...)
	}
}
