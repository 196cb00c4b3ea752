// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Each field of a schedule must arrive as it was given; its due is the shard's, and a default that
// is written down here would change the content that a repeated request is compared by (S4).
func TestSchedule(t *testing.T) {
	got, err := decodeOne(`{"id":"r","target":"pull:q","schedule":"0 9 * * MON",
		"time_zone":"Europe/Berlin","misfire":"fire_all","misfire_limit":10,
		"until":"2040-01-01T00:00:00Z","count":5,"jitter":"30s","ttl":"1h","body":"b",
		"replace":true,"mode":"at_most_once","durability":"tier"}`)
	require.NoError(t, err)
	require.Equal(t, delay.Draft{Replace: true, Message: delay.Message{
		ID: "r", Target: "pull:q", AcceptedAt: testNow, Durability: delay.Tier,
		Mode: delay.AtMostOnce, Body: []byte("b"), TTL: time.Hour,
		Recurrence: &delay.Recurrence{Expr: "0 9 * * MON", Zone: "Europe/Berlin",
			Misfire: delay.FireAll, MisfireLimit: 10, Until: 2208988800000, Count: 5,
			Jitter: 30 * time.Second}}}, got)
	got, err = decodeOne(`{"target":"log:","schedule":"@every 5m"}`)
	require.NoError(t, err)
	require.Equal(t, &delay.Recurrence{Expr: "@every 5m"}, got.Recurrence)
	require.Zero(t, got.Due)
	got, err = decodeOne(`{"target":"log:","delay":1}`)
	require.NoError(t, err)
	require.Nil(t, got.Recurrence)
}

// What makes no sense together must be refused with the field that is too much: taken silently, it
// would be a schedule that does something else than was asked for.
func TestScheduleContradictions(t *testing.T) {
	long := strings.Repeat("i", delay.MaxScheduleIDBytes+1)
	for in, field := range map[string]string{
		`"delay":1,"time_zone":"UTC"`:                            "time_zone",
		`"delay":1,"misfire":"skip"`:                             "misfire",
		`"delay":1,"misfire_limit":1`:                            "misfire_limit",
		`"delay":1,"until":1893553445000`:                        "until",
		`"delay":1,"count":1`:                                    "count",
		`"delay":1,"jitter":0`:                                   "jitter",
		`"delay":1,"schedule":"@daily"`:                          "schedule",
		`"deliver_at":1893553445000,"schedule":"@daily"`:         "schedule",
		`"schedule":"@daily","misfire_limit":5`:                  "misfire_limit",
		`"schedule":"@daily","misfire":"skip","misfire_limit":5`: "misfire_limit",
		`"schedule":"@daily","not_after":1893553445000`:          "not_after",
		`"schedule":"@daily","spread":"1m"`:                      "spread",
		`"schedule":"@daily","max_wait":"1m"`:                    "max_wait",
		`"schedule":"@daily","replace":true`:                     "replace",
		`"schedule":"@daily","id":"` + long + `"`:                "id",
	} {
		_, err := decodeOne(`{"target":"log:",` + in + `}`)
		var fe *delay.FieldError
		require.ErrorAs(t, err, &fe, in)
		require.Equal(t, field, fe.Field, in)
	}
	_, err := decodeOne(`{"target":"log:","schedule":"@daily","id":"` + long[1:] + `"}`)
	require.NoError(t, err)
	require.NoError(t, CheckID(delay.FiringID(delay.ID(long[1:]), delay.MaxDue)), "the last firing of the longest id has an id")
}

// The reply must tell what a person plans by: the zone's own clock, and what it does that day; what
// is not set is left out.
func TestAppendSchedule(t *testing.T) {
	info := scheduler.Info{ID: "r", Known: true, Due: 1774656005000, Target: "pull:q", Generation: 1,
		Recurrence: &delay.Recurrence{Expr: "30 2 * * *", Zone: "Europe/Berlin", Next: 1774661400000,
			Misfire: delay.FireAll, Until: 1774917005000, Count: 9, Jitter: 5 * time.Second,
			Start: 1774600000000, Last: 1774575005000, Fired: 3, Missed: 2}}
	info.Due = info.Recurrence.Next + 5000
	plans := NewForecaster()
	const want = `{"id":"r","state":"scheduled","due":"2026-03-28T01:30:05.000Z",` +
		`"due_ms":1774661405000,"attempts":0,"tier":"hot","target":"pull:q","key":"","headers":{},` +
		`"size":0,"generation":1,"schedule":{"expression":"30 2 * * *","time_zone":"Europe/Berlin",` +
		`"misfire":"fire_all","misfire_limit":100,"until":"2026-03-31T00:30:05.000Z","count":9,` +
		`"jitter":"5s","fired":3,"missed":2,"last":"2026-03-27T01:30:05.000Z",` +
		`"last_due_ms":1774575005000,"paused":false,"next":[` +
		`{"due":"2026-03-28T01:30:05.000Z","due_ms":1774661405000,` +
		`"local":"Sat 2026-03-28 02:30:05 +01:00"},` +
		`{"due":"2026-03-29T01:00:05.000Z","due_ms":1774746005000,` +
		`"local":"Sun 2026-03-29 03:00:05 +02:00",` +
		`"note":"02:30 on 2026-03-29 does not exist; this is the first instant after it"},` +
		`{"due":"2026-03-30T00:30:05.000Z","due_ms":1774830605000,` +
		`"local":"Mon 2026-03-30 02:30:05 +02:00"},` +
		`{"due":"2026-03-31T00:30:05.000Z","due_ms":1774917005000,` +
		`"local":"Tue 2026-03-31 02:30:05 +02:00"}]}}`
	show := Show{Next: plans.Next(&info, 0, ShownFirings)}
	require.Equal(t, want, string(AppendInfo(nil, &info, show)))

	info.Recurrence = &delay.Recurrence{Expr: "@every 1h", Paused: true, Start: 0, Next: 3_600_000}
	info.Due = 3_600_000
	show.Next = plans.Next(&info, 7_200_001, ListedFirings)
	out := string(AppendInfo(nil, &info, show))
	require.Contains(t, out, `"schedule":{"expression":"@every 1h","time_zone":"UTC",`+
		`"misfire":"fire_once","fired":0,"missed":0,"paused":true,"next":[{`+
		`"due":"1970-01-01T03:00:00.000Z","due_ms":10800000,`+
		`"local":"Thu 1970-01-01 03:00:00 +00:00"}]}`, "a paused one: from now on")
	require.True(t, json.Valid([]byte(out)))

	// A zone that a later database does not know must not keep the rest from being seen.
	info.Recurrence.Zone = "Atlantis/Capital"
	require.Empty(t, plans.Next(&info, 0, ShownFirings))
	require.Contains(t, string(AppendInfo(nil, &info, Show{})), `"next":[]`)
	require.Empty(t, plans.Next(&scheduler.Info{}, 0, ShownFirings))
}

// What a page of schedules costs beside one of messages.
func BenchmarkListedFiring(b *testing.B) {
	info := scheduler.Info{Due: 1774661400000, Recurrence: &delay.Recurrence{
		Expr: "30 2 * * *", Zone: "Europe/Berlin", Next: 1774661400000}}
	plans := NewForecaster()
	for b.Loop() {
		if len(plans.Next(&info, 0, ListedFirings)) != 1 {
			b.Fatal("none")
		}
	}
}
