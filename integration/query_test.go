// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Pages must hold every message once, by due, whatever their size.
func TestListPages(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	var want []string
	var batch []obj
	base := time.Now().Add(time.Hour).UnixMilli()
	for i := range 25 {
		id := fmt.Sprintf("%s-%02d", q, i)
		want = append(want, id)
		batch = append(batch, obj{"id": id, "target": "pull:" + q, "deliver_at": base + int64(i/3)})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	for _, limit := range []int{1, 3, 7, 25, 1000} {
		var got []string
		token := ""
		for {
			o := d.call("GET", fmt.Sprintf("/v1/messages?target=pull:%s&limit=%d&page_token=%s", q, limit,
				url.QueryEscape(token)), nil).ok(t)
			rows := list(t, o, "messages")
			require.LessOrEqual(t, len(rows), limit)
			last := int64(0)
			for _, m := range rows {
				got = append(got, text(m, "id"))
				require.GreaterOrEqual(t, num(t, m, "due_ms"), last)
				last = num(t, m, "due_ms")
			}
			if token = text(o, "next_page_token"); token == "" {
				break
			}
		}
		require.Equal(t, want, got, "limit %d", limit)
	}
}

// A filter that is ignored makes a purge of one target a purge of everything.
func TestFilters(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	base := time.Now().Add(3 * time.Hour).Truncate(time.Hour).UnixMilli()
	for i := range 10 {
		d.send(obj{
			"id": fmt.Sprintf("%s-%d", q, i), "target": fmt.Sprintf("pull:%s.%d", q, i%2),
			"deliver_at": base + int64(i)*60_000, "body": "0123456789",
		})
	}
	d.call("DELETE", path(q+"-9"), nil).ok(t)
	d.send(obj{"id": q + "-now", "target": "pull:" + q + ".0", "delay": 0})
	d.pullOne(q+".0", obj{"lease": "10m"})
	prefix := "id_prefix=" + q + "-"
	iso := func(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }
	for filter, want := range map[string]int64{
		prefix:                                            10,
		"id_prefix=" + q + "-1":                           1,
		prefix + "&target=pull:" + q + ".0":               6,
		prefix + "&target=pull:" + q + ".1":               4,
		"target=pull:" + q + ".none":                      0,
		prefix + "&state=scheduled":                       9,
		prefix + "&state=claimed":                         1,
		prefix + fmt.Sprintf("&due_from=%d", base+60_000): 8,
		prefix + fmt.Sprintf("&due_to=%d", base+60_000):   2,
		prefix + fmt.Sprintf("&due_from=%s&due_to=%s", iso(base+60_000), iso(base+180_000)): 2,
		prefix + "&due_from=9000-01-01T00:00:00Z":                                           0,
	} {
		require.Equal(t, want, d.count(filter), filter)
		rows := list(t, d.call("GET", "/v1/messages?"+filter, nil).ok(t), "messages")
		live := 0
		for _, m := range rows {
			if m["state"] == "scheduled" || m["state"] == "claimed" {
				live++
			}
		}
		require.EqualValues(t, want, live, filter)
	}
	// The one that is leased is parked some seconds after its due, maybe between two of the questions.
	eventually(t, "each message is in one tier", func() bool {
		tiers := int64(0)
		for _, tier := range []string{"hot", "warm", "cold"} {
			tiers += d.count(prefix + "&tier=" + tier)
		}
		return tiers == 10
	})
}

// A parameter that is misspelt or out of range must not be ignored or clamped.
func TestRefusedQueries(t *testing.T) {
	t.Parallel()
	d := api(t)
	id := text(d.send(obj{"target": "pull:" + queue(t), "delay": "1h"}), "id")
	for _, c := range [][2]string{
		{"GET /v1/messages?limit=0", "limit"},
		{"GET /v1/messages?limit=-1", "limit"},
		{"GET /v1/messages?limit=1001", "limit"},
		{"GET /v1/messages?limit=ten", "limit"},
		{"GET /v1/messages?limit=", "limit"},
		{"GET /v1/messages?state=sleeping", "state"},
		{"GET /v1/messages?state=SCHEDULED", "state"},
		{"GET /v1/messages?tier=lukewarm", "tier"},
		{"GET /v1/messages?due_from=yesterday", "due_from"},
		{"GET /v1/messages?due_to=1700000000", "due_to"},
		{"GET /v1/messages?page_token=garbage", "page_token"},
		{"GET /v1/messages?page_token=%00%ff", "page_token"},
		{"GET /v1/messages?pagetoken=", "pagetoken"},
		{"GET /v1/messages?limit=5&limit=6", "limit"},
		{"GET /v1/messages/" + id + "?body=maybe", "body"},
		{"GET /v1/messages/" + id + "?bodies=true", "bodies"},
		{"DELETE /v1/messages/" + id + "?stop=perhaps", "stop"},
		{"DELETE /v1/messages/" + id + "?force=true", "force"},
		{"GET /v1/pending/count?queue=x", "queue"},
		{"GET /v1/pending/count?limit=3", "limit"},
		{"GET /v1/pending/histogram?bucket=0s", "bucket"},
		{"GET /v1/pending/histogram?bucket=-1h", "bucket"},
		{"GET /v1/pending/histogram?bucket=x", "bucket"},
		{"GET /v1/pending/histogram?from=x", "from"},
		{"GET /v1/pending/histogram?to=x", "to"},
		{"GET /v1/pending/next?limit=0", "limit"},
		{"GET /v1/pending/next?limit=5000", "limit"},
		{"GET /v1/status?verbose=1", "verbose"},
		{"GET /v1/dead-letters?limit=0", "limit"},
		{"GET /v1/dead-letters?state=x", "state"},
	} {
		method, target, _ := strings.Cut(c[0], " ")
		r := d.call(method, target, nil)
		require.Equal(t, http.StatusBadRequest, r.status, "%s: %s", c[0], r.body)
		o := r.object(t)
		require.Equal(t, "invalid_argument", o["code"], c[0])
		require.Equal(t, c[1], o["field"], "%s: %s", c[0], r.body)
	}
	require.Equal(t, "scheduled", d.state(id), "a refused cancel cancels nothing")
}

// The same for the bodies of the other calls.
func TestRefusedBodies(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	id := text(d.send(obj{"target": "pull:" + q, "delay": "1h"}), "id")
	many := make([]string, 1001)
	for i := range many {
		many[i] = "x"
	}
	for _, c := range []struct {
		call  string
		body  any
		field string
	}{
		{"PATCH " + path(id), obj{}, "*"},
		{"PATCH " + path(id), obj{"delay": "1h", "deliver_at": "2030-01-01T00:00:00Z"}, "*"},
		{"PATCH " + path(id), obj{"delay": "-1h"}, "delay"},
		{"PATCH " + path(id), obj{"delay": nil}, "delay"},
		{"PATCH " + path(id), obj{"deliver_at": 1_700_000_000}, "deliver_at"},
		{"PATCH " + path(id), obj{"deliver_at": "10000-01-01T00:00:00Z"}, "deliver_at"},
		{"PATCH " + path(id), obj{"delay": "1h", "body": "x"}, "body"},
		{"PATCH " + path(id), "", ""},
		{"PATCH " + path(id), "[]", ""},
		{"POST /v1/queues/q/pull", obj{"max": 0}, "max"},
		{"POST /v1/queues/q/pull", obj{"max": 1001}, "max"},
		{"POST /v1/queues/q/pull", obj{"max": -1}, "max"},
		{"POST /v1/queues/q/pull", obj{"max": "10"}, "max"},
		{"POST /v1/queues/q/pull", obj{"max": 1.5}, "max"},
		{"POST /v1/queues/q/pull", obj{"wait": "61s"}, "wait"},
		{"POST /v1/queues/q/pull", obj{"wait": "-1s"}, "wait"},
		{"POST /v1/queues/q/pull", obj{"wait": "soon"}, "wait"},
		{"POST /v1/queues/q/pull", obj{"lease": "999ms"}, "lease"},
		{"POST /v1/queues/q/pull", obj{"lease": "12h1s"}, "lease"},
		{"POST /v1/queues/q/pull", obj{"lease": 0}, "lease"},
		{"POST /v1/queues/q/pull", obj{"leese": "5s"}, "leese"},
		{"POST /v1/queues/a%2Fb/pull", obj{}, "queue"},
		{"POST /v1/queues/" + long(129) + "/pull", obj{}, "queue"},
		{"POST /v1/queues/q/ack", obj{}, "receipts"},
		{"POST /v1/queues/q/ack", obj{"receipts": []string{}}, "receipts"},
		{"POST /v1/queues/q/ack", obj{"receipts": "x"}, "receipts"},
		{"POST /v1/queues/q/ack", obj{"receipts": []int{1}}, "receipts"},
		{"POST /v1/queues/q/ack", obj{"receipts": many}, "receipts"},
		{"POST /v1/queues/q/ack", obj{"receipts": []string{"x"}, "delay": "1s"}, "delay"},
		{"POST /v1/queues/q/nack", obj{"receipts": []string{"x"}, "delay": "-1s"}, "delay"},
		{"POST /v1/queues/q/nack", obj{"receipts": []string{"x"}, "reason": 1}, "reason"},
		{"POST /v1/queues/q/extend", obj{"receipts": []string{"x"}, "lease": "13h"}, "lease"},
		{"POST /v1/queues/q/extend", obj{"receipts": []string{"x"}, "lease": "1ms"}, "lease"},
		{"POST /v1/pending/purge", obj{"targets": "pull:q"}, "targets"},
		{"POST /v1/pending/purge", obj{"target": ""}, "target"},
		{"POST /v1/pending/purge", obj{"dry_run": "yes"}, "dry_run"},
		{"POST /v1/pending/purge", obj{"state": "x", "dry_run": true}, "state"},
		{"POST /v1/pending/purge", obj{"due_from": "x", "dry_run": true}, "due_from"},
		{"POST /v1/targets/pause", obj{}, "target"},
		{"POST /v1/targets/pause", obj{"target": "x"}, "target"},
		{"POST /v1/targets/pause", obj{"target": "pull:q", "for": "1h"}, "for"},
		{"POST /v1/targets/resume", obj{"target": 1}, "target"},
	} {
		method, target, _ := strings.Cut(c.call, " ")
		r := d.call(method, target, c.body)
		require.Equal(t, http.StatusBadRequest, r.status, "%s %v: %s", c.call, c.body, r.body)
		o := r.object(t)
		require.Equal(t, "invalid_argument", o["code"], c.call)
		switch c.field {
		case "":
		case "*":
			require.Contains(t, []any{"deliver_at", "delay"}, o["field"], "%s %v", c.call, c.body)
		default:
			require.Equal(t, c.field, o["field"], "%s %v: %s", c.call, c.body, r.body)
		}
	}
	require.Equal(t, "scheduled", d.state(id))
}

// Every endpoint with every kind of nonsense as a field's value.
func TestEndpointsFuzzed(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	id := text(d.send(obj{"target": "pull:" + q, "delay": "10h"}), "id")
	for call, fields := range map[string][]string{
		"PATCH " + path(id):                {"deliver_at", "delay", "x"},
		"POST /v1/queues/" + q + "/pull":   {"max", "lease", "x"},
		"POST /v1/queues/" + q + "/ack":    {"receipts", "x"},
		"POST /v1/queues/" + q + "/nack":   {"receipts", "delay", "reason", "x"},
		"POST /v1/queues/" + q + "/extend": {"receipts", "lease", "x"},
		"POST /v1/targets/pause":           {"target", "x"},
		"POST /v1/targets/resume":          {"target", "x"},
		"POST /v1/pending/purge":           {"target", "state", "tier", "due_from", "due_to", "id_prefix", "x"},
	} {
		method, target, _ := strings.Cut(call, " ")
		for _, f := range fields {
			for _, v := range junk {
				body := `{"` + f + `":` + v
				if f != "receipts" && !strings.HasPrefix(target, "/v1/pending") {
					if strings.HasSuffix(target, "ack") || strings.HasSuffix(target, "extend") {
						body += `,"receipts":["x"]`
					}
				}
				if strings.HasSuffix(target, "purge") {
					body += `,"dry_run":true`
				}
				r := d.call(method, target, body+"}")
				if r.status == http.StatusOK || r.status == http.StatusConflict {
					continue
				}
				require.Less(t, r.status, 500, "%s %.100s: %s", call, body, r.body)
				require.Equal(t, f, r.object(t)["field"], "%s %.100s: %s", call, body, r.body)
			}
		}
	}
	for _, p := range []string{
		"/v1/messages?limit=", "/v1/messages?state=", "/v1/messages?tier=", "/v1/messages?due_from=",
		"/v1/messages?target=", "/v1/messages?page_token=", "/v1/pending/histogram?bucket=",
		"/v1/pending/histogram?from=", "/v1/pending/next?limit=", "/v1/ids?count=", "/v1/messages/",
	} {
		for _, v := range junk {
			method := "GET"
			if strings.Contains(p, "ids") {
				method = "POST"
			}
			r := d.call(method, p+url.QueryEscape(v), nil)
			require.Less(t, r.status, 500, "%s%.100s: %s", p, v, r.body)
		}
	}
}

// The histogram must account for every pending message, in each of its columns, and each bar must
// hold what is due in it.
func TestHistogram(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	var batch []obj
	for i := range 300 {
		batch = append(batch, obj{
			"target": "pull:h", "delay": fmt.Sprintf("%dm", 10+i*i%5000), "body": long(i),
		})
	}
	for _, far := range []string{"40d", "1000d", "200000d"} {
		batch = append(batch, obj{"target": "pull:h", "delay": far})
	}
	batch = append(batch, obj{"target": "pull:h", "deliver_at": "9999-12-31T23:59:59.999Z"},
		obj{"target": "pull:h", "delay": "1s"})
	var dues []int64
	results := d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	for _, r := range list(t, results, "results") {
		dues = append(dues, num(t, r, "due_ms"))
	}
	require.EqualValues(t, len(batch), d.count(""))
	day := int64(24 * time.Hour / time.Millisecond)
	now := time.Now().UnixMilli()
	for _, c := range []struct {
		bucket, query string
		width         time.Duration
		from, to      int64
	}{
		{bucket: "1h", width: time.Hour},
		{bucket: "1d", width: 24 * time.Hour},
		{bucket: "7m", width: 7 * time.Minute},
		{bucket: "1h", width: time.Hour, from: now/day*day - day, to: now/day*day + 50*day},
		{bucket: "10m", width: 10 * time.Minute, from: now + 20*60_000, to: now + 80*60_000},
	} {
		query := "?bucket=" + c.bucket
		if c.to != 0 {
			query += fmt.Sprintf("&from=%d&to=%d", c.from, c.to)
		}
		want, got := map[int64]int64{}, map[int64]int64{}
		width := c.width.Milliseconds()
		for _, due := range dues {
			if c.to == 0 || due >= c.from && due < c.to {
				want[due/width*width]++
			}
		}
		for _, b := range list(t, d.call("GET", "/v1/pending/histogram"+query, nil).ok(t), "buckets") {
			hasKeys(t, b, "from", "count", "bytes", "hot", "warm", "cold")
			n := num(t, b, "count")
			require.Equal(t, n, num(t, b, "hot")+num(t, b, "warm")+num(t, b, "cold"), "%v", b)
			from, err := time.Parse(time.RFC3339, text(b, "from"))
			require.NoError(t, err)
			got[from.UnixMilli()] += n
		}
		require.Equal(t, want, got, query)
	}
	next := list(t, d.call("GET", "/v1/pending/next?limit=5", nil).ok(t), "messages")
	require.Len(t, next, 5)
	for i := 1; i < len(next); i++ {
		require.LessOrEqual(t, num(t, next[i-1], "due_ms"), num(t, next[i], "due_ms"))
	}
}

// A purge must take what matches, what it counted, and nothing that is sent later.
func TestPurge(t *testing.T) {
	t.Parallel()
	d := serve(t, quick...)
	for _, q := range []string{"a", "b"} {
		var batch []obj
		for i := range 50 {
			batch = append(batch, obj{
				"id": fmt.Sprint(q, i), "target": "pull:" + q, "delay": fmt.Sprintf("%dh", 1+i),
			})
		}
		d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	}
	purge := func(req obj) int64 {
		return num(t, d.call("POST", "/v1/pending/purge", req).ok(t), "count")
	}
	require.EqualValues(t, 50, purge(obj{"target": "pull:a", "dry_run": true}))
	require.EqualValues(t, 100, d.count(""), "a dry run changes nothing")
	require.EqualValues(t, 50, purge(obj{"target": "pull:a"}))
	require.EqualValues(t, 50, d.count(""))
	require.Equal(t, "cancelled", d.state("a7"))
	require.Equal(t, "CANCELLED", d.call("DELETE", path("a7"), nil).ok(t)["result"])
	require.Equal(t, "scheduled", d.state("b7"))
	d.send(obj{"id": "later", "target": "pull:a", "delay": "1h"})
	require.Equal(t, "scheduled", d.state("later"))
	require.EqualValues(t, 9, purge(obj{"due_to": time.Now().Add(9*time.Hour + time.Minute).UnixMilli(),
		"target": "pull:b"}))
	require.EqualValues(t, 2, purge(obj{"id_prefix": "b1", "dry_run": true, "due_to": time.Now().
		Add(12*time.Hour + time.Minute).UnixMilli()}))
	require.EqualValues(t, 41+1, d.count(""))
	eventually(t, "cancels are counted", func() bool { return d.books()["cancelled"] == 59 })
	balanced(t, d.books())
	d.kill()
	d.start()
	require.EqualValues(t, 42, d.count(""))
	require.Equal(t, "cancelled", d.state("a7"))
	require.EqualValues(t, 42, purge(obj{}))
	require.Zero(t, d.count(""))
	balanced(t, d.books())
}

// Paths and methods that do not exist, and browsers of other sites.
func TestRouting(t *testing.T) {
	t.Parallel()
	d := api(t)
	for _, c := range []struct {
		call   string
		status int
	}{
		{"GET /", http.StatusNotFound},
		{"GET /v1", http.StatusNotFound},
		{"GET /v2/messages", http.StatusNotFound},
		{"GET /v1/nothing", http.StatusNotFound},
		{"PUT /v1/messages", http.StatusMethodNotAllowed},
		{"POST /v1/messages/x", http.StatusMethodNotAllowed},
		{"GET /v1/queues/q/pull", http.StatusMethodNotAllowed},
		{"POST /v1/status", http.StatusMethodNotAllowed},
		{"GET /v1/messages/never-seen", http.StatusNotFound},
	} {
		method, target, _ := strings.Cut(c.call, " ")
		r := d.call(method, target, nil)
		require.Equal(t, c.status, r.status, "%s: %s", c.call, r.body)
		require.NotEmpty(t, r.object(t)["code"], c.call)
		require.NotEmpty(t, r.object(t)["message"], c.call)
	}
	req, err := http.NewRequest(http.MethodPost, *d.base.Load()+"/v1/messages",
		strings.NewReader(`{"target":"pull:`+queue(t)+`","delay":"1h"}`))
	require.NoError(t, err)
	req.Header.Set("Origin", "https://evil.example")
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	r := d.do(req)
	require.Equal(t, http.StatusForbidden, r.status, "%s", r)
	require.Zero(t, d.count("target=pull:"+queue(t)))
}

// What operators and their machines look at.
func TestStatusAndHealth(t *testing.T) {
	t.Parallel()
	d := api(t)
	for _, p := range []string{"/healthz", "/readyz"} {
		require.Equal(t, http.StatusOK, d.call("GET", p, nil).status)
	}
	s := d.call("GET", "/v1/status", nil).ok(t)
	hasKeys(t, s, "version", "cluster", "shard", "epoch", "watermark", "tiers", "last_flush", "disk",
		"clock", "books")
	tiers := sub(t, s, "tiers")
	for _, tier := range []string{"hot", "warm", "cold"} {
		hasKeys(t, sub(t, tiers, tier), "messages", "bytes")
	}
	hasKeys(t, sub(t, s, "books"), "accepted", "pending", "delivered", "cancelled", "expired", "dead")
	require.NotEmpty(t, s["cluster"])
}
