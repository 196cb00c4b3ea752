// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const iso = "2006-01-02T15:04:05.000Z"

// A reply that misses a field, or says a due in another way, breaks every client.
func TestSendReply(t *testing.T) {
	t.Parallel()
	d := api(t)
	before := time.Now()
	r := d.send(obj{"target": "pull:" + queue(t), "delay": "1h", "body": "hello"})
	after := time.Now()

	require.Regexp(t, regexp.MustCompile(`^[0-9A-Za-z]{26}$`), r["id"])
	require.Equal(t, "local", r["durability"])
	require.Equal(t, false, r["duplicate"])
	require.Equal(t, "scheduled", r["state"])
	require.EqualValues(t, 1, num(t, r, "generation"))
	due := num(t, r, "due_ms")
	require.Equal(t, time.UnixMilli(due).UTC().Format(iso), r["due"])
	require.GreaterOrEqual(t, due, before.Add(time.Hour).UnixMilli())
	require.LessOrEqual(t, due, after.Add(time.Hour).UnixMilli()+1)

	later := d.send(obj{"target": "pull:" + queue(t), "delay": "2h"})
	require.Less(t, text(r, "id"), text(later, "id"), "server-made ids sort by due")
}

// What was sent must come back as it was, in every view.
func TestMessageComesBack(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	id := q + "-1"
	d.send(obj{
		"id": id, "target": "pull:" + q, "delay": "200ms", "key": "k-1", "body": "grüße\u0000\n",
		"headers": obj{"a": "1", "B": "ü"}, "ttl": "1h", "max_attempts": 5, "backoff": "3s",
	})
	check := func(m obj) {
		t.Helper()
		hasKeys(t, m, "id", "state", "due", "due_ms", "attempts", "tier", "target", "key", "headers",
			"size", "generation")
		require.Equal(t, id, m["id"])
		require.Equal(t, "pull:"+q, m["target"])
		require.Equal(t, "k-1", m["key"])
		require.Equal(t, obj{"a": "1", "B": "ü"}, m["headers"])
		require.EqualValues(t, len("grüße\u0000\n"), num(t, m, "size"))
		require.EqualValues(t, 1, num(t, m, "generation"))
		require.EqualValues(t, 0, num(t, m, "attempts"))
		require.Equal(t, "scheduled", m["state"])
		require.Contains(t, []any{"hot", "warm", "cold"}, m["tier"])
	}
	m := d.get(id)
	check(m)
	require.NotContains(t, m, "body")
	m = d.call("GET", path(id)+"?body=true", nil).ok(t)
	check(m)
	require.Equal(t, "grüße\u0000\n", m["body"])
	rows := list(t, d.call("GET", "/v1/messages?target=pull:"+q, nil).ok(t), "messages")
	require.Len(t, rows, 1)
	check(rows[0])

	got := d.pullOne(q, obj{})
	hasKeys(t, got, "id", "receipt", "attempt", "due", "due_ms", "key", "headers", "body")
	require.Equal(t, id, got["id"])
	require.Equal(t, "k-1", got["key"])
	require.Equal(t, obj{"a": "1", "B": "ü"}, got["headers"])
	require.Equal(t, "grüße\u0000\n", got["body"])
	require.EqualValues(t, 1, num(t, got, "attempt"))
	require.Equal(t, num(t, m, "due_ms"), num(t, got, "due_ms"))
	require.Equal(t, "claimed", d.state(id))

	receipt := text(got, "receipt")
	require.Equal(t, map[string]string{receipt: "ACKED"}, d.ack(q, receipt))
	require.Equal(t, "delivered", d.state(id))
}

// Bytes that are no text must survive, and be told from text.
func TestBinaryBody(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	raw := []byte{0, 0xff, 0xfe, '"', 0x80}
	b64 := base64.StdEncoding.EncodeToString(raw)
	id := text(d.send(obj{"target": "pull:" + q, "delay": 0, "body_base64": b64}), "id")
	m := d.call("GET", path(id)+"?body=true", nil).ok(t)
	require.Equal(t, b64, m["body_base64"])
	require.NotContains(t, m, "body")
	got := d.pullOne(q, obj{})
	require.Equal(t, b64, got["body_base64"])
	require.NotContains(t, got, "body")

	// Base64 that holds text comes back as text: the form is a matter of the bytes.
	id = text(d.send(obj{"target": "pull:" + q, "delay": "1h", "body_base64": "aGk="}), "id")
	require.Equal(t, "hi", d.call("GET", path(id)+"?body=true", nil).ok(t)["body"])
}

// A time that is read in the wrong unit or zone is a message delivered years off.
func TestTimeFormats(t *testing.T) {
	t.Parallel()
	d := api(t)
	at := time.Now().Add(48 * time.Hour).Truncate(time.Millisecond)
	instant := func(when time.Time) (low, high int64) { return when.UnixMilli(), when.UnixMilli() }
	for name, c := range map[string]struct {
		value any
		want  time.Time
	}{
		"zulu":            {at.UTC().Format(time.RFC3339Nano), at},
		"offset":          {at.In(time.FixedZone("", 2*3600)).Format(time.RFC3339Nano), at},
		"negative offset": {at.In(time.FixedZone("", -9*3600-1800)).Format(time.RFC3339Nano), at},
		"number":          {at.UnixMilli(), at},
		"digits":          {fmt.Sprint(at.UnixMilli()), at},
		"micros round up": {at.UTC().Format("2006-01-02T15:04:05.000") + "001Z", at.Add(time.Millisecond)},
		"nanos round up": {
			at.UTC().Format("2006-01-02T15:04:05.000") + "000001Z", at.Add(time.Millisecond),
		},
		"last instant": {"9999-12-31T23:59:59.999Z", time.UnixMilli(253402300799999)},
	} {
		low, high := instant(c.want)
		r := d.send(obj{"target": "pull:" + queue(t), "deliver_at": c.value})
		due := num(t, r, "due_ms")
		require.GreaterOrEqual(t, due, low, name)
		require.LessOrEqual(t, due, high, name)
		require.Equal(t, c.want.UTC().Format(iso), r["due"], name)
	}
	for name, c := range map[string]struct {
		value any
		want  time.Duration
	}{
		"go":            {"1h30m", 90 * time.Minute},
		"days":          {"2d", 48 * time.Hour},
		"weeks":         {"1w", 7 * 24 * time.Hour},
		"days, hours":   {"1d12h", 36 * time.Hour},
		"iso":           {"PT1H30M", 90 * time.Minute},
		"iso days":      {"P2DT1S", 48*time.Hour + time.Second},
		"iso weeks":     {"P3W", 21 * 24 * time.Hour},
		"number":        {5_400_000, 90 * time.Minute},
		"nanos, up":     {"60m0.000000001s", time.Hour + time.Millisecond},
		"micros, up":    {"3600s1us", time.Hour + time.Millisecond},
		"fraction, up":  {3_600_000.25, time.Hour + time.Millisecond},
		"iso fraction":  {"PT3600.0001S", time.Hour + time.Millisecond},
		"zero":          {"0s", 0},
		"zero number":   {0, 0},
		"a long one":    {"1000000h", 1_000_000 * time.Hour},
		"fractions too": {"1.5h", 90 * time.Minute},
	} {
		before := time.Now().UnixMilli()
		r := d.call("POST", "/v1/messages", obj{"target": "pull:" + queue(t), "delay": c.value})
		after := time.Now().UnixMilli()
		require.Equal(t, http.StatusOK, r.status, "%s: %s", name, r.body)
		due := num(t, r.ok(t), "due_ms")
		require.GreaterOrEqual(t, due, before+c.want.Milliseconds(), name)
		require.LessOrEqual(t, due, after+1+c.want.Milliseconds(), name)
	}
}

// A past due means now, and the reply says what was asked.
func TestPastIsNow(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	for i, at := range []any{"1999-01-01T00:00:00Z", time.Now().Add(-time.Hour).UnixMilli()} {
		id := fmt.Sprint(q, "-", i)
		r := d.send(obj{"id": id, "target": "pull:" + q, "deliver_at": at})
		got := d.pullOne(q, obj{})
		require.Equal(t, id, got["id"])
		require.Equal(t, num(t, r, "due_ms"), num(t, got, "due_ms"))
		d.ack(q, text(got, "receipt"))
	}
}

// Nothing is taken early, not even by a millisecond, and not late either on a quiet machine.
func TestNeverEarly(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	const n = 200
	var batch []obj
	for i := range n {
		batch = append(batch, obj{"target": "pull:" + q, "delay": 100 + i*7})
	}
	d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t)
	for got := 0; got < n; {
		leased := d.pull(q, obj{"max": 50, "wait": "20s"})
		now := time.Now().UnixMilli()
		require.NotEmpty(t, leased)
		for _, m := range leased {
			require.LessOrEqual(t, num(t, m, "due_ms"), now, "early")
		}
		got += len(leased)
	}
}

// long is a string of n bytes.
func long(n int) string { return strings.Repeat("x", n) }

// Each mistake must be answered with the field's name, and nothing may be stored.
func TestRefusedMessages(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	headers := func(n, size int) obj {
		h := obj{}
		for i := range n {
			h[fmt.Sprint("h", i)] = long(size)
		}
		return h
	}
	const when = "one of deliver_at, delay, schedule"
	cases := []struct {
		name  string
		set   obj // over a good message
		unset string
		field string
	}{
		{"unknown field", obj{"colour": "red"}, "", "colour"},
		{"case of a field", obj{"Key": "k"}, "", "Key"},
		{"no target", nil, "target", "target"},
		{"empty target", obj{"target": ""}, "", "target"},
		{"target without scheme", obj{"target": "orders"}, "", "target"},
		{"unknown scheme", obj{"target": "ftp://example.com/"}, "", "target"},
		{"empty queue", obj{"target": "pull:"}, "", "target"},
		{"queue with a slash", obj{"target": "pull:a/b"}, "", "target"},
		{"queue with a space", obj{"target": "pull:a b"}, "", "target"},
		{"long queue", obj{"target": "pull:" + long(129)}, "", "target"},
		{"queue that is not ascii", obj{"target": "pull:ü"}, "", "target"},
		{"url without a host", obj{"target": "http:///path"}, "", "target"},
		{"target with a control character", obj{"target": "pull:a\n"}, "", "target"},
		{"loopback", obj{"target": "http://127.0.0.1/x"}, "", "target"},
		{"loopback in v6", obj{"target": "http://[::1]:80/x"}, "", "target"},
		{"loopback as v4 in v6", obj{"target": "http://[::ffff:127.0.0.1]/"}, "", "target"},
		{"private", obj{"target": "https://10.1.2.3/x"}, "", "target"},
		{"private 192.168", obj{"target": "https://192.168.0.1/x"}, "", "target"},
		{"private 172.16", obj{"target": "https://172.16.3.4/x"}, "", "target"},
		{"link-local", obj{"target": "http://169.254.169.254/latest"}, "", "target"},
		{"private v6", obj{"target": "http://[fd00::1]/x"}, "", "target"},
		{"unspecified", obj{"target": "http://0.0.0.0/x"}, "", "target"},
		{"decimal address", obj{"target": "http://2130706433/x"}, "", "target"},
		{"octal address", obj{"target": "http://0177.0.0.1/x"}, "", "target"},
		{"no time", nil, "delay", when},
		{"two times", obj{"deliver_at": "2030-01-01T00:00:00Z"}, "", when},
		{"time and schedule", obj{"schedule": "@daily"}, "", when},
		{"negative delay", obj{"delay": "-1s"}, "", "delay"},
		{"negative ms", obj{"delay": -1}, "", "delay"},
		{"years", obj{"delay": "P1Y"}, "", "delay"},
		{"months", obj{"delay": "P1M"}, "", "delay"},
		{"no unit", obj{"delay": "1.5"}, "", ""},
		{"unknown unit", obj{"delay": "3 fortnights"}, "", "delay"},
		{"delay beyond year 9999", obj{"delay": "100000000h"}, "", "delay"},
		{"huge delay", obj{"delay": "9999999999999999999999h"}, "", "delay"},
		{"huge ms", obj{"delay": 1e300}, "", "delay"},
		{"empty delay", obj{"delay": ""}, "", "delay"},
		{"id empty", obj{"id": ""}, "", "id"},
		{"id long", obj{"id": long(257)}, "", "id"},
		{"id control", obj{"id": "a\u0000"}, "", "id"},
		{"id newline", obj{"id": "a\nb"}, "", "id"},
		{"id delete", obj{"id": "a\u007f"}, "", "id"},
		{"id number", obj{"id": 7}, "", "id"},
		{"both bodies", obj{"body": "a", "body_base64": "YQ=="}, "", "body_base64"},
		{"bad base64", obj{"body_base64": "!!"}, "", "body_base64"},
		{"base64 unpadded", obj{"body_base64": "YQ"}, "", "body_base64"},
		{"body object", obj{"body": obj{"a": 1}}, "", "body"},
		{"65 headers", obj{"headers": headers(65, 1)}, "", "headers"},
		{"headers of 64 KiB", obj{"headers": headers(64, 1100)}, "", "headers"},
		{"reserved header", obj{"headers": obj{"cicada-id": "x"}}, "", "headers"},
		{"reserved in capitals", obj{"headers": obj{"Cicada-Due": "x"}}, "", "headers"},
		{"header control", obj{"headers": obj{"a": "b\r\nc: d"}}, "", "headers"},
		{"header name control", obj{"headers": obj{"a\n": "b"}}, "", "headers"},
		{"header no name", obj{"headers": obj{"": "b"}}, "", "headers"},
		{"header number", obj{"headers": obj{"a": 1}}, "", "headers"},
		{"headers list", obj{"headers": []string{"a"}}, "", "headers"},
		{"key control", obj{"key": "a\u0001"}, "", "key"},
		{"ttl negative", obj{"ttl": "-1s"}, "", "ttl"},
		{"ttl zero", obj{"ttl": 0}, "", "ttl"},
		{"ttl word", obj{"ttl": "soon"}, "", "ttl"},
		{"not_after seconds", obj{"not_after": 1_700_000_000}, "", "not_after"},
		{"spread negative", obj{"spread": "-5s"}, "", "spread"},
		{"max_attempts zero", obj{"max_attempts": 0}, "", "max_attempts"},
		{"max_attempts negative", obj{"max_attempts": -1}, "", "max_attempts"},
		{"max_attempts fraction", obj{"max_attempts": 1.5}, "", "max_attempts"},
		{"max_attempts huge", obj{"max_attempts": 1e20}, "", "max_attempts"},
		{"max_attempts text", obj{"max_attempts": "3"}, "", "max_attempts"},
		{"backoff negative", obj{"backoff": -1}, "", "backoff"},
		{"durability word", obj{"durability": "disk"}, "", "durability"},
		{"durability case", obj{"durability": "LOCAL"}, "", "durability"},
		{"mode word", obj{"mode": "twice"}, "", "mode"},
		{"replace text", obj{"replace": "yes"}, "", "replace"},
		{"max_wait negative", obj{"replace": true, "max_wait": -1}, "", "max_wait"},
	}
	var batch []obj
	for i, c := range cases {
		m := obj{"id": fmt.Sprint(q, "-", i), "target": "pull:" + q, "delay": "1h"}
		maps.Copy(m, c.set)
		delete(m, c.unset)
		batch = append(batch, m)
		r := d.call("POST", "/v1/messages", m)
		if c.name == "no unit" { // a number in a string counts as milliseconds, or is refused
			continue
		}
		require.Equal(t, http.StatusBadRequest, r.status, "%s: %s", c.name, r.body)
		o := r.object(t)
		require.Equal(t, "invalid_argument", o["code"], "%s: %s", c.name, r.body)
		if c.field == when {
			require.Contains(t, []any{"deliver_at", "delay", "schedule"}, o["field"], c.name)
		} else {
			require.Equal(t, c.field, o["field"], "%s: %s", c.name, r.body)
		}
	}
	for _, at := range []any{
		"2030-01-01T00:00:00", "2030-01-01", "tomorrow", "", 99_999_999_999, "99999999999", -1, 1.5e9,
		"10000-01-01T00:00:00Z", 253_402_300_800_000, "2030-13-01T00:00:00Z",
		"2030-02-30T00:00:00Z", nil, true, obj{}, []int{1},
	} {
		r := d.call("POST", "/v1/messages", obj{"target": "pull:" + q, "deliver_at": at})
		r.refused(t, http.StatusBadRequest, "invalid_argument", "deliver_at")
	}
	// The same mistakes beside good messages: each is answered in its place.
	batch = append(batch, obj{"id": q + "-good", "target": "pull:" + q, "delay": "1h"})
	results := list(t, d.call("POST", "/v1/messages", obj{"messages": batch}).ok(t), "results")
	require.Len(t, results, len(batch))
	for i, c := range cases {
		if c.name != "no unit" {
			require.Equal(t, "invalid_argument", sub(t, results[i], "error")["code"], c.name)
		}
	}
	require.Equal(t, q+"-good", results[len(cases)]["id"])
	for i, c := range cases {
		if c.name != "no unit" {
			require.Equal(t, "not_found", d.state(fmt.Sprint(q, "-", i)), c.name)
		}
	}
}

// What is no JSON, or not one JSON, must not be guessed at.
func TestRefusedJSON(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	good := `{"target":"pull:` + q + `","delay":"1h"}`
	for _, body := range []string{
		"", " ", "{", "}", "[]", "null", "1", `"x"`, good + good, good + "x", "[" + good + "]",
		`{"target":"pull:q","target":"pull:q","delay":"1h"}`,
		`{"target":"pull:q","delay":"1h","delay":"1h"}`,
		`{"target":'pull:q',"delay":"1h"}`,
		`{"target":"pull:q","delay":01}`,
		`{"target":"pull:q","delay":NaN}`,
		`{"target":"pull:q","delay":"1h",}`,
		`{"target":"pull:q","delay":"1h","body":"` + "\xff\xfe" + `"}`,
		`{"target":"pull:q","delay":"1h","body":"\ud800"}`,
		`{"target":"pull:q","delay":"1h","body":"` + "a\nb" + `"}`,
		`{"messages":` + good + `}`,
		`{"messages":[` + good + `],"target":"pull:q"}`,
		`{"messages":[` + good,
		`{"messages":null}`,
		strings.Repeat("[", 100_000),
		`{"headers":` + strings.Repeat(`{"a":`, 50_000),
	} {
		r := d.call("POST", "/v1/messages", body)
		require.Equal(t, http.StatusBadRequest, r.status, "%.80s: %s", body, r.body)
		require.Equal(t, "invalid_argument", r.object(t)["code"])
	}
	require.Zero(t, d.count("target=pull:"+q))
}

// junk are values that no field of another kind can mean.
var junk = []string{
	`null`, `true`, `false`, `-1`, `0`, `1`, `1.5`, `1e400`, `-1e400`, `9223372036854775808`,
	`""`, `" "`, `"\u0000"`, `"x"`, `"-1s"`, `"NaN"`, `"99999999999999999999"`, `[]`, `[1]`, `{}`,
	`{"a":{"b":[]}}`, `"\ud83d\ude00"`, `"` + "%s%n%00../../" + `"`,
	`"` + strings.Repeat("9", 5000) + `"`, `"` + strings.Repeat("x", 70_000) + `"`,
}

// Every field with every kind of nonsense: accepted or refused with the field named, never an
// internal error and never something stored under a refusal.
func TestFieldsFuzzed(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	fields := []string{
		"id", "target", "deliver_at", "delay", "body", "body_base64", "key", "headers", "ttl",
		"not_after", "spread", "schedule", "time_zone", "misfire", "misfire_limit", "until", "count",
		"jitter", "durability", "replace", "max_wait", "max_attempts", "backoff", "mode", "bogus",
	}
	for _, f := range fields {
		for i, v := range junk {
			var parts []string
			id := fmt.Sprintf("%s-%s-%d", q, f, i)
			for _, p := range [][2]string{
				{"id", `"` + id + `"`}, {"target", `"pull:` + q + `"`}, {"delay", `"10h"`},
			} {
				if p[0] != f && (p[0] != "delay" || f != "deliver_at" && f != "schedule") {
					parts = append(parts, `"`+p[0]+`":`+p[1])
				}
			}
			body := "{" + strings.Join(append(parts, `"`+f+`":`+v), ",") + "}"
			r := d.call("POST", "/v1/messages", body)
			if r.status == http.StatusOK {
				continue
			}
			if f == "id" && r.status == http.StatusConflict {
				continue // a good id, after all, and taken by an earlier run
			}
			recurring := slices.Contains(
				strings.Fields("schedule time_zone misfire misfire_limit until count jitter"), f)
			if recurring && r.status == http.StatusNotImplemented {
				continue
			}
			require.Equal(t, http.StatusBadRequest, r.status, "%.200s: %s", body, r.body)
			o := r.object(t)
			require.Equal(t, "invalid_argument", o["code"], "%.200s: %s", body, r.body)
			require.Equal(t, f, o["field"], "%.200s: %s", body, r.body)
			if f != "id" {
				require.Equal(t, "not_found", d.state(id), "%.200s", body)
			}
		}
	}
}

// The limits are exact: what they allow is taken, one more is refused.
func TestLimits(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	target := "pull:" + q
	id := text(d.send(obj{"target": target, "delay": "1h", "body": long(4 << 20)}), "id")
	require.EqualValues(t, 4<<20, num(t, d.get(id), "size"))
	d.call("POST", "/v1/messages", obj{"target": target, "delay": "1h", "body": long(4<<20 + 1)}).
		refused(t, http.StatusBadRequest, "invalid_argument", "body")
	over := base64.StdEncoding.EncodeToString(make([]byte, 4<<20+1))
	d.call("POST", "/v1/messages", obj{"target": target, "delay": "1h", "body_base64": over}).
		refused(t, http.StatusBadRequest, "invalid_argument", "body_base64")

	headers := obj{}
	for i := range 64 {
		headers[fmt.Sprintf("h%03d", i)] = long(1020)
	}
	d.send(obj{"target": target, "delay": "1h", "headers": headers})
	headers["h000"] = long(1021)
	d.call("POST", "/v1/messages", obj{"target": target, "delay": "1h", "headers": headers}).
		refused(t, http.StatusBadRequest, "invalid_argument", "headers")

	full := q + "/" + strings.Repeat("ü", (256-len(q)-1)/2)
	full += long(256 - len(full))
	d.send(obj{"target": target, "delay": "1h", "id": full})
	require.Equal(t, full, d.get(full)["id"])
	d.send(obj{"target": "pull:" + long(128), "delay": "1h"})

	before := d.count("target=" + target)
	one := `{"target":"` + target + `","delay":"1h"}`
	batch := `{"messages":[` + strings.Repeat(one+",", 9_999) + one + `]}`
	results := list(t, d.call("POST", "/v1/messages", batch).ok(t), "results")
	require.Len(t, results, 10_000)
	require.Equal(t, before+10_000, d.count("target="+target))
	batch = `{"messages":[` + strings.Repeat(one+",", 10_000) + one + `]}`
	r := d.call("POST", "/v1/messages", batch)
	r.refused(t, http.StatusBadRequest, "invalid_argument", "messages")
	require.Equal(t, before+10_000, d.count("target="+target), "a refused batch stores nothing")

	big := `{"target":"` + target + `","delay":"1h","body":"` + long(4<<20) + `"}`
	batch = `{"messages":[` + strings.Repeat(big+",", 16) + big + `]}`
	r = d.try("POST", "/v1/messages", batch)
	if r.err == nil { // the server may hang up on a request that is too large
		require.GreaterOrEqual(t, r.status, 400)
		require.Less(t, r.status, 500, "%s", r.body)
	}
	require.Equal(t, before+10_000, d.count("target="+target), "a refused batch stores nothing")
	require.EqualValues(t, 10_000+3+1-1, d.count("target="+target), "books of this test")
}

// A target that names a broker which is not in the configuration, and a promise that the target
// cannot keep, are refused by their fields, and nothing is stored.
func TestUnknownBrokers(t *testing.T) {
	t.Parallel()
	d := api(t)
	q := queue(t)
	for i, c := range []struct {
		status      int
		code, field string
		set         obj
	}{
		{400, "invalid_argument", "target", obj{"target": "kafka:main/orders"}},
		{400, "invalid_argument", "target", obj{"target": "rocketmq:rmq/orders"}},
		{400, "invalid_argument", "target", obj{"target": "nats:n1/orders.due"}},
		{400, "invalid_argument", "mode", obj{"mode": "exactly_once"}},
	} {
		id := fmt.Sprint(q, "-", i)
		m := obj{"id": id, "target": "pull:" + q, "delay": "1h"}
		maps.Copy(m, c.set)
		d.call("POST", "/v1/messages", m).refused(t, c.status, c.code, c.field)
		require.Equal(t, "not_found", d.state(id))
	}
}
