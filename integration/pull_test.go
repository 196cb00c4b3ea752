// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The verdicts of a change, before and after the claim.
func TestChanges(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"id": q + "1", "target": "pull:" + q, "delay": "1h"})
	r := d.call("PATCH", path(q+"1"), obj{"deliver_at": "2040-01-01T00:00:00Z"}).ok(t)
	require.Equal(t, "RESCHEDULED", r["result"])
	require.Equal(t, "2040-01-01T00:00:00.000Z", r["due"])
	require.Equal(t, "local", r["durability"])
	require.Equal(t, num(t, r, "due_ms"), num(t, d.get(q+"1"), "due_ms"))
	r = d.call("DELETE", path(q+"1"), nil).ok(t)
	require.Equal(t, "CANCELLED", r["result"])
	require.Equal(t, "local", r["durability"])
	require.Equal(t, q+"1", r["id"])
	require.Equal(t, "CANCELLED", d.call("DELETE", path(q+"1"), nil).ok(t)["result"], "repeatable")
	for _, c := range [][2]string{{"PATCH", ""}, {"POST", "/fire"}} {
		r = d.call(c[0], path(q+"1")+c[1], obj{"delay": "1h"}).object(t)
		if c[0] == "POST" {
			r = d.call(c[0], path(q+"1")+c[1], nil).refused(t, http.StatusConflict, "", "")
		}
		require.Equal(t, "TOO_LATE", r["result"], "%s of a cancelled message", c[0])
	}
	for _, c := range [][2]string{{"DELETE", ""}, {"PATCH", ""}, {"POST", "/fire"}} {
		var body any
		if c[0] == "PATCH" {
			body = obj{"delay": "1h"}
		}
		r = d.call(c[0], path(q+"-none")+c[1], body).refused(t, http.StatusNotFound, "not_found", "")
		require.Equal(t, "NOT_FOUND", r["result"], c[0])
	}

	// Due, but nobody pulled: still to be cancelled and moved.
	d.send(obj{"id": q + "2", "target": "pull:" + q, "delay": 0})
	eventually(t, "the message is due", func() bool {
		return time.Now().UnixMilli() > num(t, d.get(q+"2"), "due_ms")+50
	})
	require.Equal(t, "scheduled", d.state(q+"2"))
	require.Equal(t, "RESCHEDULED", d.call("PATCH", path(q+"2"), obj{"delay": "1h"}).ok(t)["result"])
	require.Empty(t, d.pull(q, obj{}))
	fired := d.call("POST", path(q+"2")+"/fire", nil).ok(t)
	require.Equal(t, "FIRED", fired["result"])
	require.LessOrEqual(t, num(t, fired, "due_ms"), time.Now().UnixMilli()+1)
	got := d.pullOne(q, obj{"lease": "1m"})
	for _, c := range [][2]string{{"DELETE", ""}, {"PATCH", ""}, {"POST", "/fire"}} {
		var body any
		if c[0] == "PATCH" {
			body = obj{"delay": "1h"}
		}
		r = d.call(c[0], path(q+"2")+c[1], body).refused(t, http.StatusConflict, "", "")
		require.Equal(t, "TOO_LATE", r["result"], c[0])
	}
	d.ack(q, text(got, "receipt"))
	require.Equal(t, "TOO_LATE", d.call("DELETE", path(q+"2"), nil).object(t)["result"])
	require.Equal(t, "delivered", d.state(q+"2"))

	// A server-made id works the same.
	id := text(d.send(obj{"target": "pull:" + q, "delay": "1h"}), "id")
	require.Equal(t, "RESCHEDULED", d.call("PATCH", path(id), obj{"delay": "2h"}).ok(t)["result"])
	require.Equal(t, "CANCELLED", d.call("DELETE", path(id), nil).ok(t)["result"])
	require.Equal(t, "CANCELLED", d.call("DELETE", path(id), nil).ok(t)["result"])
	require.Equal(t, "cancelled", d.state(id))
}

// A lease that runs out gives the message to the next, and the late ack must not take it away.
func TestLeases(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"id": q, "target": "pull:" + q, "delay": 0})
	first := d.pullOne(q, obj{"lease": "5m"})
	require.Empty(t, d.pull(q, obj{}), "one attempt at a time")
	require.Equal(t, "EXTENDED", d.settle(q, "extend",
		obj{"receipts": []any{first["receipt"]}, "lease": "1s"})[text(first, "receipt")])
	second := d.pullOne(q, obj{"lease": "5m"})
	require.EqualValues(t, 2, num(t, second, "attempt"))
	require.NotEqual(t, first["receipt"], second["receipt"])
	for _, what := range []string{"ack", "nack", "extend"} {
		late := d.settle(q, what, obj{"receipts": []any{first["receipt"]}})
		require.Equal(t, "SUPERSEDED", late[text(first, "receipt")], what)
	}
	require.Equal(t, "claimed", d.state(q))
	receipt := text(second, "receipt")
	require.Equal(t, "ACKED", d.ack(q, receipt)[receipt])
	require.Equal(t, "ACKED", d.ack(q, receipt)[receipt], "repeating an ack is safe")
	require.Equal(t, "delivered", d.state(q))
}

// extend keeps a message, however long the work takes.
func TestExtend(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"target": "pull:" + q, "delay": 0})
	// Long enough for the next call to be in time on any machine.
	m := d.pullOne(q, obj{"lease": "5s"})
	receipt := text(m, "receipt")
	require.Equal(t, "EXTENDED",
		d.settle(q, "extend", obj{"receipts": []string{receipt}, "lease": "5m"})[receipt])
	require.Empty(t, d.pull(q, obj{"wait": "5500ms"}))
	// And a short one gives it up soon.
	require.Equal(t, "EXTENDED",
		d.settle(q, "extend", obj{"receipts": []string{receipt}, "lease": "1s"})[receipt])
	again := d.pullOne(q, obj{})
	require.EqualValues(t, 2, num(t, again, "attempt"))
	d.ack(q, text(again, "receipt"))
}

// nack gives back at once, or not before its delay.
func TestNack(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"id": q, "target": "pull:" + q, "delay": 0, "backoff": "1ms"})
	receipt := text(d.pullOne(q, obj{}), "receipt")
	asked := time.Now()
	require.Equal(t, "NACKED", d.settle(q, "nack",
		obj{"receipts": []string{receipt}, "delay": "700ms", "reason": "busy"})[receipt])
	require.Equal(t, "claimed", d.state(q), "between attempts it stays claimed")
	r := d.call("DELETE", path(q), nil).refused(t, http.StatusConflict, "", "")
	require.Equal(t, "TOO_LATE", r["result"])
	m := d.pullOne(q, obj{})
	require.GreaterOrEqual(t, time.Since(asked), 700*time.Millisecond)
	require.EqualValues(t, 2, num(t, m, "attempt"))
	receipt = text(m, "receipt")
	require.Equal(t, "NACKED", d.settle(q, "nack",
		obj{"receipts": []string{receipt}, "delay": "0s"})[receipt])
	m = d.pullOne(q, obj{})
	require.EqualValues(t, 3, num(t, m, "attempt"))
	receipt = text(m, "receipt")
	d.ack(q, receipt)

	junk := d.ack(q, "x", "AQGh_n3zIwAAEAAAAAAgAAEAAAABbogygSll", "")
	for receipt, result := range junk {
		require.Contains(t, []string{"NOT_FOUND", "SUPERSEDED"}, result, receipt)
	}
	// A receipt of another queue is not this one's.
	d.send(obj{"target": "pull:" + q, "delay": 0})
	receipt = text(d.pullOne(q, obj{"lease": "1m"}), "receipt")
	require.NotEqual(t, "ACKED", d.ack(q+".other", receipt)[receipt])
	require.Equal(t, "ACKED", d.ack(q, receipt)[receipt])
}

// Leases, receipts and attempts are kept over a crash and over a restart: what a consumer works on
// is not given to another, and what it acks then never comes back.
func TestLeasesOverRestarts(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill", "term"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			d := serve(t, quick...)
			restart := func() {
				if how == "kill" {
					d.kill()
				} else {
					d.stop()
				}
				d.start()
			}
			var batch []obj
			for i := range 20 {
				batch = append(batch, obj{"id": fmt.Sprint(i), "target": "pull:q", "delay": 0})
			}
			d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
			var leased []obj
			for len(leased) < 20 {
				leased = append(leased, d.pull("q", obj{"wait": "5s", "lease": "10m"})...)
			}
			require.Len(t, leased, 20)
			restart()
			require.Empty(t, d.pull("q", obj{"wait": "500ms"}), "a restart redelivers nothing")
			require.Equal(t, "claimed", d.state("3"))
			require.Equal(t, "TOO_LATE", d.call("DELETE", path("3"), nil).object(t)["result"])
			var receipts []string
			for _, m := range leased[:10] {
				receipts = append(receipts, text(m, "receipt"))
			}
			for r, result := range d.ack("q", receipts...) {
				require.Equal(t, "ACKED", result, r)
			}
			nacked := text(leased[10], "receipt")
			require.Equal(t, "NACKED", d.settle("q", "nack",
				obj{"receipts": []string{nacked}, "delay": 0})[nacked])
			m := d.pullOne("q", obj{"lease": "10m"})
			require.Equal(t, leased[10]["id"], m["id"])
			require.EqualValues(t, 2, num(t, m, "attempt"))
			restart()
			for r, result := range d.ack("q", receipts...) {
				require.Equal(t, "ACKED", result, "again: %s", r)
			}
			require.Equal(t, "SUPERSEDED", d.ack("q", nacked)[nacked])
			require.Equal(t, "ACKED", d.ack("q", text(m, "receipt"))[text(m, "receipt")])
			require.Empty(t, d.pull("q", obj{"wait": "300ms"}))
			b := d.books()
			require.EqualValues(t, 11, b["delivered"])
			require.EqualValues(t, 9, b["pending"])
			balanced(t, b)
		})
	}
}

// Out of attempts is dead, with the reason; a retry makes it pending again and a delete forgets it.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	for i := range 3 {
		d.send(obj{
			"id": fmt.Sprint(i), "target": "pull:q", "delay": 0, "max_attempts": 2, "backoff": "10ms",
			"body": "b", "key": "k",
		})
	}
	for range 2 {
		for done := 0; done < 3; {
			got := d.pull("q", obj{"wait": "20s"})
			require.NotEmpty(t, got)
			for _, m := range got {
				d.settle("q", "nack", obj{
					"receipts": []any{m["receipt"]}, "delay": 0, "reason": "out of cheese",
				})
			}
			done += len(got)
		}
	}
	dead := func(query string) []obj {
		return list(t, d.call("GET", "/v1/dead-letters"+query, nil).ok(t), "messages")
	}
	rows := dead("")
	require.Len(t, rows, 3)
	for _, m := range rows {
		hasKeys(t, m, "id", "state", "attempts", "reason", "last_error", "target")
		require.Equal(t, "dead", m["state"])
		require.EqualValues(t, 2, num(t, m, "attempts"))
		require.NotEmpty(t, m["reason"])
		require.Contains(t, m["last_error"], "out of cheese")
	}
	require.Equal(t, "dead", d.state("1"))
	require.Len(t, dead("?target=pull:q&limit=1000"), 3)
	require.Empty(t, dead("?target=pull:other"))
	require.Len(t, dead("?limit=2"), 2)
	b := d.books()
	require.EqualValues(t, 3, b["dead"])
	balanced(t, b)

	d.kill()
	d.start()
	require.Len(t, dead(""), 3, "dead letters survive a crash")
	r := d.call("POST", "/v1/dead-letters/1/retry", nil)
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	m := d.pullOne("q", obj{})
	require.Equal(t, "1", m["id"])
	require.Equal(t, "b", m["body"])
	require.Equal(t, "k", m["key"])
	d.ack("q", text(m, "receipt"))
	require.Equal(t, "delivered", d.state("1"))
	r = d.call("DELETE", "/v1/dead-letters/2", nil)
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	rows = dead("")
	require.Len(t, rows, 1)
	require.Equal(t, "0", rows[0]["id"])
	for _, c := range [][2]string{
		{"POST", "/v1/dead-letters/2/retry"}, {"DELETE", "/v1/dead-letters/2"},
		{"POST", "/v1/dead-letters/1/retry"}, {"DELETE", "/v1/dead-letters/none"},
	} {
		d.call(c[0], c[1], nil).refused(t, http.StatusNotFound, "not_found", "")
	}
	balanced(t, d.books())
}

// stop ends a message between its attempts.
func TestStop(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"id": q, "target": "pull:" + q, "delay": 0})
	receipt := text(d.pullOne(q, obj{}), "receipt")
	d.settle(q, "nack", obj{"receipts": []string{receipt}, "delay": "1s"})
	require.Equal(t, "STOPPED", d.call("DELETE", path(q)+"?stop=true", nil).ok(t)["result"])
	require.Equal(t, "dead", d.state(q))
	require.Empty(t, d.pull(q, obj{"wait": "1500ms"}))
	// Of a message that waits it is a cancel.
	d.send(obj{"id": q + "2", "target": "pull:" + q, "delay": "1h"})
	require.Equal(t, "CANCELLED", d.call("DELETE", path(q+"2")+"?stop=true", nil).ok(t)["result"])
	// Of a finished one it is too late.
	d.send(obj{"id": q + "3", "target": "pull:" + q, "delay": 0})
	d.ack(q, text(d.pullOne(q, obj{}), "receipt"))
	r := d.call("DELETE", path(q+"3")+"?stop=true", nil).refused(t, http.StatusConflict, "", "")
	require.Equal(t, "TOO_LATE", r["result"])
}

// STOPPED is a promise: no further attempt, whatever happens.
func TestStopSurvivesCrash(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	// In queues of their own, or the one whose pause is over is pulled instead of the other.
	d.send(obj{"id": "between", "target": "pull:between", "delay": 0})
	receipt := text(d.pullOne("between", obj{}), "receipt")
	d.settle("between", "nack", obj{"receipts": []string{receipt}, "delay": "1s"})
	d.send(obj{"id": "leased", "target": "pull:leased", "delay": 0})
	d.pullOne("leased", obj{"lease": "2s"})
	for _, id := range []string{"between", "leased"} {
		require.Equal(t, "STOPPED", d.call("DELETE", path(id)+"?stop=true", nil).ok(t)["result"], id)
	}
	d.kill()
	d.start()
	for _, q := range []string{"between", "leased"} {
		for _, m := range d.pull(q, obj{"wait": "3s"}) {
			require.Fail(t, "attempted again after STOPPED", "%v", m)
		}
	}
	require.Equal(t, "dead", d.state("between"))
	require.Equal(t, "dead", d.state("leased"))
	balanced(t, d.books())
}

// at_most_once must give up rather than repeat.
func TestAtMostOnce(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	d.send(obj{"id": q, "target": "pull:" + q, "delay": 0, "mode": "at_most_once"})
	late := text(d.pullOne(q, obj{"lease": "1s"}), "receipt")
	require.Empty(t, d.pull(q, obj{"wait": "2500ms"}))
	// Dead or, as it may have been delivered, counted as that.
	require.Contains(t, []string{"dead", "delivered"}, d.state(q))
	_ = d.ack(q, late)
	require.Empty(t, d.pull(q, obj{"wait": "300ms"}))
	d.send(obj{"id": q + "2", "target": "pull:" + q, "delay": 0, "mode": "at_most_once"})
	r := text(d.pullOne(q, obj{}), "receipt")
	require.Equal(t, "ACKED", d.ack(q, r)[r])
	require.Equal(t, "delivered", d.state(q+"2"))
}

// What nobody wants any more must expire, and be counted and listed as that.
func TestExpiry(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	d.send(obj{"id": "ttl", "target": "pull:q", "delay": "100ms", "ttl": "300ms"})
	d.send(obj{
		"id": "after", "target": "pull:q", "delay": 0,
		"not_after": time.Now().Add(5 * time.Second).UnixMilli(), // it is not over before it is sent
	})
	d.send(obj{"id": "keep", "target": "pull:q", "delay": 0, "ttl": "1h"})
	eventually(t, "both expire", func() bool {
		return d.state("ttl") == "expired" && d.state("after") == "expired"
	})
	got := d.pullOne("q", obj{})
	require.Equal(t, "keep", got["id"])
	d.ack("q", text(got, "receipt"))
	rows := list(t, d.call("GET", "/v1/dead-letters", nil).ok(t), "messages")
	require.Len(t, rows, 2)
	for _, m := range rows {
		require.Equal(t, "expired", m["state"])
		require.NotEmpty(t, m["reason"])
	}
	b := d.books()
	require.EqualValues(t, 2, b["expired"])
	require.EqualValues(t, 0, b["dead"])
	balanced(t, b)
	require.Equal(t, "TOO_LATE", d.call("DELETE", path("ttl"), nil).object(t)["result"])
	d.kill()
	d.start()
	require.Equal(t, "expired", d.state("ttl"))
	require.Equal(t, b, d.books())
}

// A paused target keeps its messages, and they can still be cancelled.
func TestPause(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	r := d.call("POST", "/v1/targets/pause", obj{"target": "pull:q"})
	require.Equal(t, http.StatusOK, r.status, "%s", r.body)
	for i := range 5 {
		d.send(obj{"id": fmt.Sprint(i), "target": "pull:q", "delay": 0})
	}
	d.send(obj{"id": "other", "target": "pull:other", "delay": 0})
	d.pullOne("other", obj{})
	require.Empty(t, d.pull("q", obj{"wait": "500ms"}))
	d.kill()
	d.start()
	require.Empty(t, d.pull("q", obj{"wait": "300ms"}), "paused over a crash")
	eventually(t, "what is due waits in its lane", func() bool { // after the start it is loaded first
		for _, target := range list(t, d.call("GET", "/v1/targets", nil).ok(t), "targets") {
			if target["target"] == "pull:q" {
				require.Equal(t, true, target["paused"])
				require.LessOrEqual(t, num(t, target, "backlog"), int64(5))
				return num(t, target, "backlog") == 5
			}
		}
		return false
	})
	require.Equal(t, "scheduled", d.state("3"))
	require.Equal(t, "CANCELLED", d.call("DELETE", path("3"), nil).ok(t)["result"])
	require.Equal(t, http.StatusOK, d.call("POST", "/v1/targets/resume", obj{"target": "pull:q"}).status)
	var got []obj
	for len(got) < 4 {
		more := d.pull("q", obj{"wait": "20s"})
		require.NotEmpty(t, more)
		got = append(got, more...)
	}
	require.Len(t, got, 4)
	require.Empty(t, d.pull("q", obj{"wait": "300ms"}))
}

// A long poll must wake for a message, end with nothing at its time, and end at once at SIGTERM.
func TestLongPolls(t *testing.T) {
	t.Parallel()
	// While a message is leased a drain waits, half of this time: polls that are answered only then
	// are answered too late.
	d := serve(t, append([]string{"--shutdown-timeout", "80s"}, quick...)...)
	began := time.Now()
	require.Empty(t, d.pull("q", obj{"wait": "600ms"}))
	require.GreaterOrEqual(t, time.Since(began), 600*time.Millisecond)

	type answer struct {
		r  reply
		at time.Time
	}
	answers := make(chan answer, 8)
	poll := func(q string) {
		go func() {
			r := d.try("POST", "/v1/queues/"+q+"/pull", obj{"wait": "60s", "lease": "10m"})
			answers <- answer{r, time.Now()}
		}()
	}
	poll("q")
	d.send(obj{"target": "pull:q", "delay": "400ms"})
	a := <-answers
	got := list(t, a.r.ok(t), "messages")
	require.Len(t, got, 1)

	for i := range cap(answers) {
		poll(fmt.Sprint("empty", i))
	}
	time.Sleep(200 * time.Millisecond) // or some polls begin after the signal, and are refused
	termed := time.Now()
	d.term()
	for range cap(answers) {
		a := <-answers
		require.NoError(t, a.r.err)
		if a.r.status == http.StatusOK {
			require.Empty(t, list(t, a.r.ok(t), "messages"))
		} else {
			require.Equal(t, http.StatusServiceUnavailable, a.r.status, "%s", a.r)
		}
		require.Less(t, a.at.Sub(termed), 20*time.Second)
	}
	receipt := text(got[0], "receipt")
	require.Equal(t, "ACKED", d.ack("q", receipt)[receipt], "a drain takes acks")
	require.Equal(t, 0, d.wait(), "%s", d.logFrom(0))
}

// Many pullers share a queue: each message goes to one of them.
func TestManyPullers(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	const n = 2000
	var batch []obj
	for range n {
		batch = append(batch, obj{"target": "pull:" + q, "delay": rand.IntN(1000)})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	var mu sync.Mutex
	seen := map[string]int{}
	all := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(seen) == n
	}
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); {
				r := d.try("POST", "/v1/queues/"+q+"/pull", obj{"wait": "1500ms", "max": 37, "lease": "5m"})
				if r.err != nil || r.status != http.StatusOK {
					t.Errorf("pull: %s", r)
					return
				}
				got := list(t, r.object(t), "messages")
				if len(got) == 0 {
					if all() { // and nothing came again meanwhile
						return
					}
					continue
				}
				var receipts []any
				for _, m := range got {
					receipts = append(receipts, m["receipt"])
					mu.Lock()
					seen[text(m, "id")]++
					mu.Unlock()
				}
				r = d.try("POST", "/v1/queues/"+q+"/ack", obj{"receipts": receipts})
				if r.err != nil || r.status != http.StatusOK {
					t.Errorf("ack: %s", r)
					return
				}
			}
		})
	}
	wg.Wait()
	require.Len(t, seen, n)
	for id, times := range seen {
		require.Equal(t, 1, times, id)
	}
	require.Zero(t, d.count("target=pull:"+q))
}
