// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/broker"
	"github.com/cicadamq/cicada/delay"
)

const partition = broker.Partition("kafka:main/topic/0")

// topic is what a broker holds: records, the oldest of which are gone.
type topic struct {
	*world
	records []broker.Item
	first   int64 // the oldest that is left: what was acknowledged may be gone
	tier    bool

	copies map[int64]int // of what the shard refuses, by offset
	dies   func() bool   // the process, in the middle of copying; may be nil
}

var errDied = errors.New("the process died")

// reject is the source's reject topic.
func (p *topic) reject(_ context.Context, items []*broker.Item) error {
	for _, it := range items {
		if p.dies != nil && p.dies() {
			return errDied
		}
		require.Error(p.t, it.Err)
		p.copies[it.Offset]++
	}
	if p.dies != nil && p.dies() {
		return errDied
	}
	return nil
}

// add appends a record.
func (p *topic) add(it broker.Item) {
	it.Offset = int64(len(p.records))
	p.records = append(p.records, it)
}

// send appends a message of the queue, due after wait.
func (p *topic) send(wait time.Duration) delay.ID {
	d := p.draft("pull:q", wait, "x")
	d.ID, d.AcceptedAt = delay.ID(fmt.Sprintf("m%d", len(p.records))), p.Now()
	p.add(broker.Item{Draft: d})
	return d.ID
}

// read takes all that is there, in batches, as a source does.
func (p *topic) read(most int) error {
	for {
		next, ok := p.Intake().Cursor(partition)
		if !ok {
			next = p.first
		}
		require.GreaterOrEqual(p.t, next, p.first, "records were acknowledged that are not stored")
		if next == int64(len(p.records)) {
			return nil
		}
		end := min(int(next)+most, len(p.records))
		b := &broker.Batch{Partition: partition, Next: int64(end), Tier: p.tier}
		if p.copies != nil {
			b.Refused = p.reject
		}
		b.Items = append(b.Items, p.records[next:end]...)
		if err := p.Intake().Take(p.t.Context(), b); err != nil {
			return err
		}
		for i := range b.Items {
			refused := p.copies[b.Items[i].Offset] > 0
			require.Equal(p.t, refused, b.Items[i].Err != nil, b.Items[i].Err)
		}
	}
}

// acknowledge lets go of what the bucket stands for.
func (p *topic) acknowledge() {
	if next, ok := p.Intake().Covered(partition); ok {
		require.GreaterOrEqual(p.t, next, p.first)
		p.first = next
	}
}

// restored waits until ids are known again.
func (p *topic) restored() {
	for p.Status().Restoring {
		p.pass(10 * time.Millisecond)
	}
}

// A source goes on after a crash where its messages end: none is missing, and none is there twice.
func TestSourceSurvivesCrash(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.bucket = nil
		w.crash()
		w.loseDisk()
		w.open()
		p := &topic{world: w}
		for i := range 50 {
			p.send(time.Duration(i) * 100 * time.Millisecond)
		}
		p.add(broker.Item{Cancel: "m49"})
		require.NoError(t, p.read(7))
		next, ok := w.Intake().Covered(partition)
		require.True(t, ok, "without a bucket the disk stands for it")
		require.EqualValues(t, 51, next)
		w.crash()
		w.open()
		next, ok = w.Intake().Cursor(partition)
		require.True(t, ok)
		require.EqualValues(t, 51, next)
		require.NoError(t, w.Intake().Take(t.Context(), &broker.Batch{
			Partition: partition, Next: 51, Items: append([]broker.Item(nil), p.records...),
		}))
		seen := w.drainQueue(time.Minute)
		require.Len(t, seen, 49)
		require.Equal(t, delay.Books{Accepted: 50, Delivered: 49, Cancelled: 1}, w.books())
	})
}

// With commit: tier a short wait is uploaded like any other, and what the source lets go of comes
// back after the loss of the disk (rule R16).
func TestSourceSurvivesDiskLoss(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		p := &topic{world: w, tier: true}
		p.send(time.Minute)
		p.send(1900 * time.Millisecond) // shorter than tier.min_wait
		cancelled := p.send(time.Hour)
		require.NoError(t, p.read(10))
		_, ok := w.Intake().Covered(partition)
		require.False(t, ok)
		w.pass(1500 * time.Millisecond)
		p.acknowledge()
		require.EqualValues(t, 3, p.first)
		p.add(broker.Item{Cancel: cancelled})
		p.send(time.Minute)
		require.NoError(t, p.read(10))
		w.crash()
		w.loseDisk()
		w.open()
		next, ok := w.Intake().Cursor(partition)
		require.True(t, ok)
		require.EqualValues(t, 3, next)
		next, ok = w.Intake().Covered(partition)
		require.True(t, ok)
		require.EqualValues(t, 3, next)
		p.restored()
		require.NoError(t, p.read(10))
		require.Len(t, w.drainQueue(5*time.Minute), 3)
		require.Equal(t, delay.Books{Accepted: 4, Delivered: 3, Cancelled: 1}, w.books())
	})
}

// With commit: local what waits too short for the bucket is let go of when it has ended.
func TestCoveredWaitsForShortWaits(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		p := &topic{world: w}
		p.send(time.Hour)
		p.send(1900 * time.Millisecond)
		require.NoError(t, p.read(1))
		w.pass(1200 * time.Millisecond)
		_, ok := w.Intake().Covered(partition)
		require.False(t, ok, "one is still to be delivered")
		require.Len(t, w.drainQueue(10*time.Second), 1)
		w.pass(5 * time.Second)
		next, _ := w.Intake().Covered(partition)
		require.EqualValues(t, 2, next)
	})
}

// What a source brings and can never be delivered must not be stored; the position passes it (B6).
func TestSourceRefuses(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		w.check = func(d *delay.Draft) error {
			if d.Target.Kind() == "kafka" {
				return delay.Invalid("target", "no broker of that name")
			}
			return nil
		}
		w.crash()
		w.open()
		p := &topic{world: w}
		p.send(time.Hour)
		p.records[0].Draft.Target = "kafka:nobody/t"
		p.send(time.Hour)
		p.send(time.Hour)
		p.records[2].Draft.ID = ""
		b := &broker.Batch{Partition: partition, Next: 3, Items: p.records}
		require.NoError(t, w.Intake().Take(t.Context(), b))
		var field *delay.FieldError
		require.ErrorAs(t, b.Items[0].Err, &field)
		require.Equal(t, "target", field.Field)
		require.NoError(t, b.Items[1].Err)
		require.ErrorAs(t, b.Items[2].Err, &field)
		require.Equal(t, "id", field.Field)
		next, _ := w.Intake().Cursor(partition)
		require.EqualValues(t, 3, next)
		require.Equal(t, delay.Books{Accepted: 1, Pending: 1}, w.books())
		b.Items = make([]broker.Item, broker.MaxBatch+1)
		require.ErrorIs(t, w.Intake().Take(t.Context(), b), delay.ErrInvalid)
	})
}

// A partition of which nothing was taken has no cursor: with one of 0 a source would read it from its
// start, and not from where its group is.
func TestRefusedFirst(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		p := &topic{world: w}
		p.send(time.Hour)
		require.NoError(t, p.read(1))
		other := p.records[0]
		other.Offset, other.Draft.Body = 500, []byte("other")
		const unread = broker.Partition("kafka:main/topic/1")
		b := &broker.Batch{Partition: unread, Items: []broker.Item{other}, Next: 501}
		b.Refused = func(context.Context, []*broker.Item) error { return errDied }
		require.ErrorIs(t, w.Intake().Take(t.Context(), b), errDied)
		_, known := w.Intake().Cursor(unread)
		require.False(t, known)
		copied := 0
		b.Refused = func(_ context.Context, items []*broker.Item) error {
			copied += len(items)
			require.ErrorIs(t, items[0].Err, delay.ErrExists)
			return nil
		}
		require.NoError(t, w.Intake().Take(t.Context(), b))
		require.Equal(t, 1, copied)
		next, _ := w.Intake().Cursor(unread)
		require.EqualValues(t, 501, next)
	})
}

// A batch in which everything is refused must cost a few commits, not one for each: a producer that
// reuses its ids would stop the others of its partition. What is copied is copied once.
func TestRefusedAtOnce(t *testing.T) {
	inWorld(t, quick(), func(w *world) {
		p := &topic{world: w, copies: make(map[int64]int)}
		const n = 300
		for range n {
			p.send(time.Hour)
		}
		require.NoError(t, p.read(n))
		for i := range n {
			other := p.records[i]
			other.Draft.Body = []byte("other")
			p.add(other)
			p.send(time.Hour)
		}
		calls := 0
		p.dies = func() bool { calls++; return false }
		require.NoError(t, p.read(2*n))
		require.Len(t, p.copies, n)
		for offset, copies := range p.copies {
			require.Equal(t, 1, copies, offset)
		}
		require.LessOrEqual(t, calls, n+4, "they were not foreseen")
		require.EqualValues(t, 2*n, w.books().Accepted)
	})
}

// Whatever crashes and gets lost, a message that the source let go of is delivered, or cancelled when
// its cancel was read, also after the loss of the disk (rules R16, R17). What is refused is copied
// before the cursor passes it, also when the process dies while it is copied (B6).
func TestSourceModel(t *testing.T) {
	for seed := range uint64(12) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			inWorld(t, quick(), func(w *world) { sourceModel(t, w, seed) })
		})
	}
}

func sourceModel(t *testing.T, w *world, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 16))
	p := &topic{world: w, tier: seed%2 == 0, copies: make(map[int64]int)}
	p.dies = func() bool { return rng.IntN(4) == 0 }
	var others []int64 // what is refused
	want, cancelled := make(map[delay.ID]bool), make(map[delay.ID]bool)
	got := make(map[delay.ID]int)
	for range 60 {
		switch rng.IntN(9) {
		case 8:
			for range rng.IntN(4) {
				if i := rng.IntN(len(p.records) + 1); i < len(p.records) && p.records[i].Cancel == "" {
					other := p.records[i]
					other.Draft.Body = []byte("other")
					others = append(others, int64(len(p.records)))
					p.add(other)
				}
			}
		case 0, 1, 2:
			for range 1 + rng.IntN(20) {
				want[p.send(time.Duration(rng.IntN(8000))*time.Millisecond)] = true
			}
		case 3:
			if len(p.records) > 0 {
				id := delay.ID(fmt.Sprintf("m%d", rng.IntN(len(p.records))))
				p.add(broker.Item{Cancel: id})
				cancelled[id] = true
			}
		case 4:
			w.pass(time.Duration(rng.IntN(3000)) * time.Millisecond)
		case 5:
			for _, l := range w.pull(20, 0) {
				got[l.ID]++
				w.ack(l)
			}
		case 6:
			p.acknowledge()
		case 7:
			w.crash()
			if rng.IntN(2) == 0 {
				w.loseDisk()
			}
			w.open()
		}
		err := p.read(1 + rng.IntN(9))
		next, _ := p.Intake().Cursor(partition)
		for _, offset := range others {
			require.True(t, offset >= next || p.copies[offset] > 0,
				"seed %d: the cursor is %d, and the copy of %d is lost", seed, next, offset)
		}
		switch {
		case errors.Is(err, errDied):
			w.crash()
			w.open()
		case err != nil:
			require.True(t, errors.Is(err, delay.ErrUnavailable), err)
			p.restored()
		}
	}
	p.dies = nil
	p.restored()
	require.NoError(t, p.read(5))
	for id, n := range w.drainQueue(2 * time.Minute) {
		got[id] += n
	}
	for id := range want {
		require.True(t, cancelled[id] || got[id] > 0, "seed %d: %s is lost", seed, id)
	}
	w.pass(5 * time.Second)
	p.acknowledge()
	require.EqualValues(t, len(p.records), p.first)
	require.Zero(t, w.books().Pending)
}
