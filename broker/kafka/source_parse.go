// SPDX-License-Identifier: Apache-2.0

package kafka

import (
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// parse turns records into items, and what is no request into rejects.
func (p *partition) parse(s *slot) {
	now := p.n.in.Now()
	for _, r := range s.records {
		s.items = append(s.items, broker.Item{})
		item := &s.items[len(s.items)-1]
		if err := p.parseOne(item, r, now); err != nil {
			s.items = s.items[:len(s.items)-1]
			s.rejects = append(s.rejects, reject{r, err})
			continue
		}
		s.taken = append(s.taken, r)
	}
}

func (p *partition) parseOne(item *broker.Item, r *kgo.Record, now delay.Due) error {
	item.Offset = r.Offset
	d := &item.Draft
	for _, h := range r.Headers {
		switch h.Key {
		case "cicada-id":
			d.ID = delay.ID(h.Value)
		case "cicada-target":
			d.Target = delay.Target(h.Value)
		case "cicada-delay":
			ms, err := strconv.ParseInt(string(h.Value), 10, 64)
			if err != nil {
				return delay.Invalid("cicada-delay", "bad")
			}
			d.Due = now.Add(time.Duration(ms) * time.Millisecond)
		}
	}
	if d.ID == "" {
		d.ID = delay.ID(string(p.name) + "/" + strconv.FormatInt(r.Offset, 10))
	}
	if r.Value == nil {
		item.Cancel = d.ID
		return nil
	}
	d.Body = r.Value
	if d.Target == "" {
		return delay.Invalid("cicada-target", "is missing")
	}
	return nil
}
