// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pullFirings pulls and acks for a time and returns how often each firing came.
func (d *daemon) pullFirings(t *testing.T, queue string, span time.Duration) map[string]int {
	t.Helper()
	got := map[string]int{}
	for end := time.Now().Add(span); time.Now().Before(end); {
		for _, m := range d.pull(queue, obj{"max": 1000, "wait": "200ms"}) {
			id := text(m, "id")
			schedule := text(sub(t, m, "headers"), "cicada-schedule-id")
			require.Equal(t, fmt.Sprintf("%s@%d", schedule, num(t, m, "due_ms")), id)
			require.GreaterOrEqual(t, time.Now().UnixMilli(), num(t, m, "due_ms"), "early")
			got[id]++
			d.ack(queue, text(m, "receipt"))
		}
	}
	return got
}

// quiet pulls for a time: what comes was due before the call, which follows an answer that ended the
// firings.
func (d *daemon) quiet(t *testing.T, queue string, span time.Duration, why string) {
	t.Helper()
	ended := time.Now().UnixMilli()
	for id := range d.pullFirings(t, queue, span) {
		_, due, _ := strings.Cut(id, "@")
		ms, err := strconv.ParseInt(due, 10, 64)
		require.NoError(t, err)
		require.LessOrEqual(t, ms, ended, "%s fired, and its schedule is %s", id, why)
	}
}

// Recurring schedules as their users see them: made, shown, fired, paused, resumed, triggered,
// replaced and cancelled over the API, by a daemon that is killed and loses its disk in between.
func TestSchedules(t *testing.T) {
	t.Parallel()
	d := serve(t, "--bucket", objectStore(t), "--tier-flush-interval", "1s", "--local-hot-window", "2s")
	q := queue(t)
	made := d.send(obj{
		"id": "tick", "target": "pull:" + q, "schedule": "@every 1s", "body": "tick",
		"misfire": "fire_all", "misfire_limit": 1000, "durability": "tier", "headers": obj{"x": "y"},
	})
	first := num(t, made, "due_ms")
	d.send(obj{
		"id": "daily", "target": "pull:" + q, "schedule": "30 2 * * *", "time_zone": "Europe/Berlin",
	})
	got := d.pullFirings(t, q, 3500*time.Millisecond)
	d.kill()
	time.Sleep(2 * time.Second)
	d.start()
	for id, n := range d.pullFirings(t, q, 2*time.Second) {
		got[id] += n
	}
	d.flushed()
	d.kill()
	d.loseDisk()
	d.start()
	eventually(t, "ids are restored", func() bool {
		return d.call("GET", path("daily"), nil).status == http.StatusOK
	})
	// What was due while it was away is made up for, all of it.
	eventually(t, "everything that was due has come", func() bool {
		for id, n := range d.pullFirings(t, q, 500*time.Millisecond) {
			got[id] += n
		}
		_, last := got[fmt.Sprintf("tick@%d", first+10_000)]
		return last
	})
	for id, n := range d.pullFirings(t, q, time.Second) { // and comes once
		got[id] += n
	}
	for due := first; due < first+11_000; due += 1000 {
		n := got[fmt.Sprintf("tick@%d", due)]
		require.Positive(t, n, "the firing of second %d", (due-first)/1000)
		require.LessOrEqual(t, n, 2, "twice only when the disk was lost")
	}

	p := path("tick")
	require.Equal(t, "PAUSED", d.call("POST", p+"/pause", nil).ok(t)["result"])
	d.quiet(t, q, 2*time.Second, "paused")
	require.Equal(t, "FIRED", d.call("POST", p+"/fire", nil).ok(t)["result"])
	fired := map[string]int{}
	eventually(t, "the firing by hand", func() bool {
		maps.Copy(fired, d.pullFirings(t, q, 100*time.Millisecond))
		return len(fired) > 0
	})
	maps.Copy(fired, d.pullFirings(t, q, time.Second))
	require.Len(t, fired, 1)
	require.Equal(t, "RESUMED", d.call("POST", p+"/resume", nil).ok(t)["result"])
	eventually(t, "it goes on", func() bool {
		return len(d.pullFirings(t, q, 100*time.Millisecond)) > 0
	})
	require.Equal(t, "CANCELLED", d.call("DELETE", p, nil).ok(t)["result"])
	d.quiet(t, q, 2*time.Second, "cancelled")

	next := list(t, sub(t, d.get("daily"), "schedule"), "next")
	require.Len(t, next, 5)
	for _, n := range next {
		require.True(t, strings.Contains(text(n, "local"), "02:30:00"), "%v", n)
	}
	d.call("PATCH", path("daily"), obj{"delay": "1h"}).refused(t, 400, "invalid_argument", "deliver_at")
	b := d.books()
	balanced(t, b)
	require.EqualValues(t, 1, b["schedules"])
}
