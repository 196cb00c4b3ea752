// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// seed adds the golden values and a few damaged ones.
func seed(f *testing.F) {
	for _, s := range samples() {
		f.Add(s.bytes)
		f.Add(s.bytes[:len(s.bytes)/2])
	}
	f.Add([]byte{})
	f.Add([]byte{1, 0xff})
}

// Whatever a disk gives, decoding must not crash (D3), and what is accepted must be stable: encoding
// and decoding it again changes nothing, or a rewritten segment would hold other messages.
func FuzzDecodeRecord(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeRecord(b)
		target, cold, targetErr := RecordTarget(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		require.NoError(t, targetErr)
		require.Equal(t, m.Lane(), target)
		head, due, id, err := RecordHead(b)
		require.NoError(t, err)
		require.Equal(t, []any{m.Target, m.Due, m.ID}, []any{head, due, id})
		require.Equal(t, m.Cold, cold)
		again := AppendRecord(nil, &m)
		got, err := DecodeRecord(again)
		require.NoError(t, err)
		require.Equal(t, normal(m), normal(got))
		require.Equal(t, again, AppendRecord(nil, &got))
	})
}

// As FuzzDecodeRecord, for predicates: one that changes would cancel other messages.
func FuzzDecodePredicate(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := DecodePredicate(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		got, err := DecodePredicate(AppendPredicate(nil, &p))
		require.NoError(t, err)
		require.Equal(t, p, got)
	})
}

// As FuzzDecodeRecord, for marks: one that changes would finish another message.
func FuzzDecodeMark(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeMark(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		got, err := DecodeMark(AppendMark(nil, &m))
		require.NoError(t, err)
		require.Equal(t, m, got)
	})
}

// As FuzzDecodeRecord, for identities; what follows must be left alone.
func FuzzDecodeIdentity(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		id, rest, err := DecodeIdentity(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		got, left, err := DecodeIdentity(append(AppendIdentity(nil, id), rest...))
		require.NoError(t, err)
		require.Equal(t, id, got)
		require.Equal(t, rest, left)
	})
}

// As FuzzDecodeIdentity, for progress.
func FuzzDecodeProgress(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, rest, err := DecodeProgress(b)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt)
			return
		}
		got, left, err := DecodeProgress(append(AppendProgress(nil, &p), rest...))
		require.NoError(t, err)
		require.Equal(t, p, got)
		require.Equal(t, rest, left)
	})
}

// The 16 bytes of a key must mean one key.
func FuzzDecodeKey(f *testing.F) {
	seed(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, ok := DecodeKey(b); ok {
			require.Equal(t, b[:KeySize], AppendKey(nil, k))
		}
	})
}

// An id that is recognised must be the one that its key gives (D4): two ids for one message would
// be two answers for it.
func FuzzParseID(f *testing.F) {
	maker := NewIDMaker("cluster-1")
	for _, s := range samples() {
		f.Add(string(s.bytes))
	}
	f.Fuzz(func(t *testing.T, s string) {
		kind, shard, key := maker.Parse(ID(s))
		switch kind {
		case ServerID:
			require.Equal(t, ID(s), maker.Make(shard, key))
		case ReservedID:
			require.Equal(t, ID(s), maker.Reserve(shard, key))
		default:
			require.Zero(t, key)
			return
		}
		require.True(t, LooksServerMade(ID(s)))
		require.True(t, ValidText(s))
	})
}
