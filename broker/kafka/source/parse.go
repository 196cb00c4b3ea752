// SPDX-License-Identifier: Apache-2.0

package source

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// maxKeptHeaders is the largest capacity of an item's headers that a slot keeps for the next one.
const maxKeptHeaders = 8

// slot is what one Take needs; there are maxTaking of them.
type slot struct {
	records []*kgo.Record
	items   []broker.Item // what records ask for; their memory is kept
	taken   []*kgo.Record // those of records that are items
	rejects []reject
	record  intake.Record // of parse
}

func newSlot() *slot {
	return &slot{
		records: make([]*kgo.Record, 0, broker.MaxBatch),
		items:   make([]broker.Item, 0, broker.MaxBatch),
		taken:   make([]*kgo.Record, 0, broker.MaxBatch),
	}
}

// reset lets go of everything that keeps fetched records alive.
func (s *slot) reset() {
	for i := range s.items {
		h := s.items[i].Draft.Headers
		s.items[i] = broker.Item{}
		if cap(h) <= maxKeptHeaders {
			clear(h[:cap(h)])
			s.items[i].Draft.Headers = h[:0]
		}
	}
	clear(s.records)
	clear(s.taken)
	clear(s.rejects)
	clear(s.record.Headers[:cap(s.record.Headers)])
	s.record = intake.Record{Headers: s.record.Headers[:0]}
	s.records, s.items, s.taken, s.rejects = s.records[:0], s.items[:0], s.taken[:0], s.rejects[:0]
}

// remember is check, which is not asked again for the target that passed last: most of a batch go
// to the same one. It is for one batch.
func remember(check func(delay.Target) error) func(delay.Target) error {
	if check == nil {
		return nil
	}
	var last delay.Target
	return func(t delay.Target) error {
		if t == last {
			return nil
		}
		err := check(t)
		if err == nil {
			last = t
		}
		return err
	}
}

// parse turns records into items, and what is no request into rejects. The items alias the records.
func (p *partition) parse(s *slot) {
	opts := intake.Options{
		Kind: intake.Kafka, Broker: p.n.opts.Broker, IDFromKey: p.n.opts.IDFromKey,
		CheckTarget: remember(p.n.opts.CheckTarget), Origin: p.name,
	}
	now := p.n.in.Now()
	rec := &s.record
	for _, r := range s.records {
		rec.Key, rec.Value, rec.Offset, rec.Headers = r.Key, r.Value, r.Offset, rec.Headers[:0]
		rec.Stored = delay.Due(r.Timestamp.UnixMilli())
		for i := range r.Headers {
			h := &r.Headers[i]
			rec.Headers = append(rec.Headers, intake.Header{Name: h.Key, Value: h.Value})
		}
		n := len(s.items)
		s.items = s.items[:n+1]
		if err := intake.Parse(&s.items[n], rec, now, &opts); err != nil {
			s.items = s.items[:n]
			s.rejects = append(s.rejects, reject{r, err})
			continue
		}
		s.taken = append(s.taken, r)
	}
}
