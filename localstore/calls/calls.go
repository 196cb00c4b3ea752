// SPDX-License-Identifier: Apache-2.0

// Package calls counts the calls of something that can be closed.
package calls

import (
	"sync"

	"github.com/cicadamq/cicada/delay"
)

// Count counts calls, and lets one that closes what they use wait for them. The zero value is open.
// It is safe for concurrent use.
type Count struct {
	mu      sync.RWMutex // held for moments
	closed  bool
	running sync.WaitGroup
}

// Begin counts a call, and End must follow. It is delay.ErrClosed, and counts none, after Close.
func (c *Count) Begin() error {
	c.mu.RLock()
	defer c.mu.RUnlock()
	if c.closed {
		return delay.ErrClosed
	}
	c.running.Add(1)
	return nil
}

// End ends a call that Begin has counted.
func (c *Count) End() { c.running.Done() }

// Close refuses calls from now on, and reports whether it was the first to do so.
func (c *Count) Close() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	first := !c.closed
	c.closed = true
	return first
}

// Wait waits for the calls that had begun before Close.
func (c *Count) Wait() { c.running.Wait() }
