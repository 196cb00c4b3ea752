// SPDX-License-Identifier: Apache-2.0

package commit

import (
	"strings"
	"sync"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler/core"
)

// Lanes numbers targets for the references. It is safe for concurrent use.
type Lanes struct {
	mu struct {
		sync.RWMutex
		numbers map[delay.Target]uint32
		targets []delay.Target
	}
}

// NewLanes makes an empty table.
func NewLanes() *Lanes {
	n := &Lanes{}
	n.mu.numbers = make(map[delay.Target]uint32)
	return n
}

// Number is the number of target, a new one if it has none. It keeps a copy of a new target.
func (n *Lanes) Number(target delay.Target) uint32 {
	n.mu.RLock()
	no, ok := n.mu.numbers[target]
	n.mu.RUnlock()
	if ok {
		return no
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if no, ok := n.mu.numbers[target]; ok {
		return no
	}
	target = delay.Target(strings.Clone(string(target)))
	no = uint32(len(n.mu.targets))
	n.mu.targets = append(n.mu.targets, target)
	n.mu.numbers[target] = no
	return no
}

// Target is the target with a number that Number has given.
func (n *Lanes) Target(no uint32) delay.Target {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.targets[no]
}

// RefOf is the reference of a stored message whose record has size bytes.
func (n *Lanes) RefOf(key delay.Key, m *delay.Message, size int) core.Ref {
	r := core.Ref{Key: key, Lane: n.Number(m.Target), Meta: uint32(size)}
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
func (n *Lanes) RefOfRecord(key delay.Key, rec []byte) (core.Ref, error) {
	m, err := delay.DecodeRecord(rec)
	if err != nil {
		return core.Ref{}, err
	}
	return n.RefOf(key, &m, len(rec)), nil
}
