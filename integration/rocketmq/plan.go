// SPDX-License-Identifier: Apache-2.0

package rocketmq

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Part is when a message is due and where in the commit log it lies.
type Part string

// The parts.
const (
	Early    Part = "early"    // due before the log expires
	Doomed   Part = "doomed"   // in the part of the log that expires before they are due
	Late     Part = "late"     // in the part that stays
	Recalled Part = "recalled" // timers of the two above, recalled at once
)

// levels are the delays of the brokers here. The long ones leave time to expire the log: a broker
// does so a minute after its start at the earliest.
var levels = []time.Duration{
	time.Second, 2 * time.Second, 5 * time.Second, 75 * time.Second, 78 * time.Second,
	81 * time.Second, 84 * time.Second, 87 * time.Second, 90 * time.Second,
}

// firstLong is the first of the long levels, counted from 1.
const firstLong = 4

// levelSetting is levels as a line of broker.conf.
func levelSetting() string {
	var b strings.Builder
	b.WriteString("messageDelayLevel=")
	for i, d := range levels {
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%ds", int(d.Seconds()))
	}
	return b.String()
}

// Order is one message of a Plan.
type Order struct {
	Message
	Part    Part
	Recall  bool // it is a timer that is recalled once it was sent
	delay   time.Duration
	Sent    Sent
	isTimer bool
}

// Kind is "delay level" or "timer".
func (o *Order) Kind() string {
	if o.isTimer {
		return "timer"
	}
	return "delay level"
}

// due is the earliest instant at which the message may reach its topic, Unix milliseconds.
func (o *Order) due() int64 {
	if o.Message.Due > 0 {
		return o.Message.Due
	}
	return o.Sent.At + o.delay.Milliseconds()
}

// Plan is what is sent in one run.
type Plan struct {
	Topics []string
	Orders []*Order
	grpc   bool
}

// queues is the number of queues that each topic of a plan has at each broker.
const queues = 4

// NewPlan makes a plan of n messages of each part and kind. The same seed gives the same.
func NewPlan(seed uint64, n int) *Plan { return (&Plan{}).fill(seed, n) }

// NewGRPCPlan makes one of as many messages, all of them timers as a gRPC client can send them: due
// at an instant, without a flag, in a queue that the proxy chooses.
func NewGRPCPlan(seed uint64, n int) *Plan { return (&Plan{grpc: true}).fill(seed, n) }

func (p *Plan) fill(seed uint64, n int) *Plan {
	r := rand.New(rand.NewPCG(seed, 8))
	p.Topics = []string{"orders", "mails", "reminders"}
	for _, part := range []Part{Early, Doomed, Late} {
		for range n {
			p.Orders = append(p.Orders, p.level(r, part), p.timer(r, part))
		}
		if part == Early {
			continue // a recall that comes when the timer is nearly due is too late
		}
		for range (n + 4) / 5 {
			o := p.timer(r, part)
			o.Recall = true
			p.Orders = append(p.Orders, o)
		}
	}
	r.Shuffle(len(p.Orders), func(i, j int) {
		p.Orders[i], p.Orders[j] = p.Orders[j], p.Orders[i]
	})
	return p
}

// Of is the orders of one part.
func (p *Plan) Of(part Part) []*Order {
	return slices.DeleteFunc(slices.Clone(p.Orders), func(o *Order) bool { return o.Part != part })
}

func (p *Plan) level(r *rand.Rand, part Part) *Order {
	if p.grpc {
		return p.timer(r, part)
	}
	o := p.order(r, part)
	if part == Early {
		o.Level = 1 + r.IntN(firstLong-1)
	} else {
		o.Level = firstLong + r.IntN(len(levels)-firstLong+1)
	}
	o.delay = levels[o.Level-1]
	return o
}

func (p *Plan) timer(r *rand.Rand, part Part) *Order {
	o := p.order(r, part)
	o.isTimer = true
	if part == Early {
		o.delay = 4*time.Second + time.Duration(r.IntN(6_000))*time.Millisecond
	} else {
		o.delay = 75*time.Second + time.Duration(r.IntN(16_000))*time.Millisecond
	}
	if !p.grpc && r.IntN(2) == 0 {
		o.Delay = o.delay.Milliseconds() // its due is told when it is sent otherwise
	}
	return o
}

var words = []string{
	"blue", "grün", "красный", "黄色", "a b", "x=y", "{\"a\":1}", "100 %", "-", "/path/to",
}

func (p *Plan) order(r *rand.Rand, part Part) *Order {
	word := func() string { return words[r.IntN(len(words))] }
	o := &Order{Part: part, Message: Message{
		Topic: p.Topics[r.IntN(len(p.Topics))], Queue: r.IntN(2 * queues),
		Body: make([]byte, 1+r.IntN(1<<(4+r.IntN(8)))),
	}}
	if r.IntN(8) == 0 {
		o.Body = make([]byte, 4<<10+1+r.IntN(4<<10)) // the client compresses these
	}
	for i := range o.Body {
		o.Body[i] = "0123456789abcdef"[r.IntN(16)]
	}
	if r.IntN(2) == 0 {
		o.Tags = "tag" + fmt.Sprint(r.IntN(5))
	}
	for range r.IntN(4) {
		o.Keys = strings.TrimSpace(fmt.Sprintf("%s k%d", o.Keys, r.IntN(1_000_000)))
	}
	if !p.grpc && r.IntN(3) == 0 {
		o.Flag = r.Int32()
	}
	for i := range r.IntN(6) {
		if o.Properties == nil {
			o.Properties = map[string]string{}
		}
		o.Properties[fmt.Sprintf("p%d-%d", i, r.IntN(100))] = word() + word()
	}
	return o
}
