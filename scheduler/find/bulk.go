// SPDX-License-Identifier: Apache-2.0

package find

import (
	"slices"
	"sync/atomic"

	"github.com/cicadamq/cicada/delay"
)

// Bulk is the bulk cancels of a shard. The committer replaces the list; everything else may read it
// at any time (rule R6).
type Bulk struct {
	ids   delay.IDMaker
	shard delay.Shard
	list  atomic.Pointer[[]delay.Predicate]
}

// NewBulk makes one with the bulk cancels that were found.
func NewBulk(ids delay.IDMaker, shard delay.Shard, first []delay.Predicate) *Bulk {
	b := &Bulk{ids: ids, shard: shard}
	b.list.Store(&first)
	return b
}

// Set replaces the list. The committer calls it.
func (b *Bulk) Set(all []delay.Predicate) { b.list.Store(&all) }

// All gives the bulk cancels, ascending seqs. It must not be changed.
func (b *Bulk) All() []delay.Predicate { return *b.list.Load() }

// Find gives the bulk cancel with this seq.
func (b *Bulk) Find(seq delay.Seq) (delay.Predicate, bool) {
	all := b.All()
	if i := IndexOf(all, seq); i >= 0 {
		return all[i], true
	}
	return delay.Predicate{}, false
}

// IndexOf is the place of the bulk cancel with this seq in all, or -1.
func IndexOf(all []delay.Predicate, seq delay.Seq) int {
	return slices.IndexFunc(all, func(p delay.Predicate) bool { return p.Seq == seq })
}

// Last is the seq of the newest bulk cancel, 0 when there is none.
func (b *Bulk) Last() delay.Seq {
	if all := b.All(); len(all) > 0 {
		return all[len(all)-1].Seq
	}
	return 0
}

// CoveredBy reports whether p covers the cold message with this record.
func (b *Bulk) CoveredBy(p *delay.Predicate, key delay.Key, rec []byte) bool {
	return p.Covers(b.ids, b.shard, key, rec)
}

// Covers reports whether a cold message with this record is cancelled.
func (b *Bulk) Covers(key delay.Key, rec []byte) bool {
	all := b.All()
	for i := range all {
		if all[i].Covers(b.ids, b.shard, key, rec) {
			return true
		}
	}
	return false
}

// MayCover reports whether only the record of a cold message can tell whether it is cancelled.
func (b *Bulk) MayCover(key delay.Key, id delay.ID) bool {
	all := b.All()
	for i := range all {
		if all[i].MayCover(key, id) {
			return true
		}
	}
	return false
}

// Uncounted reports whether cold messages of [from, to) may be cancelled and not counted yet: then
// books and slots know too many. to 0 is no bound.
func (b *Bulk) Uncounted(from, to delay.Due) bool {
	all := b.All()
	for i := range all {
		p := &all[i]
		if !p.Complete() && from < p.Upper().Due && (to == 0 || p.Counted.Due < to) {
			return true
		}
	}
	return false
}
