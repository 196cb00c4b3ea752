// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
)

// entry is where a broker's copy of a delayed message waits, and what of it is in no property. Its
// text is the Entry of a delay.Guard.
type entry struct {
	Topic    string // remoting.TopicSchedule or remoting.TopicTimer
	Queue    int32  // a level's is the level - 1
	Offset   int64
	Physical int64 // in the commit log
	Stored   delay.Due
	Due      delay.Due // the broker's
	Out      delay.Due // of a timer: the slot of the wheel, which handles for recalls name
	Rolls    int64     // of a timer: how often it was written anew

	RealTopic  string
	RealQueue  int32
	Unique     string
	Born       delay.Due
	Flag       int32
	SysFlag    int32 // how the body is packed
	Reconsumed int32
}

// entryVersion is the only version there is.
const entryVersion = "1"

// timer reports whether the copy waits on the wheel.
func (e *entry) timer() bool { return e.Topic == remoting.TopicTimer }

// level is the delay level of a copy that waits at one.
func (e *entry) level() int { return int(e.Queue) + 1 }

// The numbers of the text, in their order. The instants are distances from stored: an entry is
// written for every message that is guarded, and so is short.
const (
	numLevel  = iota // of a level, from 1 on
	numTimer         // queue of a timer, from 1 on
	numOffset        // in the queue
	numPhysical
	numStored
	numDue
	numOut // of a timer
	numRolls
	numBorn
	numFlag
	numSys
	numReconsumed
	numRealQueue
	manyNumbers
)

type numbers [manyNumbers]int64

// numberNames are their names, and in how many bits they fit.
func numberNames() (names [manyNumbers]string, bits [manyNumbers]int) {
	names = [...]string{
		"level", "timer", "offset", "physical", "stored", "due", "out", "rolls", "born", "flag", "sys",
		"reconsumed", "real_queue",
	}
	bits = [...]int{32, 32, 64, 64, 64, 64, 64, 64, 64, 32, 32, 32, 32}
	return names, bits
}

// String is the text: one line of name=value, the values escaped as in a URL's query. Numbers that
// are 0 are left out.
func (e *entry) String() string {
	n := numbers{
		numOffset: e.Offset, numPhysical: e.Physical, numStored: int64(e.Stored),
		numDue: int64(e.Due - e.Stored), numBorn: int64(e.Born - e.Stored), numRolls: e.Rolls,
		numFlag: int64(e.Flag), numSys: int64(e.SysFlag), numReconsumed: int64(e.Reconsumed),
		numRealQueue: int64(e.RealQueue),
	}
	if e.timer() {
		n[numTimer], n[numOut] = int64(e.Queue)+1, int64(e.Out-e.Stored)
	} else {
		n[numLevel] = int64(e.level())
	}
	b := make([]byte, 0, 256)
	b = append(b, "v="+entryVersion...)
	names, _ := numberNames()
	for i, v := range n {
		if v != 0 {
			b = append(b, ' ')
			b = append(b, names[i]...)
			b = append(b, '=')
			b = strconv.AppendInt(b, v, 10)
		}
	}
	b = append(b, " topic="...)
	b = append(b, url.QueryEscape(e.RealTopic)...)
	b = append(b, " unique="...)
	b = append(b, url.QueryEscape(e.Unique)...)
	return string(b)
}

// parseEntry reads a text that String wrote. What is none wraps delay.ErrCorrupt, and an unknown
// version delay.ErrUnimplemented.
func parseEntry(text string) (entry, error) {
	bad := func(what string) (entry, error) {
		return entry{}, fmt.Errorf("%w: guard entry: %s", delay.ErrCorrupt, what)
	}
	rest := text
	field := func(name string) (value string, ok bool) {
		one, more, _ := strings.Cut(rest, " ")
		if value, ok = strings.CutPrefix(one, name+"="); ok {
			rest = more
		}
		return value, ok
	}
	switch v, ok := field("v"); {
	case !ok:
		return bad("no version")
	case v != entryVersion:
		return entry{}, fmt.Errorf("%w: guard entry of version %.20q", delay.ErrUnimplemented, v)
	}
	var n numbers
	names, bits := numberNames()
	for i, name := range names {
		v, ok := field(name)
		if !ok {
			continue
		}
		var err error
		if n[i], err = strconv.ParseInt(v, 10, bits[i]); err != nil {
			return bad(name)
		}
	}
	e := n.entry()
	topic, _ := field("topic")
	unique, _ := field("unique")
	var failed [2]error
	e.RealTopic, failed[0] = url.QueryUnescape(topic)
	e.Unique, failed[1] = url.QueryUnescape(unique)
	if err := errors.Join(failed[:]...); err != nil {
		return bad("escape")
	}
	if (n[numLevel] > 0) == (n[numTimer] > 0) || e.String() != text {
		return bad("not as it is written")
	}
	return e, nil
}

// entry is what the numbers tell.
func (n *numbers) entry() entry {
	stored := delay.Due(n[numStored])
	e := entry{
		Topic: remoting.TopicSchedule, Queue: int32(n[numLevel] - 1), Offset: n[numOffset],
		Physical: n[numPhysical], Stored: stored, Due: stored + delay.Due(n[numDue]),
		Rolls: n[numRolls], RealQueue: int32(n[numRealQueue]), Born: stored + delay.Due(n[numBorn]),
		Flag: int32(n[numFlag]), SysFlag: int32(n[numSys]), Reconsumed: int32(n[numReconsumed]),
	}
	if n[numTimer] > 0 {
		e.Topic, e.Queue = remoting.TopicTimer, int32(n[numTimer]-1)
		e.Out = stored + delay.Due(n[numOut])
	}
	return e
}
