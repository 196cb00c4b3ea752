// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/broker/intake"
	"github.com/cicadamq/cicada/delay"
)

// item reads what a record asks for. Its body and headers are the record's own memory, which the
// client library made for it alone.
func (r *session) item(dst *broker.Item, m *nats.Msg, d *delivery, now delay.Due) error {
	r.headers = r.headers[:0]
	for name, values := range m.Header {
		for _, v := range values {
			r.headers = append(r.headers, intake.Header{Name: name, Value: []byte(v)})
		}
	}
	// The library gives them as a map. Several of one name stay in their order.
	slices.SortStableFunc(r.headers, func(a, b intake.Header) int {
		return strings.Compare(a.Name, b.Name)
	})
	rec := intake.Record{
		Value: m.Data, Headers: r.headers, Offset: int64(d.stream), Stored: d.stored,
	}
	return intake.Parse(dst, &rec, now, &r.opts)
}
