// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const testDir = "data/shard-0"

func open(t testing.TB, fs vfs.FS, change ...func(*Options)) *Store {
	t.Helper()
	opts := Options{Simulated: true, Fatal: func(err error) { t.Errorf("fatal: %v", err) }}
	for _, c := range change {
		c(&opts)
	}
	s, err := Open(fs, testDir, opts)
	require.NoError(t, err)
	return s
}

func commit(t testing.TB, s *Store, fill func(b *Batch)) {
	t.Helper()
	b := s.NewBatch()
	fill(b)
	p, err := s.Apply(b)
	require.NoError(t, err)
	synced, err := p.Wait()
	require.NoError(t, err)
	require.True(t, synced.Valid())
}

func record(target delay.Target, due delay.Due, body string) []byte {
	return delay.AppendRecord(nil, &delay.Message{
		Target: target, Due: due, AcceptedAt: due - 1000, Body: []byte(body),
	})
}

func key(due delay.Due, n uint64) delay.Key {
	return delay.Key{Due: due, Seq: delay.MakeSeq(1, n)}
}

func check(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.Check(context.Background(), nil)
	require.NoError(t, err)
	require.Empty(t, r.Problems)
}

// A store that forgets on a clean close, or counts differently afterwards, breaks everything else.
func TestReopen(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	due := delay.DueOf(time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC))
	rec := record("log:", due, "hello")
	for i := range uint64(600) {
		commit(t, s, func(b *Batch) {
			b.PutRow(key(due+delay.Due(i)*3_600_000, i+1), rec)
			b.PutID("id", IDRecord{Identity: delay.Identity{Key: key(due, 1)}})
			b.SetMeta(Meta{ClusterID: "c", LeaseNext: i})
		})
	}
	counts := s.Counts()
	require.Equal(t, Tally{Messages: 600, Bytes: 600 * int64(len(rec))}, counts.Warm)
	check(t, s)
	require.NoError(t, s.Close())
	s = open(t, fs)
	require.Equal(t, counts, s.Counts())
	require.Equal(t, delay.MakeSeq(1, 600), s.LastSeq())
	require.Equal(t, uint64(599), s.Meta().LeaseNext)
	require.True(t, s.IDsKnown())
	_, ok, err := s.LookupID("id")
	require.NoError(t, err)
	require.True(t, ok)
	check(t, s)
	require.NoError(t, s.Close())
}

// What a look for due timers passes must not grow with what was done before (L7), also after a
// restart, and no timer may be missed whatever is put meanwhile.
func TestTimerFloor(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem)
	scan := func(upTo delay.Due) (out []delay.Due) {
		require.NoError(t, s.ScanTimers(upTo, func(at delay.Due, _ byte, _ []byte) bool {
			out = append(out, at)
			return true
		}))
		return out
	}
	put := func(at delay.Due) { commit(t, s, func(b *Batch) { b.PutTimer(at, 1, []byte("x")) }) }
	done := func(at delay.Due) { commit(t, s, func(b *Batch) { b.DeleteTimer(at, 1, []byte("x")) }) }
	for at := range delay.Due(100) {
		put(at)
	}
	require.Len(t, scan(49), 50)
	require.Zero(t, s.timers.Low())
	for at := range delay.Due(50) {
		done(at)
	}
	require.Empty(t, scan(49))
	require.Equal(t, delay.Due(50), s.timers.Low())
	put(7) // below the floor
	require.Equal(t, []delay.Due{7}, scan(49))
	done(7)

	// One that is put while a scan walks must be found by the next.
	require.NoError(t, s.ScanTimers(60, func(at delay.Due, _ byte, _ []byte) bool {
		put(3)
		return false
	}))
	require.Equal(t, []delay.Due{3}, scan(49))
	done(3)
	require.Empty(t, scan(49))
	require.Empty(t, scan(10), "a look below the floor")
	require.Equal(t, delay.Due(50), s.timers.Low())
	require.NoError(t, s.Close())

	s = open(t, mem)
	require.LessOrEqual(t, s.timers.Low(), delay.Due(50))
	require.Len(t, scan(delay.MaxDue), 50)
	for range ringSize {
		put(200)
	}
	require.NoError(t, s.Close())
	s = open(t, mem)
	require.Equal(t, delay.Due(50), s.timers.Low())
	put(4)
	require.NoError(t, s.Close())
	s = open(t, mem)
	require.Equal(t, delay.Due(4), s.timers.Low())
	require.Equal(t, []delay.Due{4}, scan(49))
	require.NoError(t, s.Close())
}

// Leases are written by other goroutines than the committer; batches must not mix, and readers must
// see whole ones.
func TestConcurrentApply(t *testing.T) {
	s := open(t, vfs.NewMem())
	const writers, each = 4, 60
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				b := s.NewBatch()
				for j := range uint64(10) {
					n := uint64((g*each+i)*10) + j
					b.PutRow(key(delay.Due(n)*100_000, n+1), record("log:", 0, "x"))
				}
				b.PutLease(&Lease{No: uint64(g*each + i)})
				p, err := s.Apply(b)
				if err != nil {
					t.Error(err)
					return
				}
				if synced, err := p.Wait(); err != nil || !synced.Valid() {
					t.Error(err)
				}
			}
		})
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			n := 0
			err := s.ScanRows(delay.Key{}, delay.MaxKey, func(delay.Key, []byte) bool {
				n++
				return true
			})
			if err != nil || n%10 != 0 {
				t.Errorf("%d rows: %v", n, err)
			}
			total := Tally{}
			s.Slots(func(slot Slot) bool {
				total.Messages += slot.Warm.Messages
				return true
			})
			if total.Messages%10 != 0 {
				t.Errorf("%d counted", total.Messages)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	wg.Wait()
	close(stop)
	readers.Wait()
	require.Equal(t, int64(writers*each*10), s.Counts().Warm.Messages)
	require.Equal(t, uint64(writers*each), s.Metrics().Batches)
	check(t, s)
	require.NoError(t, s.Close())
}

// A run of bodies is read in one go: present and absent ones, neighbours and far ones.
func TestReadRows(t *testing.T) {
	s := open(t, vfs.NewMem())
	var keys []delay.Key
	commit(t, s, func(b *Batch) {
		for i := range uint64(300) {
			k := key(delay.Due(i*i), i+1)
			keys = append(keys, k)
			if i%7 != 3 {
				b.PutRow(k, record("log:", k.Due, fmt.Sprint(i)))
				b.PutParked(9, k, i%2 == 0, record("log:", k.Due, fmt.Sprint(i)))
			}
		}
	})
	want := func(i int, rec []byte) {
		if i%7 == 3 {
			require.Nil(t, rec)
			return
		}
		m, err := delay.DecodeRecord(rec)
		require.NoError(t, err)
		require.Equal(t, fmt.Sprint(i), string(m.Body))
	}
	for _, step := range []int{1, 2, 50} {
		var some []delay.Key
		for i := 0; i < len(keys); i += step {
			some = append(some, keys[i])
		}
		calls := 0
		require.NoError(t, s.ReadRows(some, func(i int, rec []byte) {
			want(i*step, rec)
			calls++
		}))
		require.Equal(t, len(some), calls)
		require.NoError(t, s.ReadParked(9, some, func(i int, claimed bool, rec []byte) {
			want(i*step, rec)
			require.Equal(t, rec != nil && i*step%2 == 0, claimed)
		}))
	}
	require.NoError(t, s.ReadRows(nil, nil))
	require.NoError(t, s.ReadRows([]delay.Key{delay.MaxKey}, func(_ int, rec []byte) {
		require.Nil(t, rec)
	}))
	require.NoError(t, s.Close())
}

// Check is what an operator trusts before a migration: it must see what does not fit.
func TestCheckFinds(t *testing.T) {
	s := open(t, vfs.NewMem())
	rec := record("log:", 5, "x")
	lane := delay.Target("log:").Hash()
	commit(t, s, func(b *Batch) {
		b.PutRow(key(5, 1), rec)
		b.PutRow(key(6, 2), rec)
		b.PutParked(lane, key(5, 3), true, rec)
		b.PutDead(key(5, 4), delay.Progress{State: delay.Dead}, rec)
		for n := range uint64(4) {
			b.PutID(fmt.Sprint("id-", n), IDRecord{
				Identity: delay.Identity{Key: key(delay.Due(5+n%2), n+1)},
			})
		}
		b.PutID("cold", IDRecord{Identity: delay.Identity{Key: key(500, 9)}})
		b.SetMeta(Meta{Boundary: key(100, 0)})
		b.SetBooks(delay.Books{Accepted: 4, Pending: 3, Dead: 1})
	})
	progress := int64(0)
	r, err := s.Check(context.Background(), func(done, total int64) {
		require.LessOrEqual(t, done, total)
		progress = done
	})
	require.NoError(t, err)
	require.Len(t, r.Problems, 1, "only id-3 has no message: %v", r.Problems)
	require.Contains(t, r.Problems[0], "no message at 6/1.4")
	require.Positive(t, progress)
	for _, hurt := range []struct {
		do   func() error
		want string
	}{
		{func() error { return s.db.Delete(s.key(spaceRow, key(5, 1)), nil) }, "slot 1970-01-01T00:00"},
		{func() error { return s.db.Delete(s.parkedKey(lane, key(5, 3)), nil) }, "no parked row"},
		{func() error { return s.db.Delete(s.key(spaceDead, key(5, 4)), nil) }, "counted 1, found 0"},
		{func() error { return s.db.Set(s.key(spaceRow, key(7, 9)), []byte{9}, nil) }, "version 9"},
		{func() error { return s.db.Set(s.key(spaceMark, key(7, 9)), []byte{9}, nil) }, "x 00000"},
		{func() error { return s.db.Set(s.numberKey(spaceLease, 1), nil, nil) }, "lease"},
		{func() error { return s.db.Set(s.textKey(spaceTarget, "t"), nil, nil) }, "target state"},
		{func() error {
			commit(t, s, func(b *Batch) { b.SetBooks(delay.Books{Accepted: 1, Pending: 2}) })
			return nil
		}, "do not balance"},
	} {
		require.NoError(t, hurt.do())
		r, err = s.Check(context.Background(), nil)
		require.NoError(t, err)
		require.Contains(t, strings.Join(r.Problems, "\n"), hurt.want)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = s.Check(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, s.Close())
}

// Stores of another shard, of a later program, or open elsewhere are not touched.
// What is parked in a lane that is not its target's is no damage: schedules and guarded messages have
// lanes of their own.
func TestCheckKnowsLanes(t *testing.T) {
	s := open(t, vfs.NewMem())
	schedule := delay.AppendRecord(nil, &delay.Message{
		ID: "s", Target: "log:", Due: 5, Recurrence: &delay.Recurrence{Expr: "@hourly"},
	})
	guarded := delay.AppendRecord(nil, &delay.Message{
		ID: "g", Target: "log:", Due: 6, Guard: &delay.Guard{Lane: "guard:rmq/a", Entry: "1"},
	})
	commit(t, s, func(b *Batch) {
		b.PutParked(delay.Schedules.Hash(), key(5, 1), true, schedule)
		b.PutParked(delay.Target("guard:rmq/a").Hash(), key(6, 2), true, guarded)
		b.SetBooks(delay.Books{Accepted: 1, Pending: 1, Schedules: 1})
	})
	check(t, s)
	commit(t, s, func(b *Batch) {
		b.PutParked(delay.Target("log:").Hash(), key(5, 3), true, schedule)
		b.SetBooks(delay.Books{Accepted: 1, Pending: 1, Schedules: 2})
	})
	r, err := s.Check(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, r.Problems, 1)
	require.Contains(t, r.Problems[0], "is of lane")
	require.NoError(t, s.Close())
}

func TestRefusals(t *testing.T) {
	mem := vfs.NewMem()
	s := open(t, mem)
	_, err := Open(mem, testDir, Options{Simulated: true})
	require.ErrorIs(t, err, ErrLocked)
	require.ErrorContains(t, err, testDir)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close())
	_, err = s.Row(key(1, 1))
	require.ErrorIs(t, err, delay.ErrClosed)
	_, err = Open(mem, testDir, Options{Simulated: true, Shard: 3})
	require.ErrorIs(t, err, delay.ErrInvalid)
	require.ErrorContains(t, err, "of shard 0, not 3")
	s = open(t, mem)
	require.NoError(t, s.db.Set(s.metaKey(metaVersion), []byte{2, 0}, nil))
	require.NoError(t, s.Close())
	_, err = Open(mem, testDir, Options{Simulated: true})
	require.ErrorIs(t, err, ErrVersion)
	require.ErrorContains(t, err, "2, this program knows 1")
	_, err = Open(mem, "nowhere", Options{Simulated: true, ReadOnly: true})
	require.Error(t, err)
	require.False(t, Synced{}.Valid())
}

// A store that is closed under a scan ends after it, and what begins later is refused (L8).
func TestCloseWaitsForCalls(t *testing.T) {
	s := open(t, vfs.NewMem())
	commit(t, s, func(b *Batch) {
		for i := range 100 {
			b.PutRow(key(5, uint64(i)), record("pull:q", 5, "x"))
		}
	})
	closed := make(chan error, 1)
	seen := 0
	err := s.ScanRows(key(0, 0), key(9, 0), func(delay.Key, []byte) bool {
		if seen++; seen == 1 {
			go func() { closed <- s.Close() }()
			for s.calls.Begin() == nil {
				s.calls.End()
				runtime.Gosched()
			}
			_, err := s.Row(key(5, 1))
			require.ErrorIs(t, err, delay.ErrClosed)
			_, err = s.Apply(s.NewBatch())
			require.ErrorIs(t, err, delay.ErrClosed)
			_, err = s.Check(t.Context(), nil)
			require.ErrorIs(t, err, delay.ErrClosed)
			require.Zero(t, s.Metrics())
			select {
			case <-closed:
				require.Fail(t, "closed under a scan")
			case <-time.After(20 * time.Millisecond):
			}
		}
		return true
	})
	require.NoError(t, err)
	require.Equal(t, 100, seen)
	require.NoError(t, <-closed)
}

// A caller that panics while it is shown a row, or ends its goroutine as tests do, keeps no store
// open.
func TestCloseAfterPanic(t *testing.T) {
	s := open(t, vfs.NewMem())
	commit(t, s, func(b *Batch) { b.PutRow(key(5, 1), record("pull:q", 5, "x")) })
	panics := func(call func() error) {
		defer func() { require.Equal(t, "stop", recover()) }()
		require.NoError(t, call())
	}
	panics(func() error {
		return s.ScanRows(key(0, 0), key(9, 0), func(delay.Key, []byte) bool { panic("stop") })
	})
	panics(func() error {
		return s.ReadRows([]delay.Key{key(5, 1)}, func(int, []byte) { panic("stop") })
	})
	require.NoError(t, s.Close())
}

// A batch that is thrown away leaves nothing, and its memory serves the next.
func TestDiscard(t *testing.T) {
	s := open(t, vfs.NewMem())
	b := s.NewBatch()
	require.Zero(t, b.Len())
	b.PutRow(key(1, 1), record("log:", 1, "x"))
	b.PutID("id", IDRecord{})
	require.Equal(t, 2, b.Len())
	require.Greater(t, b.Bytes(), 30)
	b.Discard()
	commit(t, s, func(b *Batch) { require.Zero(t, b.Len()) })
	require.Zero(t, s.Counts())
	require.Zero(t, s.LastSeq())
	_, ok, err := s.LookupID("id")
	require.NoError(t, err)
	require.False(t, ok)
	check(t, s)
	require.NoError(t, s.Close())
}
