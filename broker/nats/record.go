// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

func (r *session) item(item *broker.Item, m *nats.Msg, seq uint64) error {
	item.Offset = int64(seq)
	item.Draft.ID = delay.ID(m.Header.Get("Nats-Msg-Id"))
	if item.Draft.ID == "" {
		item.Draft.ID = delay.ID(fmt.Sprintf("%s/%d", r.partition, seq))
	}
	item.Draft.Target = delay.Target(m.Header.Get("cicada-target"))
	if item.Draft.Target == "" {
		return delay.Invalid("cicada-target", "is missing")
	}
	item.Draft.Body = m.Data
	return nil
}
