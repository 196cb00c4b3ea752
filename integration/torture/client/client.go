// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cicadamq/cicada/integration/torture/history"
)

// Options are what a client draws from.
type Options struct {
	Name  string // unique: of its ids too
	Seed  uint64
	Tier  int      // share of messages with durability tier, in percent
	Hooks []string // targets of pushes
	Pause time.Duration
}

// Queues are the pull targets of all clients.
func Queues() []string { return []string{"pull:q0", "pull:q1", "pull:q2"} }

// Ids that all clients fight for: some in each window of time.
const (
	fightWindow = 2 * time.Second
	fightOver   = 6
)

// nearDue is how close to its due a change of a message is most interesting.
const nearDue = 300 * time.Millisecond

// remembered bounds what a client knows of its own messages and leases.
const remembered = 64

// worker is a client at work.
type worker struct {
	opts   Options
	api    *API
	rng    *rand.Rand
	no     int
	known  []history.Event // accepted lately
	open   []history.Event // not answered
	leases []held
}

// held is a lease that is settled later.
type held struct {
	target string
	given  history.Given
}

// Run works until ctx is done.
func Run(ctx context.Context, api *API, opts Options) error {
	w := &worker{opts: opts, api: api, rng: rand.New(rand.NewPCG(opts.Seed, 1))}
	for ctx.Err() == nil {
		if err := w.step(); err != nil {
			return err
		}
		pause := time.Duration(w.rng.Int64N(int64(2*opts.Pause) + 1))
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

func (w *worker) step() error {
	switch n := w.rng.IntN(100); {
	case n < 26:
		return w.send()
	case n < 31:
		return w.again()
	case n < 44:
		return w.fight()
	case n < 60:
		return w.change()
	case n < 90:
		return w.pull()
	default:
		return w.settle()
	}
}

// draw makes up a message.
func (w *worker) draw() history.Event {
	w.no++
	m := history.Event{ID: fmt.Sprintf("%s-%d", w.opts.Name, w.no)}
	m.Body = "body of " + m.ID
	m.Target = Queues()[w.rng.IntN(len(Queues()))]
	if w.rng.IntN(100) < 35 {
		m.Target = w.opts.Hooks[w.rng.IntN(len(w.opts.Hooks))]
	}
	in := time.Duration(w.rng.Int64N(int64(5 * time.Second)))
	switch n := w.rng.IntN(100); {
	case n < 5:
		in = -in // overdue
	case n < 10:
		in = time.Duration(w.rng.IntN(50)) * time.Millisecond
	case n < 13:
		in = time.Duration(1+w.rng.IntN(400)) * 24 * time.Hour
	}
	if w.rng.IntN(4) == 0 && in > 0 {
		m.Delay = max(in.Milliseconds(), 1)
	} else {
		m.Due = time.Now().Add(in).UnixMilli()
	}
	m.Tier = w.rng.IntN(100) < w.opts.Tier
	switch w.rng.IntN(30) {
	case 0:
		m.TTL = 1 + w.rng.Int64N(2000)
	case 1:
		m.Max = 1 + w.rng.Int64N(3)
	}
	return m
}

func (w *worker) send() error {
	form := Form(w.rng.IntN(3))
	n := 1
	if form != Single {
		n += w.rng.IntN(12)
	}
	calls := make([]history.Event, n)
	tier := w.rng.IntN(100) < w.opts.Tier
	for i := range calls {
		calls[i] = w.draw()
		calls[i].Tier = tier
	}
	if w.rng.IntN(8) == 0 {
		w.reserve(calls)
	}
	return w.sent(form, calls)
}

// reserve gives messages ids that the server made; without an answer they keep their own.
func (w *worker) reserve(calls []history.Event) {
	r, err := w.api.Look("POST", fmt.Sprintf("/v1/ids?count=%d", len(calls)), nil)
	if err != nil {
		return
	}
	ids, _ := r["ids"].([]any)
	for i, v := range ids {
		if id, ok := v.(string); ok && i < len(calls) {
			calls[i].ID = id
		}
	}
}

func (w *worker) sent(form Form, calls []history.Event) error {
	answers, err := w.api.Send(form, calls)
	if err != nil {
		return err
	}
	for i, a := range answers {
		calls[i].Op = 0
		switch a.Answer {
		case history.OK:
			w.known = append(w.known, calls[i])
		case history.Unknown:
			w.open = append(w.open, calls[i])
		}
	}
	w.known = w.known[max(0, len(w.known)-remembered):]
	w.open = w.open[max(0, len(w.open)-remembered):]
	return nil
}

// again repeats what was not answered, or sends the id of something with the same or another body.
func (w *worker) again() error {
	if len(w.open) > 0 {
		calls := w.open
		w.open = nil
		return w.sent(Batch, calls)
	}
	if len(w.known) == 0 {
		return nil
	}
	m := w.known[w.rng.IntN(len(w.known))]
	switch w.rng.IntN(3) {
	case 0:
		m.Body += " in conflict"
	case 1:
		w.other(&m)
	}
	return w.sent(Single, []history.Event{m})
}

// other makes m a replacement that nobody sent before.
func (w *worker) other(m *history.Event) {
	w.no++
	m.Body = fmt.Sprintf("body %d of %s by %s", w.no, m.ID, w.opts.Name)
	m.Replace, m.Delay, m.TTL, m.Max = true, 0, 0, 0
	m.Due = time.Now().UnixMilli() + w.rng.Int64N(4000)
}

// fight calls one of the ids that others call at the same time, around its due.
func (w *worker) fight() error {
	no := time.Now().UnixNano() / int64(fightWindow)
	n := w.rng.IntN(fightOver)
	m := history.Event{
		ID:  fmt.Sprintf("fight-%d-%d", no, n),
		Due: (no+1)*fightWindow.Milliseconds() + int64(n)*150 - 500,
	}
	m.Body = "body of " + m.ID
	m.Tier = n%2 == 1 && w.opts.Tier > 0
	m.Target = Queues()[n%len(Queues())]
	if n == 0 {
		m.Target = w.opts.Hooks[0]
	}
	switch k := w.rng.IntN(100); {
	case k < 40:
		return w.sent(Form(w.rng.IntN(3)), []history.Event{m})
	case k < 50:
		w.other(&m)
		return w.sent(Single, []history.Event{m})
	default:
		return w.act(m.ID)
	}
}

func (w *worker) change() error {
	if len(w.known) == 0 {
		return nil
	}
	m := w.known[w.rng.IntN(len(w.known))]
	for range len(w.known) / 2 { // most that goes wrong does so around the due
		if near := time.Until(time.UnixMilli(m.Due)); near.Abs() < nearDue {
			break
		}
		m = w.known[w.rng.IntN(len(w.known))]
	}
	return w.act(m.ID)
}

func (w *worker) act(id string) error {
	c := history.Event{ID: id}
	switch k := w.rng.IntN(100); {
	case k < 35:
		c.What = history.Cancel
	case k < 65:
		c.What, c.Due = history.Patch, time.Now().UnixMilli()+w.rng.Int64N(4000)
	case k < 78:
		c.What = history.Fire
	case k < 84:
		c.What = history.Stop
	case k < 88:
		c.What = history.Retry
	default:
		c.What = history.Get
	}
	_, err := w.api.Change(c)
	return err
}

func (w *worker) pull() error {
	target := Queues()[w.rng.IntN(len(Queues()))]
	lease := time.Duration(1000+w.rng.IntN(2000)) * time.Millisecond
	wait := time.Duration(w.rng.IntN(250)) * time.Millisecond
	got, err := w.api.Pull(target, 1+w.rng.Int64N(40), wait, lease)
	if err != nil {
		return err
	}
	var ack, nack []history.Given
	for _, g := range got {
		switch n := w.rng.IntN(100); {
		case n < 70:
			ack = append(ack, g)
		case n < 78:
			nack = append(nack, g)
		case n < 92:
			w.leases = append(w.leases, held{target: target, given: g})
		}
	}
	w.leases = w.leases[max(0, len(w.leases)-remembered):]
	if err := w.api.Settle(history.Nack, target, nack, w.rng.Int64N(600)); err != nil {
		return err
	}
	if err := w.api.Settle(history.Ack, target, ack, 0); err != nil {
		return err
	}
	if w.rng.IntN(6) == 0 { // as a client does that got no answer
		return w.api.Settle(history.Ack, target, ack, 0)
	}
	return nil
}

// settle comes back to a lease: in time, too late, or once more.
func (w *worker) settle() error {
	if len(w.leases) == 0 {
		return nil
	}
	i := w.rng.IntN(len(w.leases))
	l := w.leases[i]
	one := []history.Given{l.given}
	if w.rng.IntN(3) == 0 {
		return w.api.Settle(history.Extend, l.target, one, 1000+w.rng.Int64N(2000))
	}
	w.leases = append(w.leases[:i], w.leases[i+1:]...)
	if w.rng.IntN(6) == 0 {
		return w.api.Settle(history.Nack, l.target, one, w.rng.Int64N(600))
	}
	return w.api.Settle(history.Ack, l.target, one, 0)
}
