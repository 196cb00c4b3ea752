// SPDX-License-Identifier: Apache-2.0

package pb

import (
	cicadav1 "github.com/cicadamq/cicada/api/cicada/v1"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/server/wire"
	"github.com/cicadamq/cicada/scheduler"
)

// Receipt is the answer to one accepted message.
func Receipt(r *scheduler.Receipt) *cicadav1.Receipt {
	return &cicadav1.Receipt{Id: string(r.ID), DueMs: int64(r.Due),
		Durability: Durability(r.Durability), Duplicate: r.Duplicate,
		Generation: r.Generation, State: State(r.State), Crowded: r.Crowded,
		SuggestedAtMs: int64(r.Suggested)}
}

// Durability is that of the proto, whose enums have their zero besides.
func Durability(d delay.Durability) cicadav1.Durability { return cicadav1.Durability(d) + 1 }

// State likewise.
func State(s delay.State) cicadav1.State { return cicadav1.State(s) + 1 }

// Verdict is the verdict of r, whose numbers are those of the proto.
func Verdict(r scheduler.ChangeResult) cicadav1.Verdict { return cicadav1.Verdict(r.Verdict) }

// Info is what is known of one message, with the next firings of a schedule.
func Info(m *scheduler.Info, next []wire.Firing) *cicadav1.Info {
	return &cicadav1.Info{
		Id: string(m.ID), State: State(m.State), DueMs: int64(m.Due), Attempts: m.Attempts,
		Tier: cicadav1.Tier(m.Level) + 1, Target: string(m.Target), Key: m.RoutingKey,
		Headers: Headers(m.Headers), Size: int64(m.Size), Generation: m.Generation, Body: m.Body,
		Reason: m.Reason, LastError: m.LastError, DiedAtMs: int64(m.DiedAt),
		Schedule: schedule(m.Recurrence, next), Guard: guard(m.Guard),
	}
}

func guard(g *delay.Guard) *cicadav1.Guard {
	if g == nil {
		return nil
	}
	return &cicadav1.Guard{Lane: string(g.Lane), Entry: g.Entry}
}

// Limit is the limit of a target, nil for none.
func Limit(l delay.Limit) *cicadav1.Limit {
	if l.IsZero() {
		return nil
	}
	return &cicadav1.Limit{Rate: l.PerSecond(), Burst: l.Burst}
}

// Infos is a list of them, with the next firing of each that is a schedule.
func Infos(
	infos []scheduler.Info, forecast *wire.Forecaster, now delay.Due,
) []*cicadav1.Info {
	out := make([]*cicadav1.Info, len(infos))
	for i := range infos {
		out[i] = Info(&infos[i], forecast.Next(&infos[i], now, wire.ListedFirings))
	}
	return out
}

func schedule(r *delay.Recurrence, next []wire.Firing) *cicadav1.Schedule {
	if r == nil {
		return nil
	}
	out := &cicadav1.Schedule{
		Expression: r.Expr, TimeZone: wire.ZoneOf(r), Misfire: r.Misfire.String(),
		UntilMs: int64(r.Until), Count: r.Count, JitterMs: r.Jitter.Milliseconds(),
		Fired: r.Fired, Missed: r.Missed, LastDueMs: int64(r.Last), Paused: r.Paused,
	}
	if r.Misfire == delay.FireAll {
		out.MisfireLimit = wire.LimitOf(r)
	}
	for _, f := range next {
		out.Next = append(out.Next,
			&cicadav1.Firing{DueMs: int64(f.Due), Local: f.Local, Note: f.Note})
	}
	return out
}

// Headers are the headers of a message.
func Headers(headers []delay.Header) []*cicadav1.Header {
	if len(headers) == 0 {
		return nil
	}
	out := make([]*cicadav1.Header, len(headers))
	for i, h := range headers {
		out[i] = &cicadav1.Header{Name: h.Name, Value: h.Value}
	}
	return out
}

// Filter reads a filter; nil selects everything.
func Filter(f *cicadav1.Filter) (scheduler.Filter, error) {
	out := scheduler.Filter{Target: delay.Target(f.GetTarget()), IDPrefix: f.GetIdPrefix()}
	if s := f.GetState(); s != 0 {
		if s < 0 || s > cicadav1.State_STATE_SUPPRESSED {
			return out, delay.Invalid("state", "unknown state")
		}
		state := delay.State(s - 1)
		out.State = &state
	}
	if t := f.GetTier(); t != 0 {
		if t < 0 || t > cicadav1.Tier_TIER_COLD {
			return out, delay.Invalid("tier", "unknown tier")
		}
		level := delay.Level(t - 1)
		out.Level = &level
	}
	if k := f.GetKind(); k < 0 || k > cicadav1.Kind_KIND_GUARDED {
		return out, delay.Invalid("kind", "want message, schedule or guarded")
	}
	out.Kind = scheduler.Kind(f.GetKind())
	var err error
	if out.DueFrom, err = OptionalInstant("due_from", f.GetDueFromMs()); err != nil {
		return out, err
	}
	out.DueTo, err = OptionalInstant("due_to", f.GetDueToMs())
	return out, err
}

// OptionalInstant is Instant, or 0 when none is given.
func OptionalInstant(name string, ms int64) (delay.Due, error) {
	if ms == 0 {
		return 0, nil
	}
	at, err := Instant(name, ms)
	return delay.Due(at), err
}

// PageSize is the size of a page.
func PageSize(n uint32) (int, error) {
	switch {
	case n == 0:
		return wire.DefaultPage, nil
	case n > wire.MaxPage:
		return 0, delay.Invalid("limit", "want 1 to %d", wire.MaxPage)
	}
	return int(n), nil
}
