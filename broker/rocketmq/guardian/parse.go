// SPDX-License-Identifier: Apache-2.0

package guardian

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/rocketmq"
	"github.com/cicadamq/cicada/broker/rocketmq/remoting"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/planted"
)

// headerPacked holds, as the query of a URL, the properties that do not fit as headers of their
// own: there are too many, or they hold control characters.
const headerPacked = "rocketmq-properties"

// revived begins the topics in which a broker keeps what its POP consumers have to acknowledge:
// its own matter.
const revived = "rmq_sys_"

// control reports whether a property was for the way through the broker, and not for who receives.
func control(name string) bool {
	switch name {
	case remoting.PropertyDelayLevel, remoting.PropertyRealTopic, remoting.PropertyRealQueue,
		"__CRC32#", "TRAN_MSG":
		return true
	}
	return strings.HasPrefix(name, "TIMER_")
}

// headers are the properties that a receiver sees.
func headers(p remoting.Properties) []delay.Header {
	out := make([]delay.Header, 0, len(p))
	var packed url.Values
	for _, one := range p {
		switch {
		case control(one.Name):
		case len(out) >= delay.MaxHeaders-1, one.Name == headerPacked, !delay.ValidText(one.Name),
			!delay.ValidText(one.Value):
			if packed == nil {
				packed = url.Values{}
			}
			packed.Set(one.Name, one.Value)
		default:
			out = append(out, delay.Header(one))
		}
	}
	if len(packed) > 0 {
		out = append(out, delay.Header{Name: headerPacked, Value: packed.Encode()})
	}
	return out
}

// properties is the reverse of headers.
func properties(headers []delay.Header) (remoting.Properties, error) {
	p := make(remoting.Properties, 0, len(headers)+4)
	for _, h := range headers {
		if h.Name != headerPacked {
			p = append(p, remoting.Property(h))
			continue
		}
		packed, err := url.ParseQuery(h.Value)
		if err != nil {
			return nil, fmt.Errorf("%w: header %s: %w", delay.ErrCorrupt, headerPacked, err)
		}
		for name := range packed {
			p = append(p, remoting.Property{Name: name, Value: packed.Get(name)})
		}
	}
	slices.SortStableFunc(p, func(a, b remoting.Property) int {
		return strings.Compare(a.Name, b.Name)
	})
	return p, nil
}

// shorten bounds an id: what is too long, or cannot be one, is told by its digest.
func shorten(prefix, rest string) delay.ID {
	if id := prefix + rest; len(id) <= delay.MaxIDBytes && delay.ValidText(id) {
		return delay.ID(id)
	}
	sum := sha256.Sum256([]byte(prefix + rest))
	return delay.ID(prefix[:min(len(prefix), delay.MaxIDBytes/2)] + "~" + hex.EncodeToString(sum[:]))
}

// timerID names a timer for ever, however often the broker writes it anew.
func timerID(name, broker, topic, unique string) delay.ID {
	return shorten(rocketmq.Kind+":"+name+"/"+broker+"/timer/", topic+"/"+unique)
}

// whole reads a number that a property holds, or is -1.
func whole(p remoting.Properties, name string) int64 {
	value := p.Value(name)
	if value == "" {
		return -1 // most properties that are asked for are not there
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n
}

// parse reads an entry of a broker's own queue into item.
func (m *mirrored) parse(
	item *broker.Item, r *remoting.Message, _ delay.Due,
) (keep bool, err error) {
	m.saw(r)
	if r.Properties.Value(remoting.PropertyTimerDelete) != "" {
		return m.parseRecall(item, r)
	}
	e := entry{
		Topic: m.topic, Queue: m.at.Number, Offset: r.Offset, Physical: r.Physical, Stored: r.Stored,
		RealTopic: r.Properties.Value(remoting.PropertyRealTopic),
		RealQueue: int32(whole(r.Properties, remoting.PropertyRealQueue)),
		Unique:    r.Properties.Value(remoting.PropertyUniqueKey),
		Born:      r.Born, Flag: r.Flag, SysFlag: r.SysFlag & remoting.SysPacked,
		Reconsumed: r.Reconsumed,
	}
	switch {
	case e.RealTopic == "":
		return false, delay.Invalid(remoting.PropertyRealTopic, "is missing")
	case strings.HasPrefix(e.RealTopic, revived),
		strings.HasPrefix(e.RealTopic, remoting.RetryTopicPrefix) && !m.g.o.ConsumerRetries:
		return false, nil
	case e.Unique == "":
		return false, delay.Invalid(remoting.PropertyUniqueKey, "is missing: nobody could tell "+
			"whether it was delivered")
	}
	id, err := m.complete(&e, r)
	if err != nil {
		return false, err
	}
	if m.fresh && e.Due <= m.since {
		return false, nil // it was due before anybody guarded it
	}
	if e.timer() && m.g.recalled.has(id) {
		return false, nil // the broker still moves what it will not deliver
	}
	m.g.risk.add(m.at.Broker, m.shared.fileSize.Load(), &e)
	*item = broker.Item{Offset: r.Offset}
	d := &item.Draft
	d.ID, d.Target = id, delay.Target(rocketmq.Kind+":"+m.g.cfg.Broker+"/"+e.RealTopic)
	d.Due, d.Body, d.Headers = e.Due.Add(m.g.o.Grace), r.Body, headers(r.Properties)
	d.Guard = &delay.Guard{Lane: m.lane, Entry: e.String()}
	d.Replace = e.Rolls > 0 // the same message, elsewhere
	return true, d.Guard.Invalid()
}

// complete finds out when e is due, and its id.
func (m *mirrored) complete(e *entry, r *remoting.Message) (delay.ID, error) {
	if !e.timer() {
		levels := m.shared.levels.Load()
		if levels == nil || e.level() > len(*levels) {
			return "", delay.Invalid(remoting.PropertyDelayLevel, "the broker has no level %d", e.level())
		}
		e.Due = r.Stored.Add((*levels)[e.level()-1])
		return shorten(string(m.partition)+"/", strconv.FormatInt(r.Offset, 10)), nil
	}
	out := whole(r.Properties, remoting.PropertyTimerOut)
	at := whole(r.Properties, remoting.PropertyDeliverAt)
	e.Rolls = max(0, whole(r.Properties, remoting.PropertyTimerRolls))
	if out < 0 && at < 0 {
		return "", delay.Invalid(remoting.PropertyTimerOut, "is missing")
	}
	if out < 0 {
		out = at
	}
	e.Out, e.Due = delay.Due(out), delay.Due(max(out, at))
	id := timerID(m.g.cfg.Broker, m.at.Broker, e.RealTopic, e.Unique)
	if planted.Is(planted.RollAsNew) {
		id = shorten(string(m.partition)+"/", strconv.FormatInt(r.Offset, 10))
	}
	return id, nil
}

// parseRecall reads the wish that a timer is not delivered: the broker has taken it, so the message
// is no longer guarded.
func (m *mirrored) parseRecall(item *broker.Item, r *remoting.Message) (bool, error) {
	id := recalledID(m, r.Properties)
	m.g.recalled.add(id)
	*item = broker.Item{Offset: r.Offset, Cancel: id}
	m.g.n.recalled.Add(1)
	return true, nil
}

// prepare finds out which of the timers that the broker wrote anew were recalled before: a recall
// that an earlier process read is not in memory, but younger than the copy that was written anew,
// and so still in the log.
func (m *mirrored) prepare(ctx context.Context, all []remoting.Message) error {
	var rolled []*remoting.Message
	for i := range all {
		p := all[i].Properties
		if whole(p, remoting.PropertyTimerRolls) > 0 && p.Value(remoting.PropertyUniqueKey) != "" {
			rolled = append(rolled, &all[i])
		}
	}
	if len(rolled) == 0 {
		return nil
	}
	addr, err := m.Master(ctx)
	if err != nil {
		return err
	}
	failed := make([]error, len(rolled))
	pool(len(rolled), maxQueries, func(i int) {
		failed[i] = m.findRecall(ctx, addr, rolled[i].Properties)
	})
	return errors.Join(failed...)
}

// findRecall looks for the recall of a timer.
func (m *mirrored) findRecall(ctx context.Context, addr string, p remoting.Properties) error {
	unique := p.Value(remoting.PropertyUniqueKey)
	id := timerID(m.g.cfg.Broker, m.at.Broker, p.Value(remoting.PropertyRealTopic), unique)
	if m.g.recalled.has(id) {
		return nil
	}
	found, err := m.g.client.Query(ctx, addr, remoting.Query{
		Topic: remoting.TopicTimer, Key: unique, Unique: true, End: delay.MaxDue,
	})
	for i := range found {
		if recalledID(m, found[i].Properties) == id {
			m.g.recalled.add(id)
		}
	}
	return err
}

// recalledID is the timer that a recall is for, or "".
func recalledID(m *mirrored, p remoting.Properties) delay.ID {
	key, ok := p.Get(remoting.PropertyTimerDelete)
	if !ok {
		return ""
	}
	topic := p.Value(remoting.PropertyRealTopic)
	if rest, ok := strings.CutPrefix(key, topic+"+"); ok {
		key = rest // some brokers give the key alone
	}
	return timerID(m.g.cfg.Broker, m.at.Broker, topic, key)
}

// delayLevels reads a broker's messageDelayLevel.
func delayLevels(text string) ([]time.Duration, error) {
	var all []time.Duration
	for word := range strings.FieldsSeq(text) {
		d, err := delay.ParseDuration(word)
		if err != nil {
			return nil, fmt.Errorf("messageDelayLevel: %w", err)
		}
		all = append(all, d)
	}
	return all, nil
}
