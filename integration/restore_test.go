// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// What was accepted as local, and not uploaded yet, is lost with the disk and counted; what is
// older than a flush interval comes back, with its ids, outcomes, dead letters and parked messages
// (R5, R14, R15).
func TestRestoreEverything(t *testing.T) {
	t.Parallel()
	d := serve(t, "--bucket", objectStore(t), "--tier-flush-interval", "1s", "--tier-min-wait", "1s",
		"--local-hot-window", "2s")
	for i := range 50 {
		d.send(obj{"id": fmt.Sprint("far-", i), "target": "pull:far", "delay": "1h", "body": "x"})
	}
	require.Equal(t, "CANCELLED", d.call("DELETE", path("far-3"), nil).ok(t)["result"])
	moved := d.call("PATCH", path("far-4"), obj{"delay": "2h"}).ok(t)
	// Dead, expired, delivered, leased once and given back, waiting in a paused lane.
	d.send(obj{"id": "dead", "target": "pull:dead", "delay": 0, "max_attempts": 1})
	m := d.pullOne("dead", obj{})
	d.settle("dead", "nack", obj{"receipts": []any{m["receipt"]}, "reason": "broken"})
	d.send(obj{"id": "expired", "target": "pull:nobody", "delay": 0, "ttl": "100ms"})
	d.send(obj{"id": "done", "target": "pull:done", "delay": 0})
	d.ack("done", text(d.pullOne("done", obj{}), "receipt"))
	d.send(obj{"id": "retried", "target": "pull:retried", "delay": 0})
	m = d.pullOne("retried", obj{})
	d.settle("retried", "nack", obj{"receipts": []any{m["receipt"]}, "delay": "0s"})
	d.call("POST", "/v1/targets/pause", obj{"target": "pull:paused"}).ok(t)
	for i := range 10 {
		d.send(obj{"id": fmt.Sprint("parked-", i), "target": "pull:paused", "delay": 0})
	}
	eventually(t, "it happened", func() bool {
		b := d.books()
		return b["dead"] == 1 && b["expired"] == 1
	})
	d.unfinishedFlushed()
	before := d.books()
	for i := range 7 {
		d.send(obj{"id": fmt.Sprint("young-", i), "target": "pull:young", "delay": "900ms"})
	}
	d.kill()
	d.loseDisk()
	d.start()
	eventually(t, "ids are restored", func() bool {
		return d.call("GET", path("far-0"), nil).status == http.StatusOK
	})
	b := d.books()
	balanced(t, b)
	for _, k := range []string{"cancelled", "delivered", "expired", "dead"} {
		require.Equal(t, before[k], b[k], k)
	}
	require.LessOrEqual(t, b["lost_with_disk"], int64(7))
	for id, want := range map[string]string{
		"far-0": "scheduled", "far-3": "cancelled", "far-4": "scheduled", "dead": "dead",
		"expired": "expired", "done": "delivered", "parked-3": "scheduled",
	} {
		require.Equal(t, want, d.state(id), id)
	}
	require.Equal(t, num(t, moved, "due_ms"), num(t, d.get("far-4"), "due_ms"))
	require.Equal(t, true, d.send(obj{
		"id": "far-7", "target": "pull:far", "delay": "1h", "body": "x",
	})["duplicate"])
	d.call("POST", "/v1/messages", obj{
		"id": "far-7", "target": "pull:far", "delay": "1h", "body": "other",
	}).refused(t, http.StatusConflict, "already_exists", "")
	dead := list(t, d.call("GET", "/v1/dead-letters", nil).ok(t), "messages")
	require.NotEmpty(t, dead)
	m = d.pullOne("retried", obj{})
	require.EqualValues(t, 2, num(t, m, "attempt"), "attempts are counted over the loss of the disk")
	d.ack("retried", text(m, "receipt"))
	d.call("POST", "/v1/targets/resume", obj{"target": "pull:paused"}).ok(t)
	got := map[string]bool{}
	for len(got) < 10 {
		for _, m := range d.pull("paused", obj{"max": 10, "wait": "10s"}) {
			require.False(t, got[text(m, "id")])
			got[text(m, "id")] = true
			d.ack("paused", text(m, "receipt"))
		}
	}
	require.EqualValues(t, 49, d.count("target=pull:far"))
	d.call("POST", "/v1/dead-letters/dead/retry", nil).ok(t)
	require.Equal(t, "dead", text(d.pullOne("dead", obj{}), "id"))
	balanced(t, d.books())
}

// Serving begins before everything is brought back, and what is due first comes first: after the
// start the far future is still only in the bucket.
func TestServeBeforeHydrated(t *testing.T) {
	t.Parallel()
	args := []string{"--bucket", objectStore(t), "--tier-flush-interval", "500ms", "--tier-min-wait",
		"500ms", "--local-hot-window", "2s", "--local-horizon", "5s", "--local-drop-lag", "500ms"}
	d := serve(t, args...)
	var batch []obj
	for i := range 1000 {
		batch = append(batch, obj{
			"target": "pull:q", "delay": fmt.Sprintf("%dms", 4000+i*5), "durability": "tier",
		})
	}
	for i := range 2000 {
		batch = append(batch, obj{
			"target": "pull:far", "delay": fmt.Sprintf("%ds", 3600+i*60), "durability": "tier",
		})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	d.kill()
	d.loseDisk()
	d.start()
	require.EqualValues(t, 3000, d.count(""))
	require.GreaterOrEqual(t, num(t, sub(t, sub(t, d.call("GET", "/v1/status", nil).ok(t), "tiers"),
		"cold"), "messages"), int64(2000), "the far future stays in the bucket")
	last, n := int64(0), 0
	for n < 1000 {
		got := d.pull("q", obj{"max": 1000, "wait": "20s"})
		require.NotEmpty(t, got)
		for _, m := range got {
			due := num(t, m, "due_ms")
			require.GreaterOrEqual(t, due, last, "not in the order of due")
			last = due
			d.ack("q", text(m, "receipt"))
			n++
		}
	}
	require.EqualValues(t, 2000, d.count("target=pull:far"))
	balanced(t, d.books())
}
