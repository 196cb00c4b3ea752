// SPDX-License-Identifier: Apache-2.0

package intake

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

const now = delay.Due(1_800_000_000_000)

func record(headers ...string) *Record {
	rec := &Record{Key: []byte("k"), Value: []byte("body"), Offset: 7}
	for i := 0; i < len(headers); i += 2 {
		rec.Headers = append(rec.Headers,
			Header{Name: headers[i], Value: []byte(headers[i+1])})
	}
	return rec
}

func options(kind Kind) *Options {
	return &Options{Kind: kind, Broker: "b1", Target: "pull:fallback",
		Origin: broker.Partition(string(kind) + ":b1/topic/3")}
}

func parse(t *testing.T, kind Kind, headers ...string) delay.Draft {
	t.Helper()
	var it broker.Item
	require.NoError(t, Parse(&it, record(headers...), now, options(kind)))
	return it.Draft
}

// refused parses what must be an error that names the header (I1).
func refused(t *testing.T, rec *Record, opts *Options, header, reason string) {
	t.Helper()
	it := broker.Item{Offset: -1}
	err := Parse(&it, rec, now, opts)
	var fault *delay.FieldError
	require.ErrorAs(t, err, &fault)
	require.Equal(t, header, fault.Field, "%v", err)
	require.Contains(t, fault.Reason, reason)
	require.Equal(t, rec.Offset, it.Offset)
}

// Each header must be understood in its own unit: seconds taken for milliseconds are due at once.
func TestEveryHeader(t *testing.T) {
	at := func(ms int64) func(*delay.Draft) bool {
		return func(d *delay.Draft) bool { return d.Due == delay.Due(ms) && !d.ByDelay }
	}
	in := func(w time.Duration) func(*delay.Draft) bool {
		return func(d *delay.Draft) bool { return d.Due == now.Add(w) && d.ByDelay }
	}
	type check = func(*delay.Draft) bool
	type row struct {
		value string
		also  []string
		want  check
	}
	due := []string{"cicada-delay", "1s"}
	expr := func(want string) check {
		return func(d *delay.Draft) bool { return d.Recurrence.Expr == want && d.Due == 0 }
	}
	for kind, rows := range map[Kind]map[string]row{
		"": {
			"cicada-deliver-at":   {"2030-01-02T03:04:05Z", nil, at(1893553445000)},
			"cicada-delay":        {"1d", nil, in(24 * time.Hour)},
			"cicada-target":       {"http://h/x", due, func(d *delay.Draft) bool { return d.Target == "http://h/x" }},
			"cicada-key":          {"rk", due, func(d *delay.Draft) bool { return d.RoutingKey == "rk" }},
			"cicada-id":           {"o-1", due, func(d *delay.Draft) bool { return d.ID == "o-1" }},
			"cicada-ttl":          {"PT90S", due, func(d *delay.Draft) bool { return d.TTL == 90*time.Second }},
			"cicada-not-after":    {"1900000000000", due, func(d *delay.Draft) bool { return d.NotAfter == 1_900_000_000_000 }},
			"cicada-spread":       {"60000", due, func(d *delay.Draft) bool { return d.Spread == time.Minute && d.Given == now+1000 }},
			"cicada-schedule":     {"0 9 * * MON", nil, expr("0 9 * * MON")},
			"cicada-time-zone":    {"Europe/Berlin", []string{"cicada-schedule", "@daily"}, func(d *delay.Draft) bool { return d.Recurrence.Zone == "Europe/Berlin" }},
			"cicada-misfire":      {"skip", []string{"cicada-schedule", "@daily"}, func(d *delay.Draft) bool { return d.Recurrence.Misfire == delay.SkipMissed }},
			"cicada-until":        {"1900000000000", []string{"cicada-schedule", "@daily"}, func(d *delay.Draft) bool { return d.Recurrence.Until == 1_900_000_000_000 }},
			"cicada-count":        {"3", []string{"cicada-schedule", "@daily"}, func(d *delay.Draft) bool { return d.Recurrence.Count == 3 }},
			"cicada-jitter":       {"5s", []string{"cicada-schedule", "@daily"}, func(d *delay.Draft) bool { return d.Recurrence.Jitter == 5*time.Second }},
			"cicada-replace":      {"true", due, func(d *delay.Draft) bool { return d.Replace }},
			"cicada-max-wait":     {"2h", due, func(d *delay.Draft) bool { return d.MaxWait == 2*time.Hour }},
			"cicada-max-attempts": {"5", due, func(d *delay.Draft) bool { return d.MaxAttempts == 5 }},
			"cicada-backoff":      {"250", due, func(d *delay.Draft) bool { return d.Backoff == 250*time.Millisecond }},
			"cicada-misfire-limit": {"9", []string{"cicada-schedule", "@daily", "cicada-misfire", "fire_all"},
				func(d *delay.Draft) bool {
					return d.Recurrence.MisfireLimit == 9 && d.Recurrence.Misfire == delay.FireAll
				}},
			"cicada-cancel": {"false", due, func(d *delay.Draft) bool { return d.Due > 0 }},
			"cicada-error":  {"what it was", due, func(d *delay.Draft) bool { return len(d.Headers) == 0 }},
			"cicada-source": {"where it was", due, func(d *delay.Draft) bool { return len(d.Headers) == 0 }},
		},
		Kafka: {
			"scheduler-epoch":        {"1900000000", nil, at(1_900_000_000_000)},
			"scheduler-target-topic": {"orders", due, func(d *delay.Draft) bool { return d.Target == "kafka:b1/orders" }},
			"scheduler-target-key":   {"tk", due, func(d *delay.Draft) bool { return d.RoutingKey == "tk" }},
			"kafka-scheduler-cron":   {"0 0 * * *", nil, expr("0 0 * * *")},
			"x-delay":                {"1500", nil, in(1500 * time.Millisecond)},
			"x-opt-delivery-time":    {"1900000000123", nil, at(1_900_000_000_123)},
			"x-opt-delivery-delay":   {"2500", nil, in(2500 * time.Millisecond)},
			"_AMQ_SCHED_DELIVERY":    {"1900000000456", nil, at(1_900_000_000_456)},
			"AMQ_SCHEDULED_DELAY":    {"3500", nil, in(3500 * time.Millisecond)},
			"AMQ_SCHEDULED_CRON":     {"0 * * * *", nil, expr("0 * * * *")},
			"ce_expirytime": {"2030-01-02T03:04:05Z", due, func(d *delay.Draft) bool {
				return d.NotAfter == 1893553445000 && len(d.Headers) == 1
			}},
		},
		NATS: {
			"Nats-Schedule":           {"@at 2030-01-02T03:04:05Z", nil, at(1893553445000)},
			"Nats-Schedule-Target":    {"orders.due", due, func(d *delay.Draft) bool { return d.Target == "nats:b1/orders.due" }},
			"Nats-Schedule-TTL":       {"90", due, func(d *delay.Draft) bool { return d.TTL == 90*time.Second }},
			"Nats-Schedule-Time-Zone": {"Asia/Tokyo", []string{"Nats-Schedule", "0 0 9 * * *"}, func(d *delay.Draft) bool { return d.Recurrence.Zone == "Asia/Tokyo" }},
			"Nats-Msg-Id":             {"m-1", due, func(d *delay.Draft) bool { return d.ID == "m-1" }},
			"x-delay":                 {"1500", nil, in(1500 * time.Millisecond)},
			"ce-expirytime": {"2030-01-02T03:04:05Z", due, func(d *delay.Draft) bool {
				return d.NotAfter == 1893553445000 && len(d.Headers) == 1
			}},
		},
		RocketMQ: {
			"TIMER_DELIVER_MS":   {"1900000000789", nil, at(1_900_000_000_789)},
			"TIMER_DELAY_MS":     {"4500", nil, in(4500 * time.Millisecond)},
			"TIMER_DELAY_SEC":    {"45", nil, in(45 * time.Second)},
			"DELAY":              {"7", nil, in(3 * time.Minute)},
			"__STARTDELIVERTIME": {"1900000000321", nil, at(1_900_000_000_321)},
		},
	} {
		kinds, table := []Kind{kind}, aliases(kind)
		if kind == "" {
			kinds, table = []Kind{Kafka, NATS, RocketMQ}, canonical[:]
		}
		require.Len(t, rows, len(table), "a header of %q has no test", kind)
		for _, e := range table {
			r, tested := rows[e.name]
			require.True(t, tested, "%s", e.name)
			for _, k := range kinds {
				d := parse(t, k, append([]string{e.name, r.value}, r.also...)...)
				require.True(t, r.want(&d), "%s of %s: %+v", e.name, k, d)
				if !e.keep {
					require.Empty(t, d.Headers, "%s reaches the receiver (I2)", e.name)
				}
			}
			if e.field != fieldNone {
				refused(t, record(e.name, "x", e.name, "x"), options(kinds[0]), e.name, "")
			}
		}
	}
}

// The default levels of RocketMQ, all 18: one shifted by a place would be early.
func TestDelayLevels(t *testing.T) {
	const levels = "1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h"
	for i, text := range strings.Fields(levels) {
		want, err := time.ParseDuration(text)
		require.NoError(t, err)
		d := parse(t, RocketMQ, "DELAY", fmt.Sprint(i+1))
		require.Equal(t, now.Add(want), d.Due)
	}
}

// Whatever is not understood must be refused by its name: ignored, a message would go out at the
// wrong time or to the wrong place (I1).
func TestRefused(t *testing.T) {
	long := strings.Repeat("x", delay.MaxIDBytes+1)
	many := make([]string, 0, 2*delay.MaxHeaders+4)
	for i := range delay.MaxHeaders + 1 {
		many = append(many, fmt.Sprint("h", i), "v")
	}
	for _, c := range []struct {
		kind           Kind
		header, reason string
		headers        []string
	}{
		{Kafka, "cicada-deliver-at", "is needed", nil},
		{Kafka, "cicada-delai", "unknown", []string{"cicada-delay", "1s", "cicada-delai", "2s"}},
		{Kafka, "Cicada-Nonsense", "unknown", []string{"Cicada-Nonsense", ""}},
		{Kafka, "cicada-due", "unknown", []string{"cicada-due", "1900000000000"}},
		{Kafka, "cicada-delay", "cicada-deliver-at is given too",
			[]string{"cicada-delay", "1s", "cicada-deliver-at", "1900000000000"}},
		{Kafka, "scheduler-epoch", "cicada-deliver-at is given too, which says the same",
			[]string{"cicada-deliver-at", "1900000000000", "scheduler-epoch", "1900000000"}},
		{Kafka, "cicada-delay", "is given twice", []string{"cicada-delay", "1s", "cicada-delay", "1s"}},
		{Kafka, "CICADA-DELAY", "says the same", []string{"cicada-delay", "1s", "CICADA-DELAY", "1s"}},
		{Kafka, "cicada-delay", "negative", []string{"cicada-delay", "-1s"}},
		{Kafka, "cicada-delay", "want a duration", []string{"cicada-delay", ""}},
		{Kafka, "cicada-delay", "year 9999", []string{"cicada-delay", "253402300799999"}},
		{Kafka, "cicada-deliver-at", "seconds?", []string{"cicada-deliver-at", "1900000000"}},
		{Kafka, "scheduler-epoch", "year 9999", []string{"scheduler-epoch", "1900000000000"}},
		{Kafka, "scheduler-epoch", "whole number", []string{"scheduler-epoch", "+1900000000"}},
		{Kafka, "x-opt-delivery-time", "seconds?", []string{"x-opt-delivery-time", "1900000000"}},
		{Kafka, "x-delay", "whole number", []string{"x-delay", "1s"}},
		{Kafka, "ce_expirytime", "want RFC 3339",
			[]string{"cicada-delay", "1s", "ce_expirytime", "1900000000000"}},
		{Kafka, "cicada-id", "must not be empty", []string{"cicada-delay", "1s", "cicada-id", ""}},
		{Kafka, "cicada-id", "longer than", []string{"cicada-delay", "1s", "cicada-id", long}},
		{Kafka, "cicada-id", "control", []string{"cicada-delay", "1s", "cicada-id", "a\nb"}},
		{Kafka, "cicada-key", "control", []string{"cicada-delay", "1s", "cicada-key", "a\x00b"}},
		{Kafka, "cicada-target", "is needed", []string{"cicada-delay", "1s", "cicada-target", ""}},
		{Kafka, "cicada-target", "kind", []string{"cicada-delay", "1s", "cicada-target", "orders"}},
		{Kafka, "cicada-target", "spaces", []string{"cicada-delay", "1s", "cicada-target", "pull:a b"}},
		{Kafka, "scheduler-target-topic", "is needed",
			[]string{"cicada-delay", "1s", "scheduler-target-topic", ""}},
		{Kafka, "cicada-ttl", "positive", []string{"cicada-delay", "1s", "cicada-ttl", "0"}},
		{Kafka, "cicada-ttl", "292 years", []string{"cicada-delay", "1s", "cicada-ttl", "200000d"}},
		{Kafka, "cicada-ttl", "year 9999",
			[]string{"cicada-deliver-at", "253402300799000", "cicada-ttl", "1d"}},
		{Kafka, "cicada-spread", "year 9999",
			[]string{"cicada-deliver-at", "253402300799000", "cicada-spread", "1d"}},
		{Kafka, "cicada-replace", "true or false", []string{"cicada-delay", "1s", "cicada-replace", "1"}},
		{Kafka, "cicada-max-attempts", "1 to", []string{"cicada-delay", "1s", "cicada-max-attempts", "0"}},
		{Kafka, "cicada-misfire", "needs cicada-schedule",
			[]string{"cicada-delay", "1s", "cicada-misfire", "skip"}},
		{Kafka, "cicada-misfire", "want fire_once",
			[]string{"cicada-schedule", "@daily", "cicada-misfire", "fire"}},
		{Kafka, "cicada-misfire-limit", "fire_all",
			[]string{"cicada-schedule", "@daily", "cicada-misfire-limit", "5"}},
		{Kafka, "cicada-misfire-limit", "1 to 1000",
			[]string{"cicada-schedule", "@daily", "cicada-misfire-limit", "1001"}},
		{Kafka, "cicada-delay", "cicada-schedule is given too",
			[]string{"cicada-schedule", "@daily", "cicada-delay", "1s"}},
		{Kafka, "cicada-deliver-at", "cicada-schedule is given too",
			[]string{"cicada-schedule", "@daily", "cicada-deliver-at", "1900000000000"}},
		{Kafka, "cicada-not-after", "cicada-until",
			[]string{"cicada-schedule", "@daily", "cicada-not-after", "1900000000000"}},
		{Kafka, "cicada-spread", "cicada-jitter",
			[]string{"cicada-schedule", "@daily", "cicada-spread", "1s"}},
		{Kafka, "cicada-max-wait", "schedule",
			[]string{"cicada-schedule", "@daily", "cicada-max-wait", "1s"}},
		{Kafka, "cicada-schedule", "1 to 256", []string{"cicada-schedule", ""}},
		{Kafka, "cicada-time-zone", "IANA",
			[]string{"cicada-schedule", "@daily", "cicada-time-zone", ""}},
		{Kafka, "cicada-id", "firings",
			[]string{"cicada-schedule", "@daily", "cicada-id", long[:delay.MaxIDBytes]}},
		{Kafka, "cicada-delay", "only an id",
			[]string{"cicada-cancel", "true", "cicada-id", "a", "cicada-delay", "1s"}},
		{Kafka, "cicada-id", "needs one", []string{"cicada-cancel", "true"}},
		{NATS, "Nats-Schedule-Source", "not supported",
			[]string{"cicada-delay", "1s", "Nats-Schedule-Source", "x"}},
		{NATS, "Nats-Schedule", "RFC 3339", []string{"Nats-Schedule", "@at 1900000000000"}},
		{NATS, "Nats-Schedule", "which says the same", []string{"cicada-schedule", "@daily", "Nats-Schedule", "@daily"}},
		{NATS, "Nats-Schedule-TTL", "want a duration",
			[]string{"cicada-delay", "1s", "Nats-Schedule-TTL", "soon"}},
		{Kafka, "cicada-not-after", "before 1970",
			[]string{"cicada-delay", "1s", "cicada-not-after", "1970-01-01T00:00:00Z"}},
		{Kafka, "cicada-until", "before 1970",
			[]string{"cicada-schedule", "@daily", "cicada-until", "1970-01-01T00:00:00Z"}},
		{RocketMQ, "DELAY", "1 to 18", []string{"DELAY", "0"}},
		{RocketMQ, "DELAY", "1 to 18", []string{"DELAY", "19"}},
		{RocketMQ, "DELAY", "says the same", []string{"TIMER_DELAY_MS", "1", "DELAY", "3"}},
		{Kafka, "x", "is given twice", []string{"cicada-delay", "1s", "x", "1", "x", "2"}},
		{Kafka, "x", "control characters", []string{"cicada-delay", "1s", "x", "a\nb"}},
		{Kafka, "x", "UTF-8", []string{"cicada-delay", "1s", "x", "\xff"}},
		{Kafka, "headers", "a name", []string{"cicada-delay", "1s", "", "v"}},
		{Kafka, "headers", "a name", []string{"cicada-delay", "1s", "a\nb", "v"}},
		{Kafka, "headers", "more than 64", append(many, "cicada-delay", "1s")},
		{Kafka, "headers", "together",
			[]string{"cicada-delay", "1s", "x", strings.Repeat("v", delay.MaxHeaderBytes)}},
	} {
		refused(t, record(c.headers...), options(c.kind), c.header, c.reason)
	}
}

// The record itself has limits too, and a key that is no text cannot be a routing key or an id.
func TestRefusedRecords(t *testing.T) {
	rec := record("cicada-delay", "1s")
	rec.Value = make([]byte, delay.MaxBodyBytes+1)
	refused(t, rec, options(Kafka), "value", "more than")

	rec = record("cicada-delay", "1s")
	rec.Key = []byte{0, 1, 2}
	refused(t, rec, options(Kafka), "key", "cicada-key")
	rec.Headers = append(rec.Headers, Header{Name: "cicada-key", Value: []byte("text")})
	var it broker.Item
	require.NoError(t, Parse(&it, rec, now, options(Kafka)))

	byKey := options(Kafka)
	byKey.IDFromKey = true
	refused(t, rec, byKey, "cicada-id", "control")
	refused(t, record("cicada-delay", "1s", "cicada-id", "other"), byKey, "cicada-id", "the record's key")

	opts := options(Kafka)
	opts.Target = ""
	refused(t, record("cicada-delay", "1s"), opts, "cicada-target", "is needed")
	opts.CheckTarget = func(t delay.Target) error { return delay.Invalid("target", "no %s", t) }
	refused(t, record("cicada-delay", "1s", "cicada-target", "pull:q"), opts, "cicada-target", "no pull:q")
	opts.CheckTarget = func(delay.Target) error { return delay.ErrUnimplemented }
	require.ErrorIs(t, Parse(&it, record("cicada-delay", "1s", "cicada-target", "pull:q"), now, opts),
		delay.ErrUnimplemented)
}

// An id must be the same each time the record is read, or it is stored twice (I3, R17); and two
// records must never share one.
func TestIdentity(t *testing.T) {
	require.Equal(t, delay.ID("kafka:b1/topic/3/7"), parse(t, Kafka, "cicada-delay", "1s").ID)
	d := parse(t, NATS, "cicada-delay", "1s", "Nats-Msg-Id", "weak", "cicada-id", "strong")
	require.Equal(t, delay.ID("strong"), d.ID)

	byKey := options(Kafka)
	byKey.IDFromKey = true
	var it broker.Item
	require.NoError(t, Parse(&it, record("cicada-delay", "1s"), now, byKey))
	require.Equal(t, delay.ID("k"), it.Draft.ID)
	require.Empty(t, it.Draft.RoutingKey, "the key is the id")
	rec := record("cicada-delay", "1s")
	rec.Key = nil
	require.NoError(t, Parse(&it, rec, now, byKey))
	require.Equal(t, delay.ID("kafka:b1/topic/3/7"), it.Draft.ID)

	seen := map[delay.ID]bool{}
	for _, end := range []string{"a", "b"} {
		opts := options(Kafka)
		opts.Origin = broker.Partition("kafka:main/" + strings.Repeat("x", 300) + end)
		for offset := range int64(50) {
			rec.Offset = offset
			require.NoError(t, Parse(&it, rec, now, opts))
			require.LessOrEqual(t, len(it.Draft.ID), delay.MaxIDBytes)
			require.False(t, seen[it.Draft.ID])
			seen[it.Draft.ID] = true
		}
	}
}

// A null value with an id cancels, on Kafka alone: elsewhere an empty message is a message.
func TestCancel(t *testing.T) {
	var it broker.Item
	rec := record("cicada-id", "o-1", "x", "1")
	rec.Value = nil
	require.NoError(t, Parse(&it, rec, now, options(Kafka)))
	require.Equal(t, delay.ID("o-1"), it.Cancel)
	rec.Value = []byte{}
	refused(t, rec, options(Kafka), "cicada-deliver-at", "is needed")

	rec = record()
	rec.Value = nil
	refused(t, rec, options(Kafka), "cicada-id", "needs one")
	byKey := options(Kafka)
	byKey.IDFromKey = true
	require.NoError(t, Parse(&it, rec, now, byKey))
	require.Equal(t, delay.ID("k"), it.Cancel)
	rec.Headers = record("cicada-delay", "1s").Headers
	refused(t, rec, byKey, "cicada-delay", "only an id")

	rec = record("cicada-delay", "1s", "cicada-id", "a")
	rec.Value = nil
	for _, kind := range []Kind{NATS, RocketMQ} {
		require.NoError(t, Parse(&it, rec, now, options(kind)))
		require.Empty(t, it.Cancel)
		require.Empty(t, it.Draft.Body)
		require.NoError(t, Parse(&it, record("cicada-cancel", "true", "cicada-id", "a"), now, options(kind)))
		require.Equal(t, delay.ID("a"), it.Cancel)
	}
}

// What is not ours is delivered as it was; headers that would command the NATS server, and those of
// the peers, are not (I2). Names of others are exact: "delay" is somebody's own.
func TestHeadersKept(t *testing.T) {
	d := parse(t, Kafka, "z", "größe", "cicada-delay", "1s", "a", "", "delay", "5", "DELAY", "6", "Nats-Rollup", "x")
	require.Equal(t, []delay.Header{{Name: "DELAY", Value: "6"}, {Name: "Nats-Rollup", Value: "x"},
		{Name: "a", Value: ""}, {Name: "delay", Value: "5"}, {Name: "z", Value: "größe"}}, d.Headers)

	d = parse(t, NATS, "Nats-Schedule", "@every 5m", "Nats-Expected-Last-Sequence", "5", "nats-rollup", "all",
		"Nats-Scheduler", "s", "Nats-Schedule-Next", "purge", "x", "1")
	require.Equal(t, []delay.Header{{Name: "x", Value: "1"}}, d.Headers)
	require.Equal(t, "@every 5m", d.Recurrence.Expr)
	require.Zero(t, parse(t, NATS, "cicada-delay", "1s", "Nats-Schedule-TTL", "never").TTL)
}

// A delay counts from when the broker got the record: else it begins anew whenever the record is read
// again, and a daemon that was down adds its absence to it. A time to come, or none, is not believed:
// it would make the delay longer than was asked for (I3).
func TestDelayCountsFromTheBroker(t *testing.T) {
	for stored, from := range map[delay.Due]delay.Due{
		now - 90_000: now - 90_000, now - 1: now - 1, now: now, now + 1: now, now + 90_000: now,
		0: now, -1: now, delay.MaxDue: now,
	} {
		rec := record("cicada-delay", "1h")
		rec.Stored = stored
		var it broker.Item
		require.NoError(t, Parse(&it, rec, now, options(Kafka)))
		require.Equal(t, from.Add(time.Hour), it.Draft.Due, "stored %d", stored)
		require.True(t, it.Draft.ByDelay)
		require.Equal(t, now, it.Draft.AcceptedAt)
		for _, alias := range []string{"x-delay", "x-opt-delivery-delay"} {
			rec = record(alias, "1000")
			rec.Stored = stored
			require.NoError(t, Parse(&it, rec, now, options(Kafka)))
			require.Equal(t, from+1000, it.Draft.Due, alias)
		}
		rec = record("cicada-deliver-at", "1900000000000")
		rec.Stored = stored
		require.NoError(t, Parse(&it, rec, now, options(Kafka)))
		require.EqualValues(t, 1_900_000_000_000, it.Draft.Due, "an instant counts from nothing")
	}
}

// An item is used again and again: what an earlier record left in it must not show.
func TestItemIsReset(t *testing.T) {
	var it, fresh broker.Item
	first := record("cicada-schedule", "@daily", "cicada-id", "s", "cicada-ttl", "1s", "x", "1")
	second := record("cicada-delay", "1s")
	require.NoError(t, Parse(&it, first, now, options(Kafka)))
	it.Err, it.Cancel = errors.New("old"), "old"
	require.NoError(t, Parse(&it, second, now, options(Kafka)))
	require.NoError(t, Parse(&fresh, second, now, options(Kafka)))
	fresh.Draft.Headers = it.Draft.Headers // both empty
	require.Empty(t, it.Draft.Headers)
	require.Equal(t, fresh, it)
}

// Reading must not allocate: it is once for every record (I4).
func TestAllocations(t *testing.T) {
	rec := record("cicada-delay", "1h", "cicada-target", "pull:q", "cicada-id", "o-1", "x", "1")
	opts := options(Kafka)
	var it broker.Item
	require.NoError(t, Parse(&it, rec, now, opts))
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = Parse(&it, rec, now, opts) }))
}

func BenchmarkParse(b *testing.B) {
	rec := record("cicada-deliver-at", "1900000000000", "cicada-target", "pull:q", "cicada-id", "o-1",
		"x", "1")
	opts := options(Kafka)
	var it broker.Item
	b.ReportAllocs()
	for b.Loop() {
		_ = Parse(&it, rec, now, opts)
	}
}

// Whatever a broker holds, Parse must not fail in another way than by an error, and what it takes
// must keep the limits that the shard relies on (I1), and come out the same a second time (I3).
func FuzzParse(f *testing.F) {
	f.Add("kafka", []byte("k"), []byte("v"), "cicada-delay", "1s", "cicada-target", "pull:q", false)
	f.Add("kafka", []byte("k"), []byte(nil), "cicada-id", "a", "x", "y", true)
	f.Add("nats", []byte(nil), []byte("v"), "Nats-Schedule", "@at 2030-01-02T03:04:05Z", "Nats-Msg-Id", "1", false)
	f.Add("nats", []byte(nil), []byte("v"), "Nats-Schedule", "@every 5m", "cicada-count", "7", false)
	f.Add("rocketmq", []byte(nil), []byte("v"), "DELAY", "18", "cicada-spread", "5m", false)
	f.Fuzz(func(t *testing.T, kind string, key, value []byte, n1, v1, n2, v2 string, byKey bool) {
		if kind != "kafka" && kind != "nats" && kind != "rocketmq" {
			return
		}
		rec := record(n1, v1, n2, v2)
		rec.Key, rec.Value = key, value
		opts := options(Kind(kind))
		opts.IDFromKey = byKey
		var it, again broker.Item
		err := Parse(&it, rec, now, opts)
		require.Equal(t, err == nil, Parse(&again, rec, now, opts) == nil)
		require.Equal(t, int64(7), it.Offset)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			return
		}
		require.Equal(t, it, again)
		if it.Cancel != "" {
			return
		}
		d := &it.Draft
		require.True(t, d.ID != "" && len(d.ID) <= delay.MaxIDBytes && delay.ValidText(string(d.ID)))
		require.True(t, d.Due >= 0 && d.Due <= delay.MaxDue && d.Expires() <= delay.MaxDue)
		require.True(t, d.TTL >= 0 && d.Spread >= 0 && d.Backoff >= 0 && d.MaxWait >= 0)
		require.True(t, d.Target != "" && delay.ValidText(string(d.Target)+d.RoutingKey))
		require.True(t, d.Recurrence == nil || d.Due == 0, "%+v", d)
		for _, h := range d.Headers {
			require.False(t, isOurs(h.Name))
			require.True(t, delay.ValidText(h.Name+h.Value))
		}
	})
}
