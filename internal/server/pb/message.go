// SPDX-License-Identifier: Apache-2.0

package pb

import (
	"time"

	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/wire"
)

// Item reads a message into draft, checking each field like the JSON API does.
func Item(m *cicadav1.Message, draft *delay.Draft) (wire.Item, error) {
	it := wire.Item{Draft: draft}
	draft.Body, draft.RoutingKey, draft.Replace = m.GetBody(), m.GetKey(), m.GetReplace()
	draft.RefuseCrowded = m.GetRefuseCrowded()
	if m.GetTarget() != "" {
		it.Given |= wire.FieldTarget
		draft.Target = delay.Target(m.GetTarget())
	}
	if m.GetId() != "" {
		draft.ID = delay.ID(m.GetId())
		if err := wire.CheckID(draft.ID); err != nil {
			return it, err
		}
	}
	if err := wire.CheckKey(draft.RoutingKey); err != nil {
		return it, err
	}
	if err := wire.CheckBody(wire.FieldBody, draft.Body); err != nil {
		return it, err
	}
	if n := len(m.GetHeaders()); n > 0 {
		draft.Headers = make([]delay.Header, n)
		for i, h := range m.GetHeaders() {
			draft.Headers[i] = delay.Header{Name: h.GetName(), Value: h.GetValue()}
		}
		if err := wire.SortHeaders(draft.Headers); err != nil {
			return it, err
		}
	}
	if err := whenOf(m, &it); err != nil {
		return it, err
	}
	return it, optionsOf(m, &it)
}

// whenOf reads the instant, the delay or the schedule.
func whenOf(m *cicadav1.Message, it *wire.Item) (err error) {
	switch when := m.GetWhen().(type) {
	case *cicadav1.Message_DeliverAtMs:
		it.Given |= wire.FieldDeliverAt
		it.When, err = Instant("deliver_at", when.DeliverAtMs)
	case *cicadav1.Message_DelayMs:
		it.Given |= wire.FieldDelay
		it.When, err = wire.Delay("delay", when.DelayMs)
	case *cicadav1.Message_Schedule:
		it.Given |= wire.FieldSchedule
		it.Recurrence().Expr = when.Schedule
	}
	if err != nil {
		return err
	}
	return recurrence(m, it)
}

// recurrence reads what belongs to a schedule.
func recurrence(m *cicadav1.Message, it *wire.Item) (err error) {
	if m.GetTimeZone() != "" {
		it.Given |= wire.FieldTimeZone
		it.Recurrence().Zone = m.GetTimeZone()
	}
	if m.GetMisfire() != "" {
		it.Given |= wire.FieldMisfire
		if it.Recurrence().Misfire, err = wire.ParseMisfire(m.GetMisfire()); err != nil {
			return err
		}
	}
	if m.MisfireLimit != nil {
		it.Given |= wire.FieldMisfireLimit
		it.Recurrence().MisfireLimit = m.GetMisfireLimit()
	}
	if m.UntilMs != nil {
		it.Given |= wire.FieldUntil
		at, err := Instant("until", m.GetUntilMs())
		if err != nil {
			return err
		}
		it.Recurrence().Until = delay.Due(at)
	}
	if m.Count != nil {
		it.Given |= wire.FieldCount
		it.Recurrence().Count = m.GetCount()
	}
	if m.JitterMs != nil {
		it.Given |= wire.FieldJitter
		it.Recurrence().Jitter, err = wire.Duration("jitter", m.GetJitterMs(), 0)
	}
	return err
}

// optionsOf reads the rest.
func optionsOf(m *cicadav1.Message, it *wire.Item) error {
	d := it.Draft
	for _, f := range [...]struct {
		name  string
		value *int64
		least int64
		into  *time.Duration
	}{
		{"ttl", m.TtlMs, 1, &d.TTL}, {"spread", m.SpreadMs, 0, &d.Spread},
		{"max_wait", m.MaxWaitMs, 1, &d.MaxWait}, {"backoff", m.BackoffMs, 1, &d.Backoff},
	} {
		if f.value == nil {
			continue
		}
		var err error
		if *f.into, err = wire.Duration(f.name, *f.value, f.least); err != nil {
			return err
		}
	}
	if m.NotAfterMs != nil {
		at, err := Instant("not_after", m.GetNotAfterMs())
		if err != nil {
			return err
		}
		d.NotAfter = delay.Due(at)
	}
	if m.MaxAttempts != nil {
		if d.MaxAttempts = m.GetMaxAttempts(); d.MaxAttempts == 0 {
			return delay.Invalid("max_attempts", "want at least 1")
		}
	}
	switch m.GetDurability() {
	case cicadav1.Durability_DURABILITY_UNSPECIFIED:
	case cicadav1.Durability_DURABILITY_LOCAL:
		it.Given |= wire.FieldDurability
	case cicadav1.Durability_DURABILITY_TIER:
		it.Given |= wire.FieldDurability
		d.Durability = delay.Tier
	default:
		return delay.Invalid("durability", "want local or tier")
	}
	switch mode := m.GetMode(); {
	case mode > cicadav1.Mode_MODE_EXACTLY_ONCE || mode < 0:
		return delay.Invalid("mode", "want at_least_once, at_most_once or exactly_once")
	case mode != cicadav1.Mode_MODE_UNSPECIFIED:
		d.Mode = delay.Mode(mode - 1)
	}
	return nil
}

// Instant checks epoch milliseconds.
func Instant(name string, ms int64) (int64, error) {
	due, err := wire.InstantOfMillis(ms)
	if err != nil {
		return 0, wire.Reason(name, err)
	}
	return int64(due), nil
}
