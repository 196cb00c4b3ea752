// SPDX-License-Identifier: Apache-2.0

package core

import "github.com/cicadamq/cicada/internal/planted"

// Bounds of what is with the sinks and between attempts, all push lanes together. Without them a
// hundred thousand targets due at once would be as many calls and buffers at once.
const (
	maxOut       = 8192      // messages with sinks
	maxOutBytes  = 128 << 20 // records of them: their bodies are held in memory
	fewOut       = 8         // messages of a lane when half of that is taken
	fewOutBytes  = 1 << 20   // likewise
	maxRetryAll  = 512 << 10 // messages between attempts
	maxRetrying  = 10_000    // of one lane: beyond it the lane takes nothing new
	maxGuarded   = 256 << 10 // of a lane of guarded messages, which are looked at twice or more
	sureRetrying = 16        // of one lane, whatever the others have
)

// wideWindow is in flight at most in a lane whose messages cannot come twice: there the window does
// not bound repetitions (S6), and large batches are what such sinks are made for.
const wideWindow = maxOut / 2

// room is what the lane may hand to its sink in addition (C7). The lanes that have something out
// share half of what may be out. Of the third quarter a lane gets a little, of the last one a
// message, so that however slow the first ones are, a lane with nothing out does not wait for them.
func (c *Core) room(l *lane) (messages, bytes int) {
	lanes := c.busy
	if l.inflight == 0 {
		lanes++
	}
	messages = min(l.most, max(maxOut/2/lanes, 1))
	bytes = maxOutBytes / 2 / lanes
	switch taken := max(c.out*(maxOutBytes/maxOut), c.outBytes); {
	case taken >= maxOutBytes*3/4:
		messages, bytes = 1, min(bytes, fewOutBytes)
	case taken >= maxOutBytes/2:
		messages, bytes = min(messages, fewOut), min(bytes, fewOutBytes)
	}
	if planted.Is(planted.ShareForgotten) {
		messages, bytes = l.most, maxOutBytes
	}
	if l.window > 0 && !planted.Is(planted.SlowStartMissing) {
		messages = min(messages, l.window)
	}
	if l.trips > 0 {
		messages = 1 // half open: one probe at a time
	}
	retries := max(sureRetrying, min(l.patience, maxRetryAll-c.retrying+l.retrying)) - l.retrying
	messages = min(messages-l.inflight, retries, maxOut-c.out)
	if l.inflight == 0 {
		return messages, max(min(bytes, maxOutBytes-c.outBytes), 1) // it may be larger than a share
	}
	return messages, min(bytes-l.bytes, maxOutBytes-c.outBytes)
}

// full reports whether no lane may hand out anything until something comes back.
func (c *Core) full() bool { return c.out >= maxOut || c.outBytes >= maxOutBytes }

// queueUp has l dispatched when there is room, in turn with the others that wait for it.
func (c *Core) queueUp(l *lane) {
	if !l.hungry {
		l.hungry = true
		c.hungry.push(l)
	}
}

// feed dispatches the lanes that waited for room, before those that have just used some.
func (c *Core) feed() {
	for c.hungry.len() > 0 && !c.full() {
		l := c.hungry.pop()
		l.hungry = false
		c.dispatch(l)
	}
}

// handOut counts what goes to a sink.
func (c *Core) handOut(l *lane, claims []Claim) {
	if l.inflight == 0 {
		c.busy++
	}
	l.inflight += len(claims)
	c.out += len(claims)
	for i := range claims {
		size := claims[i].Ref.Size()
		l.bytes += size
		c.outBytes += size
	}
}

// handBack counts what came back from a sink.
func (c *Core) handBack(l *lane, r Ref) {
	l.inflight--
	c.out--
	l.bytes -= r.Size()
	c.outBytes -= r.Size()
	if l.inflight == 0 {
		c.busy--
	}
}

// slowPart is the part of the window with which a resumed lane begins.
const slowPart = 8

// slowStart narrows the window of a lane that is resumed: what has piled up meanwhile must not meet
// its receiver all at once. Consumers take what they want.
func (c *Core) slowStart(l *lane) {
	if !l.pull {
		l.window = max(1, l.most/slowPart)
	}
}

// grow widens the window of a lane whose breaker was open or that was paused: each answer admits
// one message more, which doubles it with each round trip, so that a receiver which has just come
// back is not met by all that has piled up.
func (c *Core) grow(l *lane) {
	if l.window == 0 {
		return
	}
	if l.window++; l.window >= l.most {
		l.window = 0
	}
}

// countRetrying counts what is between attempts. Consumers bound what they hand back themselves.
func (c *Core) countRetrying(l *lane, n int) {
	if l.pull {
		return
	}
	l.retrying += n
	c.retrying += n
}
