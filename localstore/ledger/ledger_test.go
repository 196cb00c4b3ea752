// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/hex"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// A due whose slot is not the one that contains it would be counted into a place where nobody looks.
func TestSlots(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	dues := []delay.Due{0, 1, daysFrom - 1, daysFrom, yearsFrom - 1, yearsFrom, delay.MaxDue}
	for range 100_000 {
		dues = append(dues, delay.Due(rng.Int64N(int64(delay.MaxDue)>>rng.IntN(16))))
	}
	for _, due := range dues {
		from, width := Span(SlotOf(due))
		if due < from || due.Sub(from) >= width {
			t.Fatalf("due %s in slot %s + %s", due, from, width)
		}
	}
	require.Equal(t, time.Date(2050, 1, 1, 0, 0, 0, 0, time.UTC), daysFrom.Time())
	require.Equal(t, time.Date(2150, 1, 1, 0, 0, 0, 0, time.UTC), yearsFrom.Time())
	last := delay.Due(-1)
	most := SlotOf(delay.MaxDue)
	for n := uint32(0); n <= most; n++ { // in order and without gaps
		from, width := Span(n)
		if from != last+1 {
			t.Fatalf("slot %d begins at %s", n, from)
		}
		last = from.Add(width) - 1
		if n == most {
			require.GreaterOrEqual(t, from.Add(width), delay.MaxDue)
		}
	}
	require.Less(t, most, uint32(750_000))
	require.Equal(t, most, SlotOf(math.MaxInt64))
	require.Zero(t, SlotOf(-5))
}

// One way to count must equal the other: all deltas in order, or absolute counts of any moment and
// the deltas after it, each through its bytes.
func TestReplay(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	live := New()
	slots, lanes := map[uint32]SlotTally{}, map[uint64]Tally{}
	var base Base
	var since []Delta
	for batch := uint64(1); batch < 400; batch++ {
		var d Delta
		d.Reset()
		d.Batch, d.LastSeq = batch, delay.Seq(batch*3)
		for range rng.IntN(30) {
			due := delay.Due(rng.Int64N(int64(delay.MaxDue) >> (8 * rng.IntN(3))))
			sign := int64(1 - 2*rng.IntN(2))
			d.Slot(due).Warm.Add(Tally{sign, sign * rng.Int64N(1000)})
			d.Slot(due).Cold.Add(Tally{-sign, -5})
			d.Lane(rng.Uint64N(5), Tally{sign, 7 * sign})
		}
		d.Dead = rng.Int64N(5) - 2
		if rng.IntN(3) == 0 {
			d.TimerMin = delay.Due(rng.Int64N(1e12))
		}
		live.Absorb(&d)
		bytes := AppendDelta(nil, &d)
		back, err := DecodeDelta(bytes)
		require.NoError(t, err)
		require.Equal(t, bytes, AppendDelta(nil, &back))
		since = append(since, back)
		if batch%50 == 0 {
			live.TakeDirty(func(n uint32, s SlotTally) {
				back, err := DecodeSlot(AppendSlot(nil, s))
				require.NoError(t, err)
				if slots[n] = back; s == (SlotTally{}) {
					delete(slots, n)
				}
			}, func(n uint64, s Tally) {
				back, err := DecodeLane(AppendLane(nil, s))
				require.NoError(t, err)
				if lanes[n] = back; s == (Tally{}) {
					delete(lanes, n)
				}
			})
			base, err = DecodeBase(AppendBase(nil, live.Base()))
			require.NoError(t, err)
			since = nil
		}
		if batch%7 == 0 {
			again := New()
			again.Load(base, maps.Clone(slots), maps.Clone(lanes))
			for i := range since {
				again.Absorb(&since[i])
			}
			require.Equal(t, live.Slots(), again.Slots())
			require.Equal(t, live.Lanes(), again.Lanes())
			require.Equal(t, live.Counts(), again.Counts())
			require.Equal(t, live.Base(), again.Base())
		}
	}
}

// The bytes are on the disks of running stores.
func TestGolden(t *testing.T) {
	var d Delta
	d.Reset()
	d.Batch, d.LastSeq, d.TimerMin, d.Dead = 300, delay.MakeSeq(2, 9), 1_700_000_000_000, -1
	d.Slot(1_700_000_000_000).Warm.Add(Tally{3, 600})
	d.Slot(1_700_003_600_000).Cold.Add(Tally{-1, -200})
	d.Lane(0xabcdef, Tally{1, 50})
	for want, got := range map[string][]byte{
		"01ac02898080808040" + "80d095ffbc3101" + "02" + "9ee91c06b0090000" + "9fe91c0000018f03" +
			"010000000000abcdef0264": AppendDelta(nil, &d),
		"01ac0289808080804005" + "0e": AppendBase(nil, Base{Batch: 300, LastSeq: d.LastSeq,
			TimerLow: 5, Dead: 7}),
		"0106b009" + "018f03": AppendSlot(nil, SlotTally{Tally{3, 600}, Tally{-1, -200}}),
		"010264":              AppendLane(nil, Tally{1, 50}),
	} {
		require.Equal(t, want, hex.EncodeToString(got))
	}
}

func FuzzDelta(f *testing.F) {
	var d Delta
	d.Reset()
	d.Slot(5).Warm.Add(Tally{1, 2})
	d.Lane(7, Tally{1, 2})
	f.Add(AppendDelta(nil, &d))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := DecodeDelta(b)
		if err != nil {
			require.ErrorIs(t, err, delay.ErrCorrupt)
			return
		}
		first := AppendDelta(nil, &d)
		back, err := DecodeDelta(first)
		require.NoError(t, err)
		require.Equal(t, first, AppendDelta(nil, &back))
	})
}

func FuzzAbsolute(f *testing.F) {
	f.Add(AppendBase(nil, Base{Batch: 3}))
	f.Add(AppendSlot(nil, SlotTally{Warm: Tally{1, 2}}))
	f.Add(AppendLane(nil, Tally{1, 2}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if v, err := DecodeBase(b); err == nil {
			back, err := DecodeBase(AppendBase(nil, v))
			require.NoError(t, err)
			require.Equal(t, v, back)
		}
		if v, err := DecodeSlot(b); err == nil {
			back, err := DecodeSlot(AppendSlot(nil, v))
			require.NoError(t, err)
			require.Equal(t, v, back)
		}
		if v, err := DecodeLane(b); err == nil {
			back, err := DecodeLane(AppendLane(nil, v))
			require.NoError(t, err)
			require.Equal(t, v, back)
		}
	})
}
