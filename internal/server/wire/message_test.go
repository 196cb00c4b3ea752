// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const testNow = delay.Due(1_800_000_000_000)

func testRules() *Rules {
	return &Rules{HasBroker: func(kind, name string) bool { return kind == "kafka" && name == "main" },
		Salt: func() uint64 { return 7 }}
}

func decodeOne(in string) (delay.Draft, error) {
	d := Decoder{Rules: testRules()}
	var draft delay.Draft
	err := d.One([]byte(in), testNow, &draft)
	return draft, err
}

// Each field must arrive in the draft as it was given.
func TestMessage(t *testing.T) {
	got, err := decodeOne(`{"id":"o/1 ä","target":"pull:orders","delay":"10s","body":"h\u00e9\n",
		"key":"k","headers":{"b":"2","a":"1"},"ttl":"1h","not_after":"2040-01-01T00:00:00Z",
		"durability":"tier","replace":true,"max_wait":"1d","max_attempts":3,"backoff":250,
		"mode":"at_most_once"}`)
	require.NoError(t, err)
	require.Equal(t, delay.Draft{Replace: true, Message: delay.Message{
		ID: "o/1 ä", Target: "pull:orders", Due: testNow + 10_000, AcceptedAt: testNow, ByDelay: true,
		Durability: delay.Tier, Mode: delay.AtMostOnce, RoutingKey: "k",
		Headers: []delay.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}, Body: []byte("hé\n"),
		TTL: time.Hour, NotAfter: 2208988800000, MaxWait: 24 * time.Hour, MaxAttempts: 3,
		Backoff: 250 * time.Millisecond}}, got)
	for in, due := range map[string]delay.Due{
		`"deliver_at":"2030-01-02T03:04:05Z"`: 1893553445000,
		`"deliver_at":1893553445000`:          1893553445000,
		`"deliver_at":1893553445000.25`:       1893553445001,
		`"deliver_at":1.893553445e12`:         1893553445000,
		`"deliver_at":"1893553445000"`:        1893553445000,
		`"deliver_at":100000000000`:           100000000000, // the past stays as given
		`"delay":0`:                           testNow,
		`"delay":1500`:                        testNow + 1500,
		`"delay":0.5`:                         testNow + 1,
		`"delay":"1w2d"`:                      testNow + 9*86_400_000,
		`"delay":"PT1M"`:                      testNow + 60_000,
		`"delay":"365000d"`:                   testNow + 365000*86_400_000,
	} {
		got, err := decodeOne(`{"target":"log:",` + in + `}`)
		require.NoError(t, err, in)
		require.Equal(t, due, got.Due, in)
	}
	got, err = decodeOne(`{"target":"kafka:main/orders","delay":1,"body_base64":"AP/+"}`)
	require.NoError(t, err)
	require.Equal(t, []byte{0, 255, 254}, got.Body)
}

// A spread message must keep the due that was asked for, and land at the same point for one id.
func TestSpread(t *testing.T) {
	const in = `{"id":"a","target":"log:","deliver_at":1893553445000,"spread":"10m"}`
	one, err := decodeOne(in)
	require.NoError(t, err)
	two, err := decodeOne(in)
	require.NoError(t, err)
	require.Equal(t, one, two)
	require.Equal(t, delay.Due(1893553445000), one.GivenDue())
	require.Greater(t, one.Due, one.Given)
	require.LessOrEqual(t, one.Due, one.Given.Add(10*time.Minute))
}

// refusals lists values that a field must refuse, by the field that the error must name.
func refusals() map[string][]string {
	long := func(n int) string { return `"` + strings.Repeat("x", n) + `"` }
	manyHeaders := `{"h0":"","h1":""`
	for i := 2; i <= delay.MaxHeaders; i++ {
		manyHeaders += fmt.Sprintf(`,"h%d":"v"`, i)
	}
	durations := []string{`null`, `true`, `""`, `"1"`, `-1`, `"-1s"`, `"x"`, `{}`, `[]`, `1e400`,
		`"P1Y"`, `"P1M"`, `253402300800000`, `99999999999999999999`, `"1h "`}
	return map[string][]string{
		"id":            {`null`, `1`, `""`, `"\u0000"`, `"a\nb"`, `"\u007f"`, `"\u0085"`, long(257), `"\ud800"`},
		"target":        {`null`, `7`, `""`, `"pull"`, `"pull:"`, `"pull:a b"`, `"pull:a/b"`, `"log"`, `"log:x"`, `"ftp://x"`, `"http://"`, `"http:x"`, `"https:///p"`, `"http://u:p@h/"`, `"http://h/#f"`, `"http://h/ x"`, `"http://[::1"`, `"kafka:"`, `"kafka:main"`, `"kafka:main/"`, `"kafka:/t"`, long(4097), `"pull:` + strings.Repeat("x", 129) + `"`},
		"deliver_at":    {`null`, `true`, `""`, `"soon"`, `0`, `-5`, `1893553445`, `"1893553445"`, `1e400`, `-1e400`, `253402300800000`, `"2030-01-02T03:04:05"`, `{}`},
		"delay":         durations,
		"body":          {`null`, `1`, `{}`, `"\udfff"`, long(delay.MaxBodyBytes + 1)},
		"body_base64":   {`null`, `1`, `"a"`, `"YQ"`, `"YQ=="x`, `"Y Q="`, `"YQ==\n"`, `"Y_-="`, `"YR=="`},
		"key":           {`null`, `1`, `"\t"`, long(4097)},
		"headers":       {`null`, `[]`, `"a"`, `{"a":1}`, `{"a":null}`, `{"":"x"}`, `{"a":"1","a":"2"}`, `{"a\n":"x"}`, `{"a":"x\r\ny"}`, `{"Cicada-Id":"x"}`, `{"cicada-":"x"}`, `{"a":` + long(65536) + `}`, manyHeaders + `}`},
		"ttl":           append([]string{`0`, `"0s"`}, durations...),
		"not_after":     {`null`, `5`, `"x"`, `"1970-01-01T00:00:00Z"`},
		"spread":        durations,
		"durability":    {`null`, `1`, `""`, `"disk"`, `"Local"`},
		"replace":       {`null`, `1`, `"true"`, `"yes"`},
		"max_wait":      append([]string{`0`}, durations...),
		"max_attempts":  {`null`, `0`, `-1`, `1.5`, `1e2`, `"3"`, `4294967296`, `99999999999999999999`},
		"backoff":       append([]string{`0`}, durations...),
		"mode":          {`null`, `1`, `""`, `"once"`},
		"schedule":      {`null`, `1`, `""`, `"a\n"`, `{}`, long(257)},
		"time_zone":     {`null`, `1`, `""`, `"\t"`, long(65)},
		"misfire":       {`null`, `1`, `""`, `"all"`, `"FIRE_ONCE"`},
		"misfire_limit": {`null`, `0`, `-1`, `1001`, `1.5`, `"3"`},
		"until":         {`null`, `5`, `"x"`, `"1970-01-01T00:00:00Z"`, `""`},
		"count":         {`null`, `0`, `-1`, `1.5`, `"3"`, `9007199254740992`},
		"jitter":        durations,
		"nonsense":      {`null`, `1`, `{"a":[1,{"b":2}]}`, `"x"`},
		"ID":            {`"x"`},
	}
}

// withField is a good message with one field set to value.
func withField(field, value string) string {
	m := map[string]string{"id": `"i"`, "target": `"log:"`, "delay": `1000`, "body": `"b"`}
	if field == "deliver_at" {
		delete(m, "delay")
	}
	if f := fieldOf(field); f&fieldRecurring != 0 {
		delete(m, "delay")
		m["schedule"] = `"@daily"`
		if f == FieldMisfireLimit {
			m["misfire"] = `"fire_all"`
		}
	}
	if field == "body_base64" {
		delete(m, "body")
	}
	m[field] = value
	var out []string
	for k, v := range m {
		out = append(out, `"`+k+`":`+v)
	}
	return "{" + strings.Join(out, ",") + "}"
}

// Every bad value must be refused with its field named, and nothing else (J1, J2).
func TestRefusals(t *testing.T) {
	for field, values := range refusals() {
		for _, v := range values {
			in := withField(field, v)
			_, err := decodeOne(in)
			if !json.Valid([]byte(in)) {
				require.ErrorIs(t, err, delay.ErrInvalid, "%.200s", in)
				continue
			}
			var fe *delay.FieldError
			require.ErrorAs(t, err, &fe, "%.200s", in)
			require.Equal(t, field, fe.Field, "%.200s: %v", in, err)
			require.NotEmpty(t, fe.Reason)
		}
	}
}

// Combinations that contradict each other must be refused, and what is not built must say so.
func TestCombinations(t *testing.T) {
	for in, field := range map[string]string{
		`{}`:                "deliver_at",
		`{"delay":1}`:       "target",
		`{"target":"log:"}`: "deliver_at",
		`{"target":"log:","delay":1,"deliver_at":1893553445000}`:    "delay",
		`{"target":"log:","delay":1,"schedule":"@daily"}`:           "schedule",
		`{"target":"log:","delay":1,"body":"","body_base64":""}`:    "body_base64",
		`{"target":"log:","delay":1,"replace":true}`:                "replace",
		`{"target":"log:","delay":1,"delay":1}`:                     "delay",
		`{"target":"log:","delay":1,"target":"log:"}`:               "target",
		`{"target":"log:","delay":251700000000000}`:                 "delay",
		`{"target":"log:","deliver_at":253402300799999,"ttl":1}`:    "ttl",
		`{"target":"log:","deliver_at":253402300799999,"spread":1}`: "spread",
		`{"target":"log:","delay":1,"ttl":9300000000000}`:           "ttl",
		`{"target":"log:","delay":1,"mode":"exactly_once"}`:         "mode",
		`{"target":"kafka:other/t","delay":1}`:                      "target", // no such broker
		`{"target":"nats:n1/a.b","delay":1}`:                        "target",

		`[]`:   "messages",
		`1`:    "messages",
		`null`: "messages",
		`{"target":"log:","delay":1,"` + strings.Repeat("ü", 100) + `":1}`: strings.Repeat("ü", 32) + "…",
	} {
		_, err := decodeOne(in)
		var fe *delay.FieldError
		require.ErrorAs(t, err, &fe, in)
		require.Equal(t, field, fe.Field, in)
	}
	d := Decoder{Rules: &Rules{NoTier: true, Durability: delay.Tier}}
	var draft delay.Draft
	err := d.One([]byte(`{"target":"log:","delay":1}`), testNow, &draft)
	require.ErrorContains(t, err, "durability")
	d.Rules.CheckTarget = func(delay.Target) error { return delay.Invalid("target", "no") }
	err = d.One([]byte(`{"target":"http://h/","delay":1}`), testNow, &draft)
	require.ErrorContains(t, err, "target: no")
}

// Escapes are resolved in the request's own bytes, so neighbours must not run into each other, and
// drafts must hold until their bytes are used again (J4).
func TestInPlace(t *testing.T) {
	var in bytes.Buffer
	in.WriteString(`{"messages":[`)
	for i := range 200 {
		fmt.Fprintf(&in, `{"id":"\u0069%d","target":"log:","delay":1,"body":"\n\u00e9\ud83d\ude00%s\"%d",`+
			`"headers":{"\u0068%d":"\t"}},{"target":"log:","delay":1,"body_base64":"\u0059Q=="},`, i,
			strings.Repeat("x", i), i, i)
	}
	in.WriteString(`{}]}`)
	text := strings.ReplaceAll(in.String(), `"\t"`, `"\u0021"`)
	d := Decoder{Rules: testRules()}
	var b Batch
	require.NoError(t, d.Messages([]byte(text), testNow, &b))
	require.Len(t, b.Drafts, 400)
	for i := range 200 {
		m := &b.Drafts[2*i]
		require.Equal(t, fmt.Sprint("i", i), string(m.ID))
		require.Equal(t, fmt.Sprintf("\né😀%s\"%d", strings.Repeat("x", i), i), string(m.Body))
		require.Equal(t, []delay.Header{{Name: fmt.Sprint("h", i), Value: "!"}}, m.Headers)
		require.Equal(t, "a", string(b.Drafts[2*i+1].Body))
	}
}

// In a list each message must stand alone, in order; broken JSON must refuse the whole (J3).
func TestMessages(t *testing.T) {
	d := Decoder{Rules: testRules()}
	var b Batch
	in := `{"messages":[{"target":"log:","delay":1,"id":"a"},{"delay":1},7,{"target":"log:","delay":2,
		"id":"b"},{"target":"x:","delay":1},{"target":"log:","delay":3,"body":"\u00e9"}]}`
	require.NoError(t, d.Messages([]byte(in), testNow, &b))
	require.False(t, b.Single)
	require.Len(t, b.Errs, 6)
	require.Len(t, b.Drafts, 3)
	for i, want := range []string{"", "target", "messages", "", "target", ""} {
		var fe *delay.FieldError
		if want != "" {
			require.ErrorAs(t, b.Errs[i], &fe)
			require.Equal(t, want, fe.Field)
		} else {
			require.NoError(t, b.Errs[i])
		}
	}
	require.Equal(t, delay.ID("b"), b.Drafts[1].ID)
	require.Equal(t, "é", string(b.Drafts[2].Body))
	for _, in := range []string{``, ` `, `{"messages":[}`, `{"messages":[{"target":"log:","delay":1}`,
		`{"messages":[]`, `{"messages":[]} x`, `{"messages":{}}`, `{"messages":[],"a":1}`,
		`{"messages":[{"target":"log:","delay":1},]}`, `{"target":"log:","delay":1} {}`, `{"messages"`} {
		b.Reset()
		err := d.Messages([]byte(in), testNow, &b)
		if err == nil {
			require.True(t, b.Single, in)
			err = b.Errs[0]
		}
		require.ErrorIs(t, err, delay.ErrInvalid, in)
	}
	b.Reset()
	require.NoError(t, d.Messages([]byte(`{"messages":[]}`), testNow, &b))
	require.Empty(t, b.Errs)
	many := `{"messages":[` + strings.Repeat(`{},`, MaxBatch) + `{}]}`
	b.Reset()
	require.ErrorContains(t, d.Messages([]byte(many), testNow, &b), "more than 10000")
}

// Decoding base64 over its own text must give what a copy would, at every length.
func TestBase64InPlace(t *testing.T) {
	body := make([]byte, 0, 300)
	for i := range 300 {
		in := `{"target":"log:","delay":1,"body_base64":"` + base64.StdEncoding.EncodeToString(body) + `"}`
		got, err := decodeOne(in)
		require.NoError(t, err)
		require.True(t, bytes.Equal(body, got.Body))
		body = append(body, byte(i*37))
	}
}

// reference is a message as encoding/json reads it.
type reference struct {
	ID          *string           `json:"id"`
	Target      *string           `json:"target"`
	Body        *string           `json:"body"`
	BodyBase64  []byte            `json:"body_base64"`
	Key         *string           `json:"key"`
	Headers     map[string]string `json:"headers"`
	Replace     bool              `json:"replace"`
	MaxAttempts uint32            `json:"max_attempts"`
	Durability  string            `json:"durability"`
	Mode        string            `json:"mode"`
	Schedule    *string           `json:"schedule"`
	TimeZone    string            `json:"time_zone"`
	Misfire     string            `json:"misfire"`
	Limit       uint32            `json:"misfire_limit"`
	Until       any               `json:"until"`
	Count       uint64            `json:"count"`
	Jitter      any               `json:"jitter"`
	Delay       any               `json:"delay"`
	DeliverAt   any               `json:"deliver_at"`
	NotAfter    any               `json:"not_after"`
	TTL         any               `json:"ttl"`
	Spread      any               `json:"spread"`
	MaxWait     any               `json:"max_wait"`
	Backoff     any               `json:"backoff"`
}

// Whatever is accepted must mean what encoding/json takes it for, and whatever is refused must be a
// fault of the client that names its field or the place (J1).
func FuzzMessage(f *testing.F) {
	for field, values := range refusals() {
		for _, v := range values {
			if len(v) < 1000 {
				f.Add([]byte(withField(field, v)))
			}
		}
	}
	f.Add([]byte(`{"id":"a\u00e4\ud83d\ude00","target":"pull:q","delay":"1w","headers":{"a":"\"","\u0062":"x"}}`))
	f.Add([]byte(`{"target":"pull:q","schedule":"0 9 * * MON","time_zone":"Europe/Berlin",` +
		`"misfire":"fire_all","misfire_limit":10,"until":"2040-01-01T00:00:00Z","count":5,"jitter":"30s"}`))
	f.Add([]byte(`{"target":"https://h/p?q","deliver_at":1893553445000.5,"body_base64":"\u0059Q==","spread":5}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := decodeOne(string(in))
		if err != nil {
			require.ErrorIs(t, err, delay.ErrInvalid)
			var fe *delay.FieldError
			require.True(t, errors.As(err, &fe) || !json.Valid(in) || bytes.Contains(in, []byte("[[")) ||
				bytes.ContainsAny(in, "\xff\\") || !bytes.Equal(bytes.ToValidUTF8(in, nil), in), "%q: %v", in, err)
			return
		}
		var want reference
		dec := json.NewDecoder(bytes.NewReader(in))
		dec.DisallowUnknownFields()
		require.NoError(t, dec.Decode(&want), "%q", in)
		require.Equal(t, *want.Target, string(got.Target))
		require.Equal(t, deref(want.ID), string(got.ID))
		require.Equal(t, deref(want.Key), got.RoutingKey)
		require.Equal(t, deref(want.Body)+string(want.BodyBase64), string(got.Body))
		require.Equal(t, want.Replace, got.Replace)
		require.Equal(t, want.MaxAttempts, got.MaxAttempts)
		require.Len(t, got.Headers, len(want.Headers))
		for _, h := range got.Headers {
			require.Equal(t, want.Headers[h.Name], h.Value)
		}
		require.Equal(t, want.Durability == "tier", got.Durability == delay.Tier)
		if r := got.Recurrence; r != nil {
			require.Nil(t, want.Delay)
			require.Nil(t, want.DeliverAt)
			require.Equal(t, delay.Recurrence{Expr: *want.Schedule, Zone: want.TimeZone,
				MisfireLimit: want.Limit, Count: want.Count,
				Misfire: r.Misfire, Until: r.Until, Jitter: r.Jitter}, *r)
			require.Equal(t, want.Misfire != "" && want.Misfire != "fire_once", r.Misfire != delay.FireOnce)
		} else {
			require.Nil(t, want.Schedule)
			require.True(t, (want.Delay == nil) != (want.DeliverAt == nil))
		}
		require.Equal(t, want.Delay != nil, got.ByDelay)
		require.True(t, got.Due >= 0 && got.Due <= delay.MaxDue)
		rec := delay.AppendRecord(nil, &got.Message)
		_, err = delay.DecodeRecord(rec)
		require.NoError(t, err, "accepted what no record can hold: %q", in)
	})
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func benchBatch(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"messages":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":"order-%08d","target":"pull:orders","delay":"2h30m","key":"customer-%05d",`+
			`"body":"{\"order\":%d,\"note\":\"%s\"}"}`, i, i%1000, i, strings.Repeat("x", 110))
	}
	b.WriteString(`]}`)
	return b.Bytes()
}

// The hot path of intake: the target is below 1 µs for a message of 250 bytes.
func BenchmarkDecode100(b *testing.B) {
	src := benchBatch(100)
	buf := make([]byte, len(src))
	d := Decoder{Rules: testRules()}
	var batch Batch
	b.SetBytes(int64(len(src)))
	b.ReportAllocs()
	for b.Loop() {
		copy(buf, src)
		batch.Reset()
		if err := d.Messages(buf, testNow, &batch); err != nil || len(batch.Drafts) != 100 {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/msg")
}
