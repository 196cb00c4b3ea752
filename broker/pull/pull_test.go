// SPDX-License-Identifier: Apache-2.0

package pull

import (
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var maker = NewMaker("01jcz7m2k4t5v6w7x8y9z0a1b2")

// samples cover every field at both ends of its range.
func samples() []Receipt {
	return []Receipt{
		{},
		{Key: delay.Key{Due: 1, Seq: 1}, Epoch: 1, Attempt: 1, Lane: 1},
		{
			Key:   delay.Key{Due: 1_800_000_000_123, Seq: delay.MakeSeq(7, 123_456_789)},
			Epoch: 8, Attempt: 2, Lane: delay.Target("pull:orders").Hash() & laneMask,
		},
		{
			Key:   delay.Key{Due: delay.MaxDue, Seq: delay.MakeSeq(delay.MaxEpoch, delay.MaxCounter)},
			Epoch: delay.MaxEpoch, Attempt: 1<<32 - 1, Lane: laneMask,
		},
		{Key: delay.Key{Seq: delay.MakeSeq(delay.MaxEpoch, 0)}},
		{Key: delay.Key{Seq: delay.MakeSeq(0, delay.MaxCounter)}},
		{Epoch: delay.MaxEpoch},
	}
}

// A changed layout would turn the receipts that consumers hold across an upgrade into garbage.
func TestReceiptGolden(t *testing.T) {
	var lines []string
	for _, r := range samples() {
		lines = append(lines, fmt.Sprintf("%s %s epoch %d attempt %d lane %d",
			maker.Append(nil, r), r.Key, r.Epoch, r.Attempt, r.Lane))
	}
	got := strings.Join(lines, "\n") + "\n"
	path := filepath.Join("testdata", "receipts.golden")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// A field that loses a bit would ack another message (P1).
func TestReceiptRoundTrip(t *testing.T) {
	const seed = 11
	rng := rand.New(rand.NewPCG(seed, 0))
	rs := samples()
	for range 20_000 {
		rs = append(rs, Receipt{
			Key: delay.Key{
				Due: delay.Due(rng.Int64N(int64(delay.MaxDue) + 1)),
				Seq: delay.MakeSeq(delay.Epoch(rng.Uint32N(1<<20)), rng.Uint64N(1<<40)),
			},
			Epoch:   delay.Epoch(rng.Uint32N(1 << 20)),
			Attempt: rng.Uint32(), Lane: uint64(rng.Uint32N(1 << 16)),
		})
	}
	for _, r := range rs {
		s := maker.Append([]byte("x"), r)
		require.Len(t, s, 1+ReceiptLen)
		back, ok := maker.Parse(string(s[1:]))
		require.True(t, ok, "seed %d: %+v", seed, r)
		require.Equal(t, r, back, "seed %d", seed)
	}
}

// Every change of one character, every cut and every alphabet trick must be refused (P1, P2).
func TestReceiptRefusesGarbage(t *testing.T) {
	good := string(maker.Append(nil, samples()[2]))
	const chars = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=\n\r \x00\xff"
	for i := range len(good) {
		for _, c := range []byte(chars) {
			if good[i] == c {
				continue
			}
			forged := []byte(good)
			forged[i] = c
			_, ok := maker.Parse(string(forged))
			require.False(t, ok, "%q", forged)
		}
		_, ok := maker.Parse(good[:i])
		require.False(t, ok, "cut at %d", i)
	}
	for _, s := range []string{"", good + "A", good + "\n", good[:35] + "\n", good[:34] + "\r\n"} {
		_, ok := maker.Parse(s)
		require.False(t, ok, "%q", s)
	}
	for _, spoil := range []func(b []byte){
		func(b []byte) { b[0] = 1 },                                              // another version
		func(b []byte) { b[1], b[2], b[3] = 0xff, 0xff, 0xff },                   // due beyond year 9999
		func(b []byte) { binary.BigEndian.PutUint64(b[1:], 0xe677d21fdc000000) }, // likewise
	} {
		b, err := base64.RawURLEncoding.DecodeString(good)
		require.NoError(t, err)
		spoil(b)
		binary.BigEndian.PutUint32(b[checkAt:], crc32.Update(maker.seed, castagnoli, b[:checkAt]))
		_, ok := maker.Parse(base64.RawURLEncoding.EncodeToString(b))
		require.False(t, ok)
	}
}

// A receipt out of range must not be handed out cut to size.
func TestReceiptOutOfRange(t *testing.T) {
	for _, r := range []Receipt{
		{Key: delay.Key{Due: -1}}, {Key: delay.Key{Due: delay.MaxDue + 1}},
		{Key: delay.Key{Seq: 1 << 60}}, {Epoch: delay.MaxEpoch + 1},
	} {
		require.Panics(t, func() { maker.Append(nil, r) })
	}
}

// A receipt brought to another queue must be told apart, and the full hash must match its own.
func TestReceiptLane(t *testing.T) {
	a, b := delay.Target("pull:orders").Hash(), delay.Target("pull:mails").Hash()
	r, ok := maker.Parse(string(maker.Append(nil, Receipt{Lane: a})))
	require.True(t, ok)
	require.True(t, r.InLane(a))
	require.False(t, r.InLane(b))
	require.Equal(t, a&laneMask, r.Lane)
}

// Two clusters hand out equal keys when they begin alike: a receipt brought to the other one must
// be told apart, or an ack there would end the lease of somebody else.
func TestReceiptOfAnotherCluster(t *testing.T) {
	for _, r := range samples() {
		s := string(maker.Append(nil, r))
		for _, other := range []string{"", "another", "01jcz7m2k4t5v6w7x8y9z0a1b3"} {
			_, ok := NewMaker(other).Parse(s)
			require.False(t, ok, "%+v of %q", r, other)
		}
		require.NotContains(t, s, "=")
	}
}

// Receipts are made and read for every pulled message: they must not allocate (P3).
func TestReceiptAllocations(t *testing.T) {
	r := samples()[2]
	dst := make([]byte, 0, ReceiptLen)
	s := string(maker.Append(nil, r))
	n := testing.AllocsPerRun(100, func() {
		dst = maker.Append(dst[:0], r)
		if back, ok := maker.Parse(s); !ok || back != r {
			t.Fatal("receipt lost")
		}
	})
	require.Zero(t, n)
}

// FuzzParseReceipt: no input may crash the parser, and what it accepts has one spelling (P1).
func FuzzParseReceipt(f *testing.F) {
	for _, r := range samples() {
		f.Add(string(maker.Append(nil, r)))
	}
	f.Add("")
	f.Add(strings.Repeat("_", ReceiptLen))
	f.Fuzz(func(t *testing.T, s string) {
		if r, ok := maker.Parse(s); ok {
			require.Equal(t, s, string(maker.Append(nil, r)))
		}
	})
}

// Queue names end up in URLs, logs and metrics: nothing else than the stated characters may pass.
func TestQueue(t *testing.T) {
	for _, name := range []string{"a", "orders", "A.b_c-9", "..", strings.Repeat("q", 128)} {
		target, err := ParseQueue(name)
		require.NoError(t, err)
		require.Equal(t, delay.Target("pull:"+name), target)
		require.Equal(t, name, target.Queue())
		require.NoError(t, Check(target))
	}
	for _, name := range []string{"", " ", "a b", "a/b", "a:b", "ä", "a\n", "a\x00", "a%2f",
		strings.Repeat("q", 129)} {
		var field *delay.FieldError
		_, err := ParseQueue(name)
		require.ErrorAs(t, err, &field, "%q", name)
		require.Equal(t, "queue", field.Field)
		require.ErrorAs(t, Check(delay.Target("pull:"+name)), &field)
		require.Equal(t, "target", field.Field)
	}
	require.ErrorIs(t, Check("log:"), delay.ErrInvalid)
}

func BenchmarkReceipt(b *testing.B) {
	r := samples()[2]
	var buf [ReceiptLen]byte
	b.ReportAllocs()
	for b.Loop() {
		s := maker.Append(buf[:0], r)
		if _, ok := maker.Parse(string(s)); !ok {
			b.Fatal("refused")
		}
	}
}
