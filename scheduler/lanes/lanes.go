// SPDX-License-Identifier: Apache-2.0

// Package lanes numbers the targets of a shard, so that a reference holds a number and not a text.
package lanes

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Table numbers targets. A number that nobody has given out for a while is
// released when the core has nothing of its lane, and never given out again (C9 of the core). It is
// safe for concurrent use.
type Table struct {
	mu struct {
		sync.RWMutex
		numbers map[delay.Target]*numbered
		targets core.Sparse[numbered]
		next    uint32
	}
	round atomic.Int64
}

// numbered is a target with its number, and the round in which that was given out last.
type numbered struct {
	target delay.Target
	no     uint32
	given  atomic.Int64
}

// New makes an empty table.
func New() *Table {
	n := &Table{}
	n.mu.numbers = make(map[delay.Target]*numbered)
	return n
}

// Number is the number of target, a new one if it has none. It keeps a copy of a new target.
func (n *Table) Number(target delay.Target) uint32 {
	n.mu.RLock()
	l := n.mu.numbers[target]
	if l != nil {
		n.give(l)
		n.mu.RUnlock()
		return l.no
	}
	n.mu.RUnlock()
	n.mu.Lock()
	defer n.mu.Unlock()
	if l = n.mu.numbers[target]; l == nil {
		l = &numbered{target: delay.Target(strings.Clone(string(target))), no: n.mu.next}
		n.mu.next++
		n.mu.targets.Put(l.no, l)
		n.mu.numbers[l.target] = l
	}
	n.give(l)
	return l.no
}

// give notes that l is given out. The lock is held, so that it is not released meanwhile.
func (n *Table) give(l *numbered) {
	if round := n.round.Load(); l.given.Load() != round {
		l.given.Store(round)
	}
}

// Target is the target with a number that Number has given.
func (n *Table) Target(no uint32) delay.Target {
	n.mu.RLock()
	defer n.mu.RUnlock()
	l := n.mu.targets.Get(no)
	if l == nil {
		panic("BUG: the number of a lane is used after its release")
	}
	return l.target
}

// Round begins a round.
func (n *Table) Round() { n.round.Add(1) }

// Release forgets a number unless it was given out since the round before this one began, and
// reports whether it did.
func (n *Table) Release(no uint32) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := n.mu.targets.Get(no)
	if l.given.Load() > n.round.Load()-2 {
		return false
	}
	n.mu.targets.Delete(no)
	delete(n.mu.numbers, l.target)
	return true
}

// Len is how many targets have a number.
func (n *Table) Len() int {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return len(n.mu.numbers)
}

// RefOf is the reference of a stored message whose record has size bytes.
func (n *Table) RefOf(key delay.Key, m *delay.Message, size int) core.Ref {
	r := core.Ref{Key: key, Lane: n.Number(m.Lane()), Meta: uint32(size)}
	if m.Cold {
		r.Meta |= core.RefCold
	}
	if m.ID != "" {
		r.Meta |= core.RefID
	}
	if m.Mode == delay.AtMostOnce {
		r.Meta |= core.RefOnce
	}
	return r
}

// RefOfRecord is RefOf of an encoded record.
func (n *Table) RefOfRecord(key delay.Key, rec []byte) (core.Ref, error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return core.Ref{}, err
	}
	return n.RefOf(key, &m, len(rec)), nil
}
