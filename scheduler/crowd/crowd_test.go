// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

// now is a whole hour, so that windows of every span begin there.
const now = delay.Due(1_800_000_000_000)

// rows is a store with messages.
type rows struct {
	t        *testing.T
	seq      uint64
	have     []row
	boundary delay.Key
	read     int           // rows read
	scans    int           //
	hold     chan struct{} // if set, scans wait for it
	err      error
}

type row struct {
	key delay.Key
	rec []byte
}

// put stores a message for target and tells it to b, if there is one, as the committer does.
func (r *rows) put(b *Book, target delay.Target, due delay.Due) delay.Key {
	r.seq++
	m := delay.Message{Target: target, Due: due, AcceptedAt: now, Generation: 1}
	key := delay.Key{Due: due, Seq: delay.MakeSeq(1, r.seq)}
	r.have = append(r.have, row{key, delay.AppendRecord(nil, &m)})
	slices.SortFunc(r.have, func(a, b row) int { return a.key.Compare(b.key) })
	b.Add(target, key)
	return key
}

func (r *rows) scan(from, to delay.Key, fn func(delay.Key, []byte) bool) error {
	r.scans++
	if r.hold != nil {
		<-r.hold
	}
	for _, m := range r.have {
		if !m.key.Less(from) && m.key.Less(to) {
			if r.read++; !fn(m.key, m.rec) {
				break
			}
		}
	}
	return r.err
}

func newBook(t *testing.T, limits ...delay.TargetLimit) (*Book, *rows) {
	t.Helper()
	r := &rows{t: t, boundary: delay.MaxKey}
	return New(Config{
		Now:      func() delay.Due { return now },
		Last:     func() delay.Seq { return delay.MakeSeq(1, r.seq) },
		Boundary: func() delay.Key { return r.boundary },
		Rows:     r.scan, Limits: limits,
	}), r
}

func perSecond(t *testing.T, target delay.Target, rate float64) delay.TargetLimit {
	t.Helper()
	l, err := delay.NewLimit(rate, 1)
	require.NoError(t, err)
	return delay.TargetLimit{Target: target, Limit: l}
}

// room asks as a request does: read first, then decide.
func room(b *Book, target delay.Target, due delay.Due) bool {
	d := delay.Draft{Message: delay.Message{Target: target, Due: due}}
	b.Load([]delay.Draft{d})
	return b.Room(&d.Message, 0)
}

// The span and the number of messages must be what the limit lets through: too few would call
// seconds full that are not, too many would never warn; below one a second none would ever have
// room.
func TestWindows(t *testing.T) {
	for perHour, want := range map[uint32]window{
		delay.MaxLimitPerHour: {1000, 1_000_000}, 36_000: {1000, 10}, 5400: {1000, 1}, 3600: {1000, 1},
		3599: {2000, 1}, 1800: {2000, 1}, 1200: {3000, 1}, 360: {10_000, 1}, 7: {515_000, 1}, 1: {3_600_000, 1},
	} {
		require.Equal(t, want, windowOf(delay.Limit{PerHour: perHour, Burst: 1}), "%d an hour", perHour)
	}
}

// What was stored before the first question must count, and what is stored and withdrawn after it,
// each once, whatever goes to other targets in the same second.
func TestCount(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 3))
	due := now + 5000
	r.put(b, "log:", due)
	r.put(b, "pull:q", due)
	r.put(b, "log:", due-1)
	require.True(t, room(b, "log:", due))
	second := r.put(b, "log:", due+999)
	require.True(t, room(b, "log:", due))
	r.put(b, "log:", due+1)
	r.put(b, "pull:q", due)
	require.False(t, room(b, "log:", due+500))
	require.True(t, room(b, "log:", due+1000))
	require.True(t, room(b, "pull:q", due))
	b.Drop("pull:q", second)
	require.False(t, room(b, "log:", due))
	b.Drop("log:", second)
	require.True(t, room(b, "log:", due))
	require.Equal(t, 2, r.scans, "a second is read once")
}

// What is due already is delivered now: it belongs to the second that runs.
func TestOverdue(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 2))
	require.True(t, room(b, "log:", now-90_000))
	r.put(b, "log:", now-90_000)
	r.put(b, "log:", now+1)
	require.False(t, room(b, "log:", 0))
	require.False(t, room(b, "log:", now))
	require.Equal(t, now+1000, b.Search().After("log:", 5))
}

// A row that the committer had numbered when the count began is in the rows that are read: told
// besides, it must not count twice (Q3). One that was stored while they are read counts once.
func TestRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, r := newBook(t, perSecond(t, "log:", 3))
		key := r.put(nil, "log:", now)
		r.hold = make(chan struct{})
		asked := make(chan bool, 2)
		for range 2 {
			go func() { asked <- room(b, "log:", now) }()
		}
		synctest.Wait()
		require.Empty(t, asked, "nobody decides on half a count")
		b.Add("log:", key)
		r.put(b, "log:", now)
		close(r.hold)
		require.True(t, <-asked)
		require.True(t, <-asked)
		require.Equal(t, 1, r.scans)
		r.put(b, "log:", now)
		require.False(t, room(b, "log:", now))
	})
}

// A message that replaces another of the same second needs no more room than that had.
func TestReplaced(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 1))
	d := delay.Draft{Message: delay.Message{Target: "log:", Due: now + 7000}}
	r.put(b, "log:", now+7000)
	b.Load([]delay.Draft{d})
	require.False(t, b.Room(&d.Message, 0))
	require.False(t, b.Room(&d.Message, now+8000))
	require.True(t, b.Room(&d.Message, now+7999))
}

// A suggestion must be a later second that has room, and a different one for each message that it
// is filled with; none at all is better than one that is full.
func TestSearch(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 2), perSecond(t, "pull:q", 0.1))
	for _, at := range []delay.Due{0, 0, 1, 1, 2, 4, 4} {
		r.put(b, "log:", now+at*1000)
	}
	s := b.Search()
	var got []delay.Due
	for range 6 {
		got = append(got, (s.After("log:", now+500)-now)/1000)
	}
	require.Equal(t, []delay.Due{2, 3, 3, 5, 5, 6}, got)
	require.Equal(t, now+5000, b.Search().After("log:", now+3001))
	require.Equal(t, now+20_000, b.Search().After("pull:q", now+15_000))
	require.Zero(t, s.After("log:other", now))

	for at := range delay.Due(LookAhead + 2) {
		r.put(nil, "log:", now+100_000+at*1000)
		r.put(nil, "log:", now+100_000+at*1000)
	}
	s = b.Search()
	require.Zero(t, s.After("log:", now+100_000), "%d windows and no more", LookAhead)
	scans := r.scans
	require.Zero(t, s.After("log:", now+100_001))
	require.Equal(t, scans, r.scans)
	require.NotZero(t, b.Search().After("log:", now+102_000))
	require.Zero(t, b.Search().After("log:", delay.MaxDue), "no time is beyond the last one")
}

// However many rows other targets have in a second, and however many seconds a request names, it
// reads a bounded number of rows; the counts that are kept are bounded too (Q2). What is not read
// is not known: it has room, and is no suggestion.
func TestBounds(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 1))
	many := make([]row, 3*scanRows)
	m := delay.Message{Target: "pull:q", Due: now, AcceptedAt: now, Generation: 1}
	rec := delay.AppendRecord(nil, &m)
	for i := range many {
		many[i] = row{delay.Key{Due: now, Seq: delay.MakeSeq(1, uint64(i+1))}, rec}
	}
	r.have, r.seq = many, uint64(len(many))
	r.put(nil, "log:", now)
	require.True(t, room(b, "log:", now))
	require.LessOrEqual(t, r.read, scanRows)

	r.have = nil
	drafts := make([]delay.Draft, scanRows/seekRows+10)
	for i := range drafts {
		drafts[i].Target, drafts[i].Due = "log:", now+delay.Due(i+1)*1000
		r.put(nil, "log:", drafts[i].Due)
	}
	r.scans = 0
	b.Load(drafts)
	require.LessOrEqual(t, r.scans, scanRows/seekRows)
	require.False(t, b.Room(&drafts[0].Message, 0))
	require.True(t, b.Room(&drafts[len(drafts)-1].Message, 0))

	r.have = nil
	for i := range delay.Due(maxCounts + 10) {
		room(b, "log:", now+i*1000)
		require.LessOrEqual(t, len(b.counts), maxCounts)
	}
	r.err = errors.New("disk")
	require.True(t, room(b, "log:", now+9e9))
}

// A second that only the bucket held all of must be counted again once its rows are back.
func TestHydrated(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 2))
	due := now + 90_000
	r.boundary = delay.Key{Due: due + 1}
	require.True(t, room(b, "log:", due))
	r.put(b, "log:", due)
	require.True(t, room(b, "log:", due))
	r.put(nil, "log:", due) // hydrated
	require.True(t, room(b, "log:", due), "not known yet")
	r.boundary = delay.Key{Due: due + 5000}
	require.False(t, room(b, "log:", due))
	require.Equal(t, 2, r.scans)
}

// A limit that changes must change what is full, at once, also when its windows get another span;
// one that is removed must leave nothing behind.
func TestLimitChanges(t *testing.T) {
	b, r := newBook(t)
	r.put(b, "log:", now)
	require.True(t, room(b, "log:", now))
	require.Zero(t, r.scans)
	b.Limit("log:", perSecond(t, "log:", 1).Limit)
	require.False(t, room(b, "log:", now))
	b.Limit("log:", perSecond(t, "log:", 2).Limit)
	require.True(t, room(b, "log:", now))
	r.put(b, "log:", now+9999)
	require.True(t, room(b, "log:", now))
	b.Limit("log:", perSecond(t, "log:", 0.1).Limit)
	require.False(t, room(b, "log:", now+5000))
	require.True(t, room(b, "log:", now+10_000))
	b.Limit("log:", delay.Limit{})
	require.True(t, room(b, "log:", now))
	require.Empty(t, b.counts)
}

// Schedules and guarded messages wait in lanes of their own: the limit of their target does not
// hold them there.
func TestOtherLanes(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 1))
	require.True(t, room(b, "log:", now))
	r.put(b, "log:", now)
	for _, m := range []delay.Message{
		{Target: "log:", Due: now, Recurrence: &delay.Recurrence{}},
		{Target: "log:", Due: now, Guard: &delay.Guard{Lane: "guard:a/b", Entry: "1"}},
	} {
		require.True(t, b.Room(&m, 0))
	}
}

// Sending to targets without a limit must not become slower because others have one (Q1).
func TestUnlimitedCostsNothing(t *testing.T) {
	b, r := newBook(t, perSecond(t, "log:", 1))
	var none *Book
	drafts := []delay.Draft{{Message: delay.Message{Target: "pull:q", Due: now}}}
	for _, b := range []*Book{b, none} {
		require.Zero(t, testing.AllocsPerRun(100, func() {
			b.Load(drafts)
			b.Room(&drafts[0].Message, 0)
			b.Add("pull:q", delay.Key{Due: now})
			b.Drop("pull:q", delay.Key{Due: now})
		}))
	}
	require.Zero(t, r.scans)
}

// BenchmarkUnlimited is what a message to a target without a limit pays.
func BenchmarkUnlimited(b *testing.B) {
	for name, limits := range map[string][]delay.TargetLimit{
		"none": nil, "others": {{Target: "log:", Limit: delay.Limit{PerHour: 3600, Burst: 1}}},
	} {
		book := New(Config{Limits: limits, Now: func() delay.Due { return now }})
		m := delay.Message{Target: "https://example.com/some/hook", Due: now}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				book.Room(&m, 0)
				book.Add(m.Target, delay.Key{Due: now})
			}
		})
	}
}
