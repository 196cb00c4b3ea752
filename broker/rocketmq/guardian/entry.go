// SPDX-License-Identifier: Apache-2.0

package guardian

import (
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

// number is one numeric field of the text.
type number struct {
	name string
	bits int
	to   *int64
}

// numbers are the numeric fields in their order, to be read from or into n.
func (n *numericFields) numbers() []number {
	return []number{
		{"queue", 32, &n.queue}, {"offset", 64, &n.offset}, {"physical", 64, &n.physical},
		{"stored", 64, &n.stored}, {"due", 64, &n.due}, {"out", 64, &n.out}, {"rolls", 64, &n.rolls},
		{"real_queue", 32, &n.realQueue}, {"born", 64, &n.born}, {"flag", 32, &n.flag},
		{"sys", 32, &n.sys}, {"reconsumed", 32, &n.reconsumed},
	}
}

type numericFields struct {
	queue, offset, physical, stored, due, out, rolls int64
	realQueue, born, flag, sys, reconsumed           int64
}

// String is the text: one line of name=value, the values escaped as in a URL's query.
func (e *entry) String() string {
	n := numericFields{
		int64(e.Queue), e.Offset, e.Physical, int64(e.Stored), int64(e.Due), int64(e.Out), e.Rolls,
		int64(e.RealQueue), int64(e.Born), int64(e.Flag), int64(e.SysFlag), int64(e.Reconsumed),
	}
	b := make([]byte, 0, 320)
	b = append(b, "v="+entryVersion+" topic="...)
	b = append(b, url.QueryEscape(e.Topic)...)
	for _, f := range n.numbers() {
		b = append(b, ' ')
		b = append(b, f.name...)
		b = append(b, '=')
		b = strconv.AppendInt(b, *f.to, 10)
	}
	b = append(b, " real_topic="...)
	b = append(b, url.QueryEscape(e.RealTopic)...)
	b = append(b, " unique="...)
	b = append(b, url.QueryEscape(e.Unique)...)
	return string(b)
}

// parseEntry reads a text that String wrote. What is none wraps delay.ErrCorrupt, and an unknown
// version delay.ErrUnimplemented.
func parseEntry(text string) (entry, error) {
	var e entry
	var n numericFields
	bad := func(what string) (entry, error) {
		return entry{}, fmt.Errorf("%w: guard entry: %s", delay.ErrCorrupt, what)
	}
	rest := text
	field := func(name string) (value string, ok bool) {
		var one string
		one, rest, _ = strings.Cut(rest, " ")
		return strings.CutPrefix(one, name+"=")
	}
	if v, ok := field("v"); !ok || v != entryVersion {
		if ok {
			return entry{}, fmt.Errorf("%w: guard entry of version %.20q", delay.ErrUnimplemented, v)
		}
		return bad("no version")
	}
	var fields [3]string
	var ok bool
	if fields[0], ok = field("topic"); !ok {
		return bad("no topic")
	}
	for _, f := range n.numbers() {
		v, ok := field(f.name)
		i, err := strconv.ParseInt(v, 10, f.bits)
		if !ok || err != nil {
			return bad(f.name)
		}
		*f.to = i
	}
	if fields[1], ok = field("real_topic"); !ok {
		return bad("no real_topic")
	}
	if fields[2], ok = field("unique"); !ok {
		return bad("no unique")
	}
	for i, to := range [...]*string{&e.Topic, &e.RealTopic, &e.Unique} {
		v, err := url.QueryUnescape(fields[i])
		if err != nil {
			return bad("escape")
		}
		*to = v
	}
	e.Queue, e.Offset, e.Physical = int32(n.queue), n.offset, n.physical
	e.Stored, e.Due, e.Out, e.Rolls = delay.Due(n.stored), delay.Due(n.due), delay.Due(n.out), n.rolls
	e.RealQueue, e.Born, e.Flag = int32(n.realQueue), delay.Due(n.born), int32(n.flag)
	e.SysFlag, e.Reconsumed = int32(n.sys), int32(n.reconsumed)
	if e.String() != text {
		return bad("not as it is written")
	}
	return e, nil
}
