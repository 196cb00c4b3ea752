// SPDX-License-Identifier: Apache-2.0

package sink

import (
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// The headers that a delivered message carries next to the caller's.
const (
	headerID      = "cicada-id"
	headerDue     = "cicada-due"
	headerAttempt = "cicada-attempt"
	headerFiredAt = "cicada-fired-at"

	ourHeaders     = 4
	instantLayout  = "2006-01-02T15:04:05.000Z" // as delay.Due prints itself
	instantBytes   = len(instantLayout) + 2     // a year of five digits, and a sign
	attemptBytes   = 10
	sinkOverhead   = 128 // of a record and its batch, generously
	headerOverhead = 8
)

// shipment is a batch as records. All of them share three allocations.
type shipment struct {
	records []kgo.Record
	fits    []bool // false: larger than the topics take
	bytes   int    // of all that fit
}

// newShipment makes records of batch for topic. With own they hold copies of everything, so that
// they may outlive the batch; else they hold what the batch lends.
//
// The timestamp is the instant of the attempt: topics keep by timestamp, and a message that is
// years late must not be gone before anybody reads it. The due is in a header.
func (c *Config) newShipment(topic string, batch []broker.Delivery, own bool) *shipment {
	s := &shipment{records: make([]kgo.Record, len(batch)), fits: make([]bool, len(batch))}
	headers, bytes, names := 0, 0, 0
	for i := range batch {
		d := &batch[i]
		headers += len(d.Headers) + ourHeaders
		bytes += len(d.RoutingKey) + len(d.ID) + 2*instantBytes + attemptBytes
		for _, h := range d.Headers {
			bytes += len(h.Value)
			names += len(h.Name)
		}
		if own {
			bytes += len(d.Body)
		}
	}
	p := packer{own: own, bytes: make([]byte, 0, bytes)}
	if own {
		p.names.Grow(names)
	}
	all := make([]kgo.RecordHeader, 0, headers)
	for i := range batch {
		d, r := &batch[i], &s.records[i]
		at := len(all)
		all = p.headers(all, d)
		*r = kgo.Record{
			Topic: topic, Timestamp: time.UnixMilli(int64(d.FiredAt)), Headers: all[at:len(all):len(all)],
			Value: d.Body,
		}
		if d.RoutingKey != "" {
			r.Key = p.text(d.RoutingKey)
		}
		switch {
		case len(d.Body) == 0:
			r.Value = []byte{} // nil would be a tombstone, which deletes in a compacted topic
		case own:
			r.Value = p.copy(d.Body)
		}
		if size := recordSize(r); size <= c.MaxMessageBytes {
			s.fits[i] = true
			s.bytes += size
		}
	}
	return s
}

func recordSize(r *kgo.Record) int {
	n := sinkOverhead + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerOverhead + len(h.Key) + len(h.Value)
	}
	return n
}

// packer carves the small parts of records out of one allocation, which is large enough: nothing
// that was handed out ever moves.
type packer struct {
	own   bool
	bytes []byte
	names strings.Builder
	// What was written last of a due and of an attempt: neighbours often have the same.
	due, fired stamp
}

// stamp is an instant and its text.
type stamp struct {
	at   delay.Due
	text []byte // nil: none yet
}

func (p *packer) text(s string) []byte {
	at := len(p.bytes)
	p.bytes = append(p.bytes, s...)
	return p.since(at)
}

func (p *packer) copy(b []byte) []byte {
	at := len(p.bytes)
	p.bytes = append(p.bytes, b...)
	return p.since(at)
}

func (p *packer) instant(d delay.Due, last *stamp) []byte {
	if last.text == nil || last.at != d {
		at := len(p.bytes)
		p.bytes = d.Time().AppendFormat(p.bytes, instantLayout)
		*last = stamp{at: d, text: p.since(at)}
	}
	return last.text
}

func (p *packer) number(n uint32) []byte {
	at := len(p.bytes)
	p.bytes = strconv.AppendUint(p.bytes, uint64(n), 10)
	return p.since(at)
}

func (p *packer) since(at int) []byte { return p.bytes[at:len(p.bytes):len(p.bytes)] }

func (p *packer) name(s string) string {
	if !p.own {
		return s
	}
	at := p.names.Len()
	p.names.WriteString(s)
	return p.names.String()[at:]
}

// headers appends those of d: the caller's in their order, without what only we may say (K12), and
// ours.
func (p *packer) headers(dst []kgo.RecordHeader, d *broker.Delivery) []kgo.RecordHeader {
	for _, h := range d.Headers {
		if ours(h.Name) {
			continue
		}
		dst = append(dst, kgo.RecordHeader{Key: p.name(h.Name), Value: p.text(h.Value)})
	}
	return append(dst,
		kgo.RecordHeader{Key: headerID, Value: p.text(string(d.ID))},
		kgo.RecordHeader{Key: headerDue, Value: p.instant(d.Due, &p.due)},
		kgo.RecordHeader{Key: headerAttempt, Value: p.number(d.Attempt)},
		kgo.RecordHeader{Key: headerFiredAt, Value: p.instant(d.FiredAt, &p.fired)},
	)
}

// ours reports whether a header is not the caller's to set.
func ours(name string) bool {
	const prefix = "cicada-"
	return len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix)
}

// count tells when a number of things have happened.
type count struct {
	left atomic.Int64
	zero chan struct{} // closed then
}

func newCount(n int) *count {
	c := &count{zero: make(chan struct{})}
	c.left.Store(int64(n))
	return c
}

func (c *count) down() {
	if c.left.Add(-1) == 0 {
		close(c.zero)
	}
}
