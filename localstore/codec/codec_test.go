// SPDX-License-Identifier: Apache-2.0

package codec

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

var update = flag.Bool("update", false, "write testdata/golden.txt anew")

func key(due delay.Due, n uint64) delay.Key {
	return delay.Key{Due: due, Seq: delay.MakeSeq(3, n)}
}

// samples is one value of each codec, all fields set, and how to read it back.
func samples() map[string]struct {
	value  any
	bytes  []byte
	decode func([]byte) (any, error)
} {
	meta := Meta{
		ClusterID: "c1", Epoch: 3, Nonce: [16]byte{1, 15: 2}, ManifestVersion: 300,
		Watermark: key(1_700_000_000_000, 5), ClaimHorizon: 1_700_000_010_000,
		Boundary: key(1_700_086_400_000, 0), Uploaded: delay.MakeSeq(3, 77), OutboxNext: 9,
		OutboxDone: 4, LeaseNext: 1000, LostBefore: 6, LostUpTo: 1_700_000_000_123, IDsComplete: true,
		Adopted: true,
	}
	books := delay.Books{Accepted: 100, Pending: 40, Delivered: 50, Cancelled: 4, Expired: 3,
		Dead: 2, LostWithDisk: 1}
	id := IDRecord{
		Identity: delay.Identity{Key: key(1_700_000_000_000, 5), Generation: 2, Digest: 0xdead,
			Given: 1_700_000_000_000, AcceptedAt: 1_690_000_000_000, ByDelay: true,
			FirstDue: 1_700_000_000_000, Durability: delay.Tier},
		State: delay.Dead, FinishedAt: 1_700_000_001_000, Attempts: 16,
	}
	lease := Lease{No: 12, Target: "pull:q", Epoch: 3, Expires: 1_700_000_030_000,
		Entries: []LeaseEntry{
			{key(1_700_000_000_000, 5), 1}, {key(1_700_000_000_000, 6), 1},
			{key(1_700_000_000_017, 4), 300},
		}}
	target := TargetState{Paused: true, ClaimCursor: key(1_700_000_000_000, 5)}
	limited := TargetState{
		Limit: delay.Limit{PerHour: 360_000, Burst: 200}, ClaimCursor: key(1_700_000_000_000, 5),
	}
	return map[string]struct {
		value  any
		bytes  []byte
		decode func([]byte) (any, error)
	}{
		"meta": {meta, AppendMeta(nil, &meta), func(b []byte) (any, error) { return DecodeMeta(b) }},
		"books": {books, AppendBooks(nil, &books),
			func(b []byte) (any, error) { return DecodeBooks(b) }},
		"id": {id, AppendIDRecord(nil, &id),
			func(b []byte) (any, error) { return DecodeIDRecord(b) }},
		"lease": {lease, AppendLease(nil, &lease),
			func(b []byte) (any, error) { return DecodeLease(12, b) }},
		"target": {target, AppendTargetState(nil, target),
			func(b []byte) (any, error) { return DecodeTargetState(b) }},
		"target_limited": {limited, AppendTargetState(nil, limited),
			func(b []byte) (any, error) { return DecodeTargetState(b) }},
	}
}

// The bytes are on the disks of running stores: a change of them needs a new version.
func TestGolden(t *testing.T) {
	var out []string
	for name, s := range samples() {
		out = append(out, fmt.Sprintf("%s %s\n", name, hex.EncodeToString(s.bytes)))
	}
	slices.Sort(out)
	got := strings.Join(out, "")
	if *update {
		require.NoError(t, os.WriteFile("testdata/golden.txt", []byte(got), 0o644))
	}
	want, err := os.ReadFile("testdata/golden.txt")
	require.NoError(t, err)
	require.Equal(t, string(want), got)
}

// A value that comes back changed, or damage that is taken for a value, is worse than none.
func TestRoundTrip(t *testing.T) {
	for name, s := range samples() {
		back, err := s.decode(s.bytes)
		require.NoError(t, err, name)
		require.Equal(t, s.value, back, name)
		for i := range s.bytes {
			_, err := s.decode(s.bytes[:i])
			require.ErrorIs(t, err, delay.ErrCorrupt, "%s cut at %d", name, i)
		}
		_, err = s.decode(append(slices.Clone(s.bytes), 0))
		require.ErrorIs(t, err, delay.ErrCorrupt, "%s with a byte more", name)
		other := slices.Clone(s.bytes)
		other[0]++
		_, err = s.decode(other)
		require.ErrorContains(t, err, "version 2, want 1", name)
	}
}

// An entry of a lease that costs 30 bytes would make each pull of 1,000 write 30 KB.
func TestLeaseIsSmall(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	l := Lease{Target: "pull:q", Epoch: 3, Expires: 1_700_000_030_000}
	for i := range 1000 {
		l.Entries = append(l.Entries, LeaseEntry{Key: key(1_700_000_000_000+delay.Due(i),
			rng.Uint64N(10_000_000)), Attempt: 1})
	}
	b := AppendLease(nil, &l)
	t.Logf("%.1f bytes an entry", float64(len(b))/1000)
	require.Less(t, len(b), 10_000)
	back, err := DecodeLease(0, b)
	require.NoError(t, err)
	require.Equal(t, l, back)
}

// Keys at both ends of their range, in any order, survive the differences of a lease.
func TestLeaseExtremes(t *testing.T) {
	l := Lease{Entries: []LeaseEntry{
		{delay.MaxKey, math.MaxUint32}, {delay.Key{}, 0}, {delay.MaxKey, 1},
		{delay.Key{Due: 5, Seq: math.MaxUint64}, 0},
	}}
	back, err := DecodeLease(0, AppendLease(nil, &l))
	require.NoError(t, err)
	require.Equal(t, l, back)
}

func TestSplitParked(t *testing.T) {
	claimed, rec, err := SplitParked([]byte{1, 2, 3})
	require.NoError(t, err)
	require.True(t, claimed)
	require.Equal(t, []byte{2, 3}, rec)
	for _, bad := range [][]byte{nil, {2, 1}} {
		_, _, err := SplitParked(bad)
		require.ErrorIs(t, err, delay.ErrCorrupt)
	}
}

// fuzz checks that a decoder never panics, and that what it accepts is what its encoder writes:
// there is one encoding of each value, up to the lengths of varints.
func fuzz(f *testing.F, name string, again func([]byte) ([]byte, error)) {
	f.Add(samples()[name].bytes)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		first, err := again(b)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		second, err := again(first)
		require.NoError(t, err)
		require.True(t, bytes.Equal(first, second))
	})
}

func FuzzMeta(f *testing.F) {
	fuzz(f, "meta", func(b []byte) ([]byte, error) {
		m, err := DecodeMeta(b)
		return AppendMeta(nil, &m), err
	})
}

func FuzzBooks(f *testing.F) {
	fuzz(f, "books", func(b []byte) ([]byte, error) {
		k, err := DecodeBooks(b)
		return AppendBooks(nil, &k), err
	})
}

func FuzzIDRecord(f *testing.F) {
	fuzz(f, "id", func(b []byte) ([]byte, error) {
		rec, err := DecodeIDRecord(b)
		return AppendIDRecord(nil, &rec), err
	})
}

func FuzzLease(f *testing.F) {
	fuzz(f, "lease", func(b []byte) ([]byte, error) {
		l, err := DecodeLease(0, b)
		return AppendLease(nil, &l), err
	})
}

func FuzzTargetState(f *testing.F) {
	fuzz(f, "target", func(b []byte) ([]byte, error) {
		s, err := DecodeTargetState(b)
		return AppendTargetState(nil, s), err
	})
}
