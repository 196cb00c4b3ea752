// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"maps"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// An id with characters that mean something in a URL must work in every call that has it in its
// path.
func TestIDsInPaths(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	q := queue(t)
	for _, id := range []string{
		"a/b", "/a", "a/", "//", "a b", "a%2Fb", "100%", "a?b=c", "a#b", "a+b", "a&b", "ü☃", "..", ".",
		"a/../b", "a/./b", "a//b", "{id}", "fire", "a:b", "a;b", `a"b`, `a\b`, "'", "%",
	} {
		d.send(obj{"id": id, "target": "pull:" + q, "delay": "1h"})
		p := path(id)
		switch id { // a client must encode dots, or its library removes them
		case ".":
			p = "/v1/messages/%2E"
		case "..":
			p = "/v1/messages/%2E%2E"
		}
		r := d.call("GET", p, nil)
		require.Equal(t, http.StatusOK, r.status, "GET %q: %v %s", id, r.header, r.body)
		require.Equal(t, id, r.ok(t)["id"])
		r = d.call("PATCH", p, obj{"delay": "2h"})
		require.Equal(t, "RESCHEDULED", r.ok(t)["result"], "%q", id)
		r = d.call("DELETE", p, nil)
		require.Equal(t, "CANCELLED", r.ok(t)["result"], "%q", id)
		d.send(obj{
			"id": id, "target": "pull:" + q, "delay": "1h", "replace": true, "body": "other",
		})
		require.Equal(t, "FIRED", d.call("POST", p+"/fire", nil).ok(t)["result"], "%q", id)
		got := d.pullOne(q, obj{})
		require.Equal(t, id, got["id"])
		d.ack(q, text(got, "receipt"))
	}
}

// Repeating a request must be safe, and tell that it was a repetition.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	m := obj{
		"id": q, "target": "pull:" + q, "delay": "1h", "body": "b", "key": "k",
		"headers": obj{"x": "1", "y": "2"}, "ttl": "2h",
	}
	first := d.send(m)
	again := d.send(m)
	require.Equal(t, true, again["duplicate"])
	again["duplicate"] = false
	require.Equal(t, first, again, "the first reply again")
	require.EqualValues(t, 1, d.count("target=pull:"+q))

	// The same instant said in another way is the same content.
	byInstant := maps.Clone(m)
	delete(byInstant, "delay")
	byInstant["deliver_at"] = first["due"]
	require.Equal(t, true, d.send(byInstant)["duplicate"])

	for field, value := range map[string]any{
		"target": "pull:" + q + ".other", "delay": "61m", "body": "c", "key": "l",
		"headers": obj{"x": "1"}, "ttl": "3h", "max_attempts": 3, "backoff": "9s",
		"mode": "at_most_once",
	} {
		other := maps.Clone(m)
		other[field] = value
		r := d.call("POST", "/v1/messages", other)
		require.Equal(t, http.StatusConflict, r.status, "%s: %s", field, r.body)
		require.Equal(t, "already_exists", r.object(t)["code"], field)
	}

	// In one batch too, where the first is not stored yet.
	results := list(t, d.call("POST", "/v1/messages", obj{"messages": []obj{
		{"id": q + "-b", "target": "pull:" + q, "delay": "1h"},
		{"id": q + "-b", "target": "pull:" + q, "delay": "1h"},
		{"id": q + "-b", "target": "pull:" + q, "delay": "2h"},
	}}).ok(t), "results")
	require.Equal(t, false, results[0]["duplicate"])
	require.Equal(t, true, results[1]["duplicate"])
	require.Equal(t, "already_exists", sub(t, results[2], "error")["code"])

	// After the end: the state it came to, and no second message.
	require.Equal(t, "CANCELLED", d.call("DELETE", path(q), nil).ok(t)["result"])
	again = d.send(m)
	require.Equal(t, true, again["duplicate"])
	require.Equal(t, "cancelled", again["state"])
	require.Equal(t, "cancelled", d.state(q))
	d.send(obj{"id": q + "-d", "target": "pull:" + q, "delay": 0})
	got := d.pullOne(q, obj{})
	claimed := d.send(obj{"id": q + "-d", "target": "pull:" + q, "delay": 0})
	require.Equal(t, true, claimed["duplicate"])
	require.Equal(t, "claimed", claimed["state"])
	d.ack(q, text(got, "receipt"))
	done := d.send(obj{"id": q + "-d", "target": "pull:" + q, "delay": 0})
	require.Equal(t, true, done["duplicate"])
	require.Equal(t, "delivered", done["state"])
	require.Empty(t, d.pull(q, obj{"wait": "300ms"}))
}

// replace is the only way to change a message's content, and each replacement is a new generation.
func TestReplace(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	m := func(body string, wait string) obj {
		return obj{"id": q, "target": "pull:" + q, "delay": wait, "body": body, "replace": true}
	}
	require.EqualValues(t, 1, num(t, d.send(m("1", "1h")), "generation"))
	r := d.send(m("2", "2h"))
	require.EqualValues(t, 2, num(t, r, "generation"))
	require.Equal(t, false, r["duplicate"])
	require.EqualValues(t, 1, d.count("target=pull:"+q))
	full := d.call("GET", path(q)+"?body=true", nil).ok(t)
	require.Equal(t, "2", full["body"])
	require.EqualValues(t, 2, num(t, full, "generation"))

	// PATCH and fire keep the generation.
	d.call("PATCH", path(q), obj{"delay": "3h"}).ok(t)
	require.EqualValues(t, 2, num(t, d.get(q), "generation"))
	require.Equal(t, "FIRED", d.call("POST", path(q)+"/fire", nil).ok(t)["result"])
	got := d.pullOne(q, obj{"lease": "1m"})
	require.Equal(t, "2", got["body"])

	r = d.call("POST", "/v1/messages", m("3", "1h")).refused(t, http.StatusConflict, "", "")
	require.Contains(t, text(r, "message")+text(r, "result"), "claimed")

	d.ack(q, text(got, "receipt"))
	require.EqualValues(t, 3, num(t, d.send(m("3", "0s")), "generation"))
	got = d.pullOne(q, obj{})
	require.Equal(t, "3", got["body"])
	d.ack(q, text(got, "receipt"))
	require.Equal(t, "delivered", d.state(q))
}

// A message that is replaced again and again must still leave in the end.
func TestMaxWait(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	m := func(wait string) obj {
		return obj{
			"id": q, "target": "pull:" + q, "delay": wait, "replace": true, "max_wait": "1h",
		}
	}
	first := num(t, d.send(m("10m")), "due_ms")
	second := num(t, d.send(m("40m")), "due_ms")
	require.Greater(t, second, first)
	r := d.call("POST", "/v1/messages", m("3h"))
	if r.status == http.StatusOK { // held at the limit, or refused: never beyond it
		require.LessOrEqual(t, num(t, r.ok(t), "due_ms"), first+time.Hour.Milliseconds())
	} else {
		require.Less(t, r.status, 500, "%s", r.body)
		require.NotEmpty(t, r.object(t)["message"])
	}
	require.LessOrEqual(t, num(t, d.get(q), "due_ms"), first+time.Hour.Milliseconds())
}

// A reserved id makes a retry safe for a client that has no ids of its own; a made-up one that
// looks like the server's could clash with a message to come.
func TestReservedIDs(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	r := d.call("POST", "/v1/ids?count=3", nil).ok(t)
	ids, ok := r["ids"].([]any)
	require.True(t, ok)
	require.Len(t, ids, 3)
	for _, id := range ids {
		m := obj{"id": id, "target": "pull:" + q, "delay": "1h", "body": "x"}
		require.Equal(t, false, d.send(m)["duplicate"])
		require.Equal(t, true, d.send(m)["duplicate"])
	}
	require.EqualValues(t, 3, d.count("target=pull:"+q))
	one, _ := d.call("POST", "/v1/ids", nil).ok(t)["ids"].([]any)
	require.Len(t, one, 1)

	own := text(d.send(obj{"target": "pull:" + q, "delay": "1h"}), "id")
	forged := []byte(own)
	if forged[20]++; own[20] != '0' {
		forged[20] = '0'
	}
	d.call("POST", "/v1/messages", obj{"id": string(forged), "target": "pull:" + q, "delay": "1h"}).
		refused(t, http.StatusBadRequest, "invalid_argument", "id")
	for _, count := range []string{"0", "-1", "10001", "x", "1.5", "", "99999999999999999999"} {
		d.call("POST", "/v1/ids?count="+count, nil).
			refused(t, http.StatusBadRequest, "invalid_argument", "count")
	}
}

// Spread must move each message the same way each time, within its bounds.
func TestSpreadIsStable(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	at := time.Now().Add(24 * time.Hour).UnixMilli()
	seen := map[int64]bool{}
	for i := range 50 {
		m := obj{"id": fmt.Sprint(q, "-", i), "target": "pull:" + q, "deliver_at": at, "spread": "1h"}
		first := num(t, d.send(m), "due_ms")
		require.GreaterOrEqual(t, first, at)
		require.LessOrEqual(t, first, at+time.Hour.Milliseconds())
		again := d.send(m)
		require.Equal(t, true, again["duplicate"])
		require.Equal(t, first, num(t, again, "due_ms"))
		seen[first] = true
	}
	require.Greater(t, len(seen), 40, "spread out")
}
