// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/scheduler"
)

// Replies written by hand must hold every field, under its name, in JSON that others read.
func TestReplies(t *testing.T) {
	r := scheduler.Receipt{ID: "a\"b", Due: 1893553445001, Durability: delay.Tier, Duplicate: true,
		Generation: 2, State: delay.Claimed}
	require.Equal(t, `{"id":"a\"b","due":"2030-01-02T03:04:05.001Z","due_ms":1893553445001,`+
		`"durability":"tier","duplicate":true,"generation":2,"state":"claimed"}`,
		string(AppendReceipt(nil, &r)))
	require.Equal(t, `{"code":"not_found","message":"no \"x\"","field":"id"}`,
		string(AppendFault(nil, Fault{Code: "not_found", Message: `no "x"`, Field: "id"})))

	leases := []scheduler.Lease{
		{ID: "1", Receipt: "r1", Attempt: 3, Due: 5, FiredAt: 6, RoutingKey: "k",
			Headers: []delay.Header{{Name: "a", Value: "1"}, {Name: "b", Value: "\x00"}}, Body: []byte("x\ty")},
		{ID: "2", Body: []byte{0xff, 0}},
	}
	require.Equal(t, `{"messages":[{"id":"1","receipt":"r1","attempt":3,"due":"1970-01-01T00:00:00.005Z",`+
		`"due_ms":5,"fired_at_ms":6,"key":"k","headers":{"a":"1","b":"\u0000"},"body":"x\ty"},`+
		`{"id":"2","receipt":"","attempt":0,"due":"1970-01-01T00:00:00.000Z","due_ms":0,"fired_at_ms":0,`+
		`"key":"","headers":{},"body_base64":"/wA="}]}`, string(AppendLeases(nil, leases)))

	require.Equal(t, `{"results":[{"receipt":"a","result":"ACKED"},{"receipt":"b","result":"SUPERSEDED"}]}`,
		string(AppendSettled(nil, []string{"a", "b"},
			[]scheduler.SettleResult{scheduler.Acked, scheduler.Superseded})))

	info := scheduler.Info{ID: "i", Known: true, State: delay.Dead, Level: delay.Cold, Due: 7, Attempts: 2,
		Target: "log:", RoutingKey: "k", Size: 3, Generation: 1, Body: []byte("abc"), Reason: "attempts",
		LastError: "no", DiedAt: 9}
	require.Equal(t, `{"id":"i","state":"dead","due":"1970-01-01T00:00:00.007Z","due_ms":7,"attempts":2,`+
		`"tier":"cold","target":"log:","key":"k","headers":{},"size":3,"generation":1,"reason":"attempts",`+
		`"last_error":"no","died_at":"1970-01-01T00:00:00.009Z","body":"abc"}`,
		string(AppendInfo(nil, &info, Show{Body: true, Dead: true})))
	require.Equal(t, `{"id":"i","state":"delivered"}`,
		string(AppendInfo(nil, &scheduler.Info{ID: "i", State: delay.Delivered}, Show{Body: true})))
}

// Requests other than messages must refuse what they do not know, with the field named (J1).
func TestSmallRequests(t *testing.T) {
	p, err := DecodePull(nil)
	require.NoError(t, err)
	require.Equal(t, Pull{Max: 100, Lease: 30 * time.Second}, p)
	p, err = DecodePull([]byte(`{"max":10,"wait":"5s","lease":60000}`))
	require.NoError(t, err)
	require.Equal(t, Pull{Max: 10, Wait: 5 * time.Second, Lease: time.Minute}, p)

	req, err := DecodeSettle([]byte(`{"receipts":["a","b"],"delay":"0s","reason":"no"}`), scheduler.Nack)
	require.NoError(t, err)
	require.Equal(t, scheduler.SettleRequest{Settlement: scheduler.Nack, Receipts: []string{"a", "b"},
		HasDelay: true, Reason: "no"}, req)
	req, err = DecodeSettle([]byte(`{"receipts":["a"]}`), scheduler.Extend)
	require.NoError(t, err)
	require.Equal(t, 30*time.Second, req.Lease)

	due, err := DecodePatch([]byte(`{"delay":"1m"}`), testNow)
	require.NoError(t, err)
	require.Equal(t, testNow+60_000, due)

	f, dry, err := DecodePurge([]byte(`{"target":"pull:a","state":"scheduled","tier":"cold",
		"due_from":1893553445000,"due_to":"2031-01-01T00:00:00Z","id_prefix":"x","dry_run":true}`))
	require.NoError(t, err)
	require.True(t, dry)
	require.Equal(t, delay.Scheduled, *f.State)
	require.Equal(t, delay.Cold, *f.Level)
	require.Equal(t, delay.Due(1893553445000), f.DueFrom)
	require.Equal(t, "x", f.IDPrefix)

	receipts := `{"receipts":["a"` + strings.Repeat(`,"a"`, MaxReceipts) + `]}`
	pullOf := func(b []byte) error { _, err := DecodePull(b); return err }
	nack := func(b []byte) error { _, err := DecodeSettle(b, scheduler.Nack); return err }
	extend := func(b []byte) error { _, err := DecodeSettle(b, scheduler.Extend); return err }
	patch := func(b []byte) error { _, err := DecodePatch(b, testNow); return err }
	purge := func(b []byte) error { _, _, err := DecodePurge(b); return err }
	target := func(b []byte) error { _, err := DecodeTarget(b); return err }
	for i, c := range []struct {
		decode    func([]byte) error
		in, field string
	}{
		{pullOf, `{"max":0}`, "max"}, {pullOf, `{"max":1001}`, "max"}, {pullOf, `{"max":"1"}`, "max"},
		{pullOf, `{"wait":"61s"}`, "wait"}, {pullOf, `{"wait":-1}`, "wait"}, {pullOf, `{"lease":"999ms"}`, "lease"},
		{pullOf, `{"lease":"13h"}`, "lease"}, {pullOf, `{"Max":1}`, "Max"}, {pullOf, `{"max":1,"max":1}`, "max"},
		{pullOf, `{"max":1}x`, ""}, {pullOf, `[]`, ""}, {pullOf, `{"max":1`, ""}, {pullOf, `{"max":01}`, ""},
		{nack, `{}`, "receipts"}, {nack, `{"receipts":[]}`, "receipts"}, {nack, `{"receipts":"a"}`, "receipts"},
		{nack, `{"receipts":[1]}`, "receipts"}, {nack, receipts, "receipts"},
		{nack, `{"receipts":["a"],"lease":1}`, "lease"}, {nack, `{"receipts":["a"],"delay":-1}`, "delay"},
		{nack, `{"receipts":["a"],"reason":"\n"}`, "reason"},
		{extend, `{"receipts":["a"],"lease":1}`, "lease"}, {extend, `{"receipts":["a"],"delay":1}`, "delay"},
		{patch, `{}`, "deliver_at"}, {patch, ``, "deliver_at"}, {patch, `{"delay":1,"deliver_at":1893553445000}`, "delay"},
		{patch, `{"delay":"x"}`, "delay"}, {patch, `{"delay":251700000000000}`, "delay"}, {patch, `{"ttl":1}`, "ttl"},
		{purge, `{"state":"x"}`, "state"}, {purge, `{"tier":"x"}`, "tier"}, {purge, `{"due_to":5}`, "due_to"},
		{purge, `{"dry_run":1}`, "dry_run"}, {purge, `{"target":""}`, "target"}, {purge, `{"x":""}`, "x"},
		{target, `{}`, "target"}, {target, `{"target":1}`, "target"}, {target, `{"queue":"x"}`, "queue"},
		{DecodeNothing, `{"a":1}`, "a"}, {DecodeNothing, `x`, ""},
	} {
		err := c.decode([]byte(c.in))
		require.ErrorIs(t, err, delay.ErrInvalid, "%d: %.100s", i, c.in)
		var fe *delay.FieldError
		if c.field == "" {
			continue
		}
		require.ErrorAs(t, err, &fe, "%d: %.100s", i, c.in)
		require.Equal(t, c.field, fe.Field, "%d: %.100s", i, c.in)
	}
	require.NoError(t, DecodeNothing(nil))
	require.NoError(t, DecodeNothing([]byte(" {} ")))
}

// No bytes may crash a decoder or be refused as anything but a fault of the client.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{`{"max":1,"wait":"1s"}`, `{"receipts":["a"]}`, `{"delay":5}`, `{"target":"a"}`,
		`{"due_from":"1893553445000","dry_run":true}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		check := func(err error) {
			if err != nil {
				require.ErrorIs(t, err, delay.ErrInvalid)
			} else if len(bytes.Trim(in, " \t\r\n")) > 0 {
				require.True(t, json.Valid(in))
			}
		}
		_, err := DecodePull(bytes.Clone(in))
		check(err)
		for _, kind := range []scheduler.Settlement{scheduler.Ack, scheduler.Nack, scheduler.Extend} {
			_, err = DecodeSettle(bytes.Clone(in), kind)
			check(err)
		}
		_, err = DecodePatch(bytes.Clone(in), testNow)
		check(err)
		_, _, err = DecodePurge(bytes.Clone(in))
		check(err)
		_, err = DecodeTarget(bytes.Clone(in))
		check(err)
		check(DecodeNothing(bytes.Clone(in)))
	})
}

// The reply to a batch of 100.
func BenchmarkAppendReceipts100(b *testing.B) {
	receipts := make([]scheduler.Receipt, 100)
	for i := range receipts {
		receipts[i] = scheduler.Receipt{ID: delay.ID(fmt.Sprintf("order-%08d", i)), Due: testNow, Generation: 1}
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = out[:0]
		for i := range receipts {
			out = AppendReceipt(out, &receipts[i])
		}
	}
	b.SetBytes(int64(len(out)))
}

// The reply to a pull of 1,000, the largest.
func BenchmarkAppendLeases1000(b *testing.B) {
	leases := make([]scheduler.Lease, 1000)
	for i := range leases {
		leases[i] = scheduler.Lease{ID: delay.ID(fmt.Sprintf("order-%08d", i)), Receipt: strings.Repeat("r", 36),
			Attempt: 1, Due: testNow, FiredAt: testNow,
			Body: []byte(`{"order":1,"note":"` + strings.Repeat("x", 150) + `","done":false}`)}
	}
	var out []byte
	b.ReportAllocs()
	for b.Loop() {
		out = AppendLeases(out[:0], leases)
	}
	b.SetBytes(int64(len(out)))
}
