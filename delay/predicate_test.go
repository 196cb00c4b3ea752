// SPDX-License-Identifier: Apache-2.0

package delay

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func goldenPredicate() *Predicate {
	return &Predicate{
		Seq: MakeSeq(2, 900), At: 1_799_999_000_000,
		Lower: Key{1_800_000_000_000, MakeSeq(1, 1)}, Target: "pull:orders", IDPrefix: "order-",
		From: 1_800_000_000_100, To: 1_800_000_001_000,
		Counted: Key{1_800_000_000_700, MakeSeq(2, 5)}, Cancelled: 41,
		Swept: Key{1_800_000_000_300, 1},
	}
}

// A predicate that is wider than the filter it was made of cancels what nobody asked for, a
// narrower one leaves messages that were said to be cancelled. Cites R6.
func TestPredicateCovers(t *testing.T) {
	ids := NewIDMaker("cluster-1")
	const shard = 7
	base := goldenMessage()
	at := Key{base.Due, MakeSeq(2, 5)}
	made := string(ids.Make(shard, at))
	for _, c := range []struct {
		name string
		edit func(p *Predicate, m *Message, k *Key)
		want bool
	}{
		{"all fits", nil, true},
		{"no filter at all", func(p *Predicate, _ *Message, _ *Key) {
			p.Target, p.IDPrefix, p.From, p.To = "", "", 0, 0
		}, true},
		{"other target", func(_ *Predicate, m *Message, _ *Key) { m.Target = "pull:order" }, false},
		{"other id", func(_ *Predicate, m *Message, _ *Key) { m.ID = "orde" }, false},
		{"accepted later", func(p *Predicate, _ *Message, k *Key) { k.Seq = p.Seq + 1 }, false},
		{"accepted last", func(p *Predicate, _ *Message, k *Key) { k.Seq = p.Seq }, true},
		{"was local", func(p *Predicate, _ *Message, k *Key) { p.Lower = k.Next() }, false},
		{"lowest cold one", func(p *Predicate, _ *Message, k *Key) { p.Lower = *k }, true},
		{"due at from", func(p *Predicate, m *Message, _ *Key) { p.From = m.Due }, true},
		{"due before from", func(p *Predicate, m *Message, _ *Key) { p.From = m.Due + 1 }, false},
		{"due at to", func(p *Predicate, m *Message, _ *Key) { p.To = m.Due }, false},
		{"due below to", func(p *Predicate, m *Message, _ *Key) { p.To = m.Due + 1 }, true},
		{"late: the due decides", func(p *Predicate, _ *Message, k *Key) {
			k.Due, p.At = p.To+5, p.To+5
		}, true},
		{"made id", func(p *Predicate, m *Message, _ *Key) {
			m.ID, p.IDPrefix = "", made[:12]
		}, true},
		{"other made id", func(p *Predicate, m *Message, _ *Key) {
			m.ID, p.IDPrefix = "", made[1:12]
		}, false},
		{"a schedule: only its own id cancels it (R20)", func(_ *Predicate, m *Message, _ *Key) {
			m.Recurrence = &Recurrence{Expr: "@daily"}
		}, false},
		{"made id, no prefix", func(p *Predicate, m *Message, _ *Key) {
			m.ID, p.IDPrefix = "", ""
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, m, k := goldenPredicate(), base, at
			if c.edit != nil {
				c.edit(p, &m, &k)
			}
			rec := AppendRecord(nil, &m)
			require.Equal(t, c.want, p.Covers(ids, shard, k, rec))
			id := m.ID
			if id == "" {
				id = ids.Make(shard, k)
			}
			if c.want { // whoever asks MayCover first must not be sent away
				require.True(t, p.MayCover(k, id))
				require.False(t, k.Less(p.Begin()))
				require.True(t, k.Less(p.Upper()))
			}
			require.Zero(t, testing.AllocsPerRun(10, func() { p.Covers(ids, shard, k, rec) }))
		})
	}
}

// A damaged record must not be taken for a covered one: nothing would ever report it.
func TestPredicateDamagedRecord(t *testing.T) {
	p := &Predicate{Seq: MakeSeq(9, 9)}
	m := goldenMessage()
	rec := AppendRecord(nil, &m)
	rec[0]++
	require.False(t, p.Covers(NewIDMaker("c"), 0, Key{m.Due, 1}, rec))
}

// What is left out of a rewritten segment too early is never counted, or its id is forgotten while
// a DELETE may still ask for it. Cites R6.
func TestPredicateSettled(t *testing.T) {
	p := goldenPredicate()
	window := time.Hour
	end := p.At.Add(window)
	require.False(t, p.Settled(Key{1_800_000_000_600, 1}, end, window))
	require.True(t, p.Settled(Key{1_800_000_000_600, 1}, end+1, window))
	require.False(t, p.Settled(p.Counted, end+1, window))
	require.False(t, p.Complete())
	p.Counted = p.Upper()
	require.True(t, p.Complete())
}
