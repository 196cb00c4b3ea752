// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"sync"
	"time"

	"go.uber.org/zap"
)

const (
	// gatherFor is how long a round waits for company. Messages become due millisecond by
	// millisecond, and a look costs a broker the same for one of them as for a thousand.
	gatherFor = 50 * time.Millisecond
	// mostTogether is how many messages a round takes, about: calls are not divided.
	mostTogether = 1000
	// maxRounds is how many rounds of one broker look at a time.
	maxRounds = 4
)

// round is one look for the messages of several calls of Judge.
type round struct {
	open []*docket
	full chan struct{} // closed when it takes no more
	done chan struct{} // closed when its messages are judged
}

// rounds are those of one broker. The zero value is not ready.
type rounds struct {
	slots chan struct{} // one for each that looks

	mu        sync.Mutex
	gathering *round // nil: the next call begins one
}

func newRounds() *rounds { return &rounds{slots: make(chan struct{}, maxRounds)} }

// join adds messages to the round that gathers. first is true for the call that has to lead it.
func (r *rounds) join(open []*docket) (to *round, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	to = r.gathering
	if first = to == nil; first {
		to = &round{full: make(chan struct{}), done: make(chan struct{})}
		r.gathering = to
	}
	to.open = append(to.open, open...)
	if len(to.open) >= mostTogether {
		close(to.full)
		r.gathering = nil
	}
	return to, first
}

// shut ends the gathering of a round.
func (r *rounds) shut(one *round) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gathering == one {
		r.gathering = nil
	}
}

// together judges the messages of one broker with those of other calls, in one look that begins
// after every one of these calls.
func (g *Guardian) together(ctx context.Context, name string, open []*docket) {
	r := g.shared(name).rounds
	one, first := r.join(open)
	if !first {
		<-one.done // whoever leads it ends with the shard, too
		return
	}
	defer close(one.done)
	defer r.shut(one)
	timer := time.NewTimer(gatherFor)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-one.full:
	case <-ctx.Done():
		return
	}
	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return
	}
	r.shut(one)
	g.judge(ctx, name, one.open)
}

// judge looks and decides.
func (g *Guardian) judge(ctx context.Context, name string, open []*docket) {
	queues := map[place]span{}
	for _, c := range open {
		queues[c.e.place(name)] = span{}
	}
	s, err := g.look(ctx, name, queues)
	if err != nil { // nothing is decided while the broker is away
		g.shared(name).absences.Add(1)
		if ctx.Err() == nil {
			g.log().Warn("rocketmq guardian cannot ask a broker", zap.String("name", name),
				zap.Error(err))
		}
		return
	}
	g.decide(ctx, s, open)
}
