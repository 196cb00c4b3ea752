// SPDX-License-Identifier: Apache-2.0

package nats

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

// desk is a broker.Intake that remembers what it took, and can fail, crash and lose its disk.
type desk struct {
	t  testing.TB
	mu sync.Mutex

	taken     map[broker.Partition][]int64 // in the order in which they were taken
	drafts    map[delay.ID]delay.Draft
	cancelled []delay.ID
	cursor    map[broker.Partition]int64
	covered   map[broker.Partition]int64 // follows cursor when auto
	auto      bool
	fail      func() (store bool, err error) // asked at each Take
	refuse    func(*broker.Item) error
	tier      bool // what the last batch said
}

func newDesk(t testing.TB) *desk {
	return &desk{
		t: t, auto: true, taken: map[broker.Partition][]int64{}, drafts: map[delay.ID]delay.Draft{},
		cursor: map[broker.Partition]int64{}, covered: map[broker.Partition]int64{},
	}
}

func (d *desk) Now() delay.Due { return 1_800_000_000_000 }

func (d *desk) Cursor(p broker.Partition) (int64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	next, ok := d.cursor[p]
	return next, ok
}

func (d *desk) Covered(p broker.Partition) (int64, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.auto {
		next, ok := d.cursor[p]
		return next, ok
	}
	next, ok := d.covered[p]
	return next, ok
}

func (d *desk) Take(ctx context.Context, b *broker.Batch) error {
	if d.refuse != nil {
		for i := range b.Items {
			b.Items[i].Err = d.refuse(&b.Items[i])
		}
	}
	from, _ := d.Cursor(b.Partition)
	if err := b.CopyRefused(ctx, from); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	store, result := true, error(nil)
	if d.fail != nil {
		store, result = d.fail()
	}
	if !store {
		return result
	}
	if b.Next < d.cursor[b.Partition] || len(b.Items) > broker.MaxBatch { // N6
		d.t.Errorf("batch to %d of %d items, the cursor is %d", b.Next, len(b.Items),
			d.cursor[b.Partition])
	}
	for i := range b.Items {
		item := &b.Items[i]
		if item.Offset < d.cursor[b.Partition] || item.Err != nil {
			continue
		}
		if item.Cancel != "" {
			d.cancelled = append(d.cancelled, item.Cancel)
			continue
		}
		d.taken[b.Partition] = append(d.taken[b.Partition], item.Offset)
		draft := item.Draft
		draft.ID = delay.ID(strings.Clone(string(draft.ID)))
		draft.Body = slices.Clone(draft.Body)
		d.drafts[draft.ID] = draft
	}
	d.cursor[b.Partition], d.tier = b.Next, b.Tier
	return result
}

func (d *desk) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.drafts)
}

func (d *desk) partitions() []broker.Partition {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.cursor))
}

// inOrder fails when a record was taken twice or after a later one.
func (d *desk) inOrder() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p, seqs := range d.taken {
		for i := 1; i < len(seqs); i++ {
			require.Less(d.t, seqs[i-1], seqs[i], "%s: taken out of order", p)
		}
	}
}

// loseDisk puts the cursor back to what the bucket has, and forgets what came later.
func (d *desk) loseDisk(next int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for p := range d.cursor {
		d.cursor[p] = next
		d.taken[p] = slices.DeleteFunc(d.taken[p], func(seq int64) bool { return seq >= next })
	}
}

var errBusy = errors.New("busy")
