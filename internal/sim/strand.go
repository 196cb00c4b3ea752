// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"iter"
	"time"
)

// strand is one call under way: a request of a client, a delivery, a flush. It is a coroutine: it
// runs only while the world waits for it, until it yields or ends (invariant W1).
type strand struct {
	name  string
	kind  op
	syncs bool          // it may wait for the disk itself, so the disk must not hold syncs back
	until time.Duration // it sleeps until this instant by the boot clock
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	dead  bool
}

// crashed unwinds a strand whose process has died (W1: nobody else resumes it).
type crashed struct{}

// spawn starts f as a strand and lets it run until it yields first.
func (w *World) spawn(name string, kind op, f func()) {
	s := &strand{name: name, kind: kind, syncs: kind == opPoll || kind == opDrain}
	s.next, s.stop = iter.Pull(func(yield func(struct{}) bool) {
		s.yield = yield
		defer func() {
			if r := recover(); r != nil {
				if _, ok := r.(crashed); !ok {
					panic(r)
				}
			}
		}()
		f()
	})
	w.strands = append(w.strands, s)
	w.resume(s)
}

// resume lets s run until it yields or ends.
func (w *World) resume(s *strand) {
	if s.syncs {
		w.settleDisk()
	}
	before := w.current
	w.current = s
	w.turn++
	_, more := s.next()
	w.current = before
	if more {
		return
	}
	for i := range w.strands {
		if w.strands[i] == s {
			w.strands = append(w.strands[:i:i], w.strands[i+1:]...)
			return
		}
	}
}

// yield gives the turn back to the world.
func (w *World) yield() {
	s := w.current
	if s == nil {
		panic("BUG: yield outside a strand")
	}
	if s.dead || !s.yield(struct{}{}) {
		s.dead = true
		panic(crashed{})
	}
}

// sleep yields until the boot clock has moved by d.
func (w *World) sleep(d time.Duration) {
	s := w.current
	s.until = w.boot + d
	for w.boot < s.until {
		w.yield()
	}
}

// killStrands ends every strand where it stands, as the death of a process does.
func (w *World) killStrands() {
	all := w.strands
	w.strands = nil
	for _, s := range all {
		before := w.current
		w.current = s
		s.stop()
		w.current = before
	}
}

// ready lists the strands that may run now.
func (w *World) ready(dst []*strand) []*strand {
	for _, s := range w.strands {
		if s.until <= w.boot {
			dst = append(dst, s)
		}
	}
	return dst
}
