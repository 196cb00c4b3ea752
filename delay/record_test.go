// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// update rewrites the golden files and generated documents: go test ./delay -update.
var update = flag.Bool("update", false, "rewrite golden files and generated documents")

var (
	dueGen  = rapid.Custom(func(t *rapid.T) Due { return Due(rapid.Int64Range(0, int64(MaxDue)).Draw(t, "due")) })
	keyGen  = rapid.Custom(func(t *rapid.T) Key { return Key{dueGen.Draw(t, "instant"), Seq(rapid.Uint64().Draw(t, "seq"))} })
	spanGen = rapid.Custom(func(t *rapid.T) time.Duration {
		return time.Duration(rapid.Int64Range(0, math.MaxInt64/int64(time.Millisecond)).Draw(t, "ms")) *
			time.Millisecond
	})
)

func drawRecurrence(t *rapid.T) *Recurrence {
	return &Recurrence{
		Expr: rapid.String().Draw(t, "expr"), Zone: rapid.String().Draw(t, "zone"),
		Misfire:      Misfire(rapid.IntRange(0, 2).Draw(t, "misfire")),
		MisfireLimit: rapid.Uint32().Draw(t, "limit"), Until: dueGen.Draw(t, "until"),
		Count: rapid.Uint64().Draw(t, "count"), Jitter: spanGen.Draw(t, "jitter"),
		Start: dueGen.Draw(t, "start"), Next: dueGen.Draw(t, "next"), Last: dueGen.Draw(t, "last"),
		Fired: rapid.Uint64().Draw(t, "fired"), Missed: rapid.Uint64().Draw(t, "missed"),
		Since: dueGen.Draw(t, "since"), Untold: rapid.Uint64().Draw(t, "untold"),
		Paused: rapid.Bool().Draw(t, "paused"),
	}
}

// drawMessage is a message as the scheduler may store it: generations from 1, Given only when it
// differs from Due, durations in whole milliseconds.
func drawMessage(t *rapid.T) Message {
	m := Message{
		ID:          ID(rapid.StringN(0, 40, 256).Draw(t, "id")),
		Target:      Target(rapid.String().Draw(t, "target")),
		Due:         dueGen.Draw(t, "due"),
		AcceptedAt:  dueGen.Draw(t, "accepted"),
		Generation:  rapid.Uint32Min(1).Draw(t, "generation"),
		Durability:  Durability(rapid.IntRange(0, 1).Draw(t, "durability")),
		Mode:        Mode(rapid.IntRange(0, 2).Draw(t, "mode")),
		RoutingKey:  rapid.String().Draw(t, "key"),
		Body:        rapid.SliceOf(rapid.Byte()).Draw(t, "body"),
		NotAfter:    dueGen.Draw(t, "not after"),
		Given:       dueGen.Draw(t, "given"),
		ByDelay:     rapid.Bool().Draw(t, "by delay"),
		FirstDue:    dueGen.Draw(t, "first due"),
		MaxAttempts: rapid.Uint32().Draw(t, "attempts"),
		Cold:        rapid.Bool().Draw(t, "cold"),
	}
	for _, d := range []*time.Duration{&m.TTL, &m.Spread, &m.MaxWait, &m.Backoff} {
		*d = spanGen.Draw(t, "span")
	}
	if rapid.Bool().Draw(t, "recurs") {
		m.Recurrence = drawRecurrence(t)
	}
	if rapid.Bool().Draw(t, "guarded") {
		m.Guard = &Guard{Lane: Target(rapid.String().Draw(t, "lane")), Entry: rapid.String().Draw(t, "entry")}
	}
	for range rapid.IntRange(0, 5).Draw(t, "headers") {
		m.Headers = append(m.Headers, Header{rapid.String().Draw(t, "name"), rapid.String().Draw(t, "value")})
	}
	return m
}

// normal is m without the differences that mean nothing.
func normal(m Message) Message {
	m.Generation = max(m.Generation, 1)
	if m.Given == m.Due {
		m.Given = 0
	}
	if len(m.Headers) == 0 {
		m.Headers = nil
	}
	if len(m.Body) == 0 {
		m.Body = nil
	}
	return m
}

// Every field of a message must survive its record (D3): one that does not is lost at a restart.
func TestRecordRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		rec := AppendRecord([]byte("prefix"), &m)[len("prefix"):]
		got, err := DecodeRecord(rec)
		require.NoError(t, err)
		require.Equal(t, normal(m), normal(got))
		target, cold, err := RecordTarget(rec)
		require.NoError(t, err)
		require.Equal(t, m.Lane(), target)
		require.Equal(t, m.Cold, cold)
		require.Equal(t, m.Guard != nil, RecordGuarded(rec))
		head, due, _, err := RecordHead(rec)
		require.NoError(t, err)
		require.Equal(t, m.Target, head)
		require.Equal(t, m.Due, due)
	})
}

// A record that lost its end before the body must be refused, never half read. The body has no
// length: its end is the end of the value, which the store checks.
func TestRecordCutShort(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		m.Body = nil
		rec := AppendRecord(nil, &m)
		for n := range rec {
			_, err := DecodeRecord(rec[:n])
			require.ErrorIs(t, err, ErrCorrupt, "cut to %d of %d", n, len(rec))
		}
	})
}

// sample is one golden value: what it is and its bytes.
type sample struct {
	name  string
	bytes []byte
}

func goldenMessage() Message {
	return Message{
		ID: "order-1", Target: "pull:orders", Due: 1_800_000_000_500, AcceptedAt: 1_799_999_990_000,
		Generation: 3, Durability: Tier, Mode: ExactlyOnce, RoutingKey: "k",
		Headers: []Header{{"a", "1"}, {"b", ""}}, Body: []byte("body"), TTL: time.Hour,
		NotAfter: 1_800_000_100_000, Spread: 2 * time.Second, Given: 1_800_000_000_000, ByDelay: true,
		FirstDue: 1_799_999_999_000, MaxWait: time.Minute, MaxAttempts: 7, Backoff: 1500 * time.Millisecond,
		Cold: true,
	}
}

func goldenSchedule() Message {
	return Message{
		ID: "report", Target: "pull:reports", Due: 1_800_000_000_500, AcceptedAt: 1_799_999_990_000,
		Generation: 1, Cold: true, Body: []byte("body"), Recurrence: &Recurrence{
			Expr: "0 9 * * MON", Zone: "Europe/Berlin", Misfire: FireAll, MisfireLimit: 7,
			Until: 1_900_000_000_000, Count: 52, Jitter: 1500 * time.Millisecond,
			Start: 1_799_999_990_000, Next: 1_799_999_999_500, Last: 1_799_999_991_000, Fired: 3,
			Missed: 2, Untold: 1, Since: 1_799_999_995_000, Paused: true,
		},
	}
}

func goldenGuarded() Message {
	return Message{
		ID: "rocketmq:rmq/broker-a/SCHEDULE_TOPIC_XXXX/2/7", Target: "rocketmq:rmq/orders",
		Due: 1_800_000_005_000, AcceptedAt: 1_799_999_990_000, Generation: 1, Cold: true,
		Headers: []Header{{"UNIQ_KEY", "00AF"}}, Body: []byte("body"),
		Guard: &Guard{Lane: "guard:rmq/broker-a", Entry: "offset=7"},
	}
}

func samples() []sample {
	full, schedule, guarded := goldenMessage(), goldenSchedule(), goldenGuarded()
	small := Message{Target: "log:", Due: 1_800_000_000_000, AcceptedAt: 1_799_999_999_000, Body: []byte("x")}
	key := Key{full.Due, MakeSeq(2, 5)}
	identity := IdentityOf(key, &full)
	moved := Mark{Key: key, State: Scheduled, At: 1_800_000_000_400, Forward: Key{full.Due + 1, MakeSeq(2, 6)}}
	named := Mark{
		Key: key, State: Cancelled, At: 1_800_000_000_400, ID: "order-1", Identity: identity, Attempts: 2,
	}
	progress := Progress{
		State: Dead, Attempts: 5, NextAt: 1_800_000_009_000, LastError: "503", Reason: "attempts",
		DiedAt: 1_800_000_010_000,
	}
	ids := NewIDMaker("cluster-1")
	return []sample{
		{"record, all fields", AppendRecord(nil, &full)},
		{"record, no optional field", AppendRecord(nil, &small)},
		{"record of a schedule", AppendRecord(nil, &schedule)},
		{"record of a guarded message", AppendRecord(nil, &guarded)},
		{"key", AppendKey(nil, key)},
		{"identity", AppendIdentity(nil, identity)},
		{"mark, moved", AppendMark(nil, &moved)},
		{"mark, cancelled with id", AppendMark(nil, &named)},
		{"progress", AppendProgress(nil, &progress)},
		{"predicate", AppendPredicate(nil, goldenPredicate())},
		{"id, server-made", []byte(ids.Make(7, key))},
		{"id, reserved", []byte(ids.Reserve(7, key))},
	}
}

// The bytes are a promise to every data directory and bucket ever written: a change of them must
// be a new version, not an accident.
func TestGolden(t *testing.T) {
	var out strings.Builder
	for _, s := range samples() {
		fmt.Fprintf(&out, "%s\n%s\n", s.name, hex.Dump(s.bytes))
	}
	file := filepath.Join("testdata", "formats.golden")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(file, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(want), out.String())
	m, err := DecodeRecord(samples()[0].bytes)
	require.NoError(t, err)
	require.Equal(t, goldenMessage(), m)
}

// A flipped bit must never crash a decoder: it comes from a disk. That it is noticed is the
// business of the checksums around the record.
func TestFlippedBits(t *testing.T) {
	for _, s := range samples() {
		for i := range len(s.bytes) * 8 {
			b := bytes.Clone(s.bytes)
			b[i/8] ^= 1 << (i % 8)
			decodeAll(b)
		}
	}
}

// decodeAll gives b to every decoder.
func decodeAll(b []byte) {
	for _, decode := range []func() error{
		func() error { _, err := DecodeRecord(b); return err },
		func() error { _, _, err := RecordTarget(b); return err },
		func() error { _, err := DecodeMark(b); return err },
		func() error { _, _, _, err := RecordHead(b); return err },
		func() error { _, err := DecodePredicate(b); return err },
		func() error { _, _, err := DecodeIdentity(b); return err },
		func() error { _, _, err := DecodeProgress(b); return err },
	} {
		if err := decode(); err != nil && !strings.HasPrefix(err.Error(), "corrupt: record: ") {
			panic(err) // not an ErrCorrupt that says where
		}
	}
	if k, ok := DecodeKey(b); ok && k.Due < 0 {
		panic("negative instant: " + k.String())
	}
	if kind, _, _ := NewIDMaker("cluster-1").Parse(ID(b)); kind != ClientID && !LooksServerMade(ID(b)) {
		panic("an id that is recognised does not look server-made")
	}
}

// Each message of an error must name what disagreed: it is all an operator has.
func TestDecodeErrors(t *testing.T) {
	m := goldenMessage()
	rec := AppendRecord(nil, &m)
	patch := func(at int, v ...byte) []byte {
		b := bytes.Clone(rec)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		name, want string
		b          []byte
	}{
		{"nothing", "empty at offset 0 of 0", nil},
		{"future", "version 2, want 1", patch(0, 2)},
		{"flags", "unknown flags", patch(1, 0xff, 0xff, 0xff, 0x7f)},
		{"target", "length 127 does not fit", patch(4, 127)},
		{"varint", "bad varint at offset 1 of 12", append([]byte{1}, bytes.Repeat([]byte{0xff}, 11)...)},
		{"due", "above 253402300799999", []byte{1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f}},
	} {
		_, err := DecodeRecord(c.b)
		require.ErrorIs(t, err, ErrCorrupt, c.name)
		require.ErrorContains(t, err, c.want, c.name)
	}
	_, err := DecodeMark([]byte{1, byte(Suppressed) + 1})
	require.ErrorContains(t, err, "state 7")
	mark := AppendMark(nil, &Mark{Key: Key{1, 1}, State: Delivered, At: 2})
	_, err = DecodeMark(append(mark, 0, 0))
	require.ErrorContains(t, err, "2 bytes left over after the mark")
}

// Marks, identities, progress and keys must come back as they were, and tell what follows them.
func TestSmallFormatsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		id := Identity{
			Key: keyGen.Draw(t, "key"), Generation: rapid.Uint32().Draw(t, "generation"),
			Digest: rapid.Uint64().Draw(t, "digest"), Given: dueGen.Draw(t, "given"),
			AcceptedAt: dueGen.Draw(t, "accepted"), ByDelay: rapid.Bool().Draw(t, "by delay"),
			FirstDue: dueGen.Draw(t, "first"), Durability: Durability(rapid.IntRange(0, 1).Draw(t, "durability")),
		}
		gotID, rest, err := DecodeIdentity(append(AppendIdentity(nil, id), "rest"...))
		require.NoError(t, err)
		require.Equal(t, id, gotID)
		require.Equal(t, "rest", string(rest))

		p := Progress{
			State: State(rapid.IntRange(0, int(Dead)).Draw(t, "state")), Attempts: rapid.Uint32().Draw(t, "attempts"),
			NextAt: dueGen.Draw(t, "next"), LastError: rapid.String().Draw(t, "error"),
			Reason: rapid.String().Draw(t, "reason"), DiedAt: dueGen.Draw(t, "died"),
		}
		gotP, rest, err := DecodeProgress(append(AppendProgress(nil, &p), "rest"...))
		require.NoError(t, err)
		require.Equal(t, p, gotP)
		require.Equal(t, "rest", string(rest))

		m := Mark{Key: id.Key, State: p.State, At: p.NextAt}
		if m.State == Scheduled {
			m.Forward = keyGen.Draw(t, "forward")
		}
		if m.ID = rapid.String().Draw(t, "id"); m.ID != "" {
			m.Identity, m.Attempts = id, p.Attempts
		}
		gotM, err := DecodeMark(AppendMark(nil, &m))
		require.NoError(t, err)
		require.Equal(t, m, gotM)

		other := keyGen.Draw(t, "other")
		gotK, ok := DecodeKey(AppendKey(nil, id.Key))
		require.True(t, ok)
		require.Equal(t, id.Key, gotK)
		order := bytes.Compare(AppendKey(nil, id.Key), AppendKey(nil, other))
		require.Equal(t, order, id.Key.Compare(other), "encoded keys do not sort as keys do")
	})
}

// The example in the document must be the bytes that are written.
func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("../docs/format/record.md")
	require.NoError(t, err)
	var got []byte
	for line := range strings.SplitSeq(string(doc), "\n") {
		if code, ok := strings.CutPrefix(line, "    "); ok {
			digits, _, _ := strings.Cut(code, "  ")
			b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
			require.NoError(t, err, line)
			got = append(got, b...)
		}
	}
	require.Equal(t, samples()[1].bytes, got)
}
