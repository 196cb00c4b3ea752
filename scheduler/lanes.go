// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"strings"
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// laneNames numbers targets for the references. It is safe for concurrent use.
type laneNames struct {
	mu struct {
		sync.RWMutex
		numbers map[delay.Target]uint32
		targets []delay.Target
	}
}

func newLaneNames() *laneNames {
	n := &laneNames{}
	n.mu.numbers = make(map[delay.Target]uint32)
	return n
}

// number is the number of target, a new one if it has none. It keeps a copy of a new target.
func (n *laneNames) number(target delay.Target) uint32 {
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

func (n *laneNames) target(no uint32) delay.Target {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.mu.targets[no]
}
