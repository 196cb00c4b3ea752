// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// Count is what became of the messages of one part and kind.
type Count struct {
	Sent, Delivered int
	ByCicada        int // of Delivered: first delivered by Cicada
	Twice           int // of Delivered: stored more than once in their topic
}

// Verdict is what became of the messages of a Plan.
type Verdict struct {
	Counts map[Part]map[string]Count // by part and kind
	// Lost are messages that did not arrive, Twice those with several copies, both without the
	// recalled ones.
	Lost, Twice []*Order
	// Doubled are those of Twice of which Cicada stored a copy.
	Doubled []*Order
	// Again is how often the same copy of a message was handed to the consumers once more.
	Again int
	// Wrong says what is not as it was sent, in sentences: arrived early, a property that is
	// missing, a message that was recalled or that nobody sent.
	Wrong []string
	// Lateness is received minus due of each message that Cicada delivered.
	Lateness []time.Duration
}

// control are properties that RocketMQ acts on: a released message that still had one would be
// delayed again.
var control = []string{"DELAY", "TIMER_", "REAL_", "__STARTDELIVERTIME", "TRAN_MSG"}

// rescuedBy is the property that tells a copy that Cicada released.
const rescuedBy = "cicada-rescued"

// Judge compares what was sent with what arrived.
func (p *Plan) Judge(got []Received) *Verdict {
	v := &Verdict{Counts: map[Part]map[string]Count{}}
	copies := map[string][]Received{}
	type place struct {
		topic, broker, id string
		queue             int
		offset            int64
	}
	seen := map[place]bool{}
	for _, m := range got {
		at := place{m.Topic, m.Broker, m.ID, m.Queue, m.Offset}
		if seen[at] {
			v.Again++
			continue
		}
		seen[at] = true
		copies[m.ID] = append(copies[m.ID], m)
	}
	for _, o := range p.Orders {
		v.order(o, copies[o.Sent.ID])
		delete(copies, o.Sent.ID)
	}
	for id, c := range copies {
		v.wrongf("nobody sent %s to %s: %v", id, c[0].Topic, c[0].Properties)
	}
	return v
}

func (v *Verdict) wrongf(format string, args ...any) {
	v.Wrong = append(v.Wrong, fmt.Sprintf(format, args...))
}

// order judges one message by its copies.
func (v *Verdict) order(o *Order, copies []Received) {
	part := o.Part
	if o.Recall {
		part = Recalled
	}
	if v.Counts[part] == nil {
		v.Counts[part] = map[string]Count{}
	}
	c := v.Counts[part][o.Kind()]
	c.Sent++
	if len(copies) > 0 {
		c.Delivered++
		if first := copies[0]; first.Properties[rescuedBy] != "" {
			c.ByCicada++
			v.Lateness = append(v.Lateness, time.Duration(first.At-o.due())*time.Millisecond)
		}
	}
	if len(copies) > 1 {
		c.Twice++
	}
	v.Counts[part][o.Kind()] = c
	switch {
	case o.Recall && len(copies) > 0:
		v.wrongf("%s was recalled and arrived", o)
	case o.Recall:
	case len(copies) == 0:
		v.Lost = append(v.Lost, o)
	case len(copies) > 1:
		v.Twice = append(v.Twice, o)
	}
	doubled := false
	for _, m := range copies {
		doubled = doubled || len(copies) > 1 && m.Properties[rescuedBy] != ""
		v.compare(o, &m)
	}
	if doubled {
		v.Doubled = append(v.Doubled, o)
	}
}

// compare finds what is not as it was sent.
func (v *Verdict) compare(o *Order, m *Received) {
	stored := m.Stored
	if stored == 0 {
		stored = m.At
	}
	if stored < o.due() {
		v.wrongf("%s: stored %d ms before it was due", o, o.due()-stored)
	}
	elsewhere := m.Broker != o.Sent.Broker || m.Queue != o.Sent.Queue
	if m.Queue < 0 || o.Sent.Queue < 0 {
		elsewhere = false // nobody can tell
	}
	if m.Topic != o.Topic || elsewhere {
		v.wrongf("%s: arrived in %s, %s, queue %d", o, m.Topic, m.Broker, m.Queue)
	}
	if !bytes.Equal(m.Body, o.Body) {
		v.wrongf("%s: a body of %d bytes arrived as one of %d", o, len(o.Body), len(m.Body))
	}
	if m.Tags != o.Tags || m.Keys != o.Keys || m.Flag != o.Flag {
		v.wrongf("%s: TAGS, KEYS and flag arrived as %q, %q, %d", o, m.Tags, m.Keys, m.Flag)
	}
	if m.Born < o.Sent.At || m.Born > o.Sent.At+time.Minute.Milliseconds() {
		v.wrongf("%s: sent at %d, it was born at %d", o, o.Sent.At, m.Born)
	}
	for name, value := range o.Properties {
		if m.Properties[name] != value {
			v.wrongf("%s: property %s, %q, arrived as %q", o, name, value, m.Properties[name])
		}
	}
	if m.Properties[rescuedBy] == "" {
		return // the broker delivered it, and leaves what it likes
	}
	for name := range m.Properties {
		for _, prefix := range control {
			if strings.HasPrefix(name, prefix) {
				v.wrongf("%s: it was released with %s", o, name)
			}
		}
	}
}

// String names the message in what Verdict says.
func (o *Order) String() string {
	return fmt.Sprintf("%s %s %s (%s, tags %q, keys %q)", o.Part, o.Kind(), o.Sent.ID, o.Topic,
		o.Tags, o.Keys)
}

// Sum adds up the counts of some parts.
func (v *Verdict) Sum(parts ...Part) (sum Count) {
	for _, part := range parts {
		for _, c := range v.Counts[part] {
			sum.Sent += c.Sent
			sum.Delivered += c.Delivered
			sum.ByCicada += c.ByCicada
			sum.Twice += c.Twice
		}
	}
	return sum
}
