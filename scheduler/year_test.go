// SPDX-License-Identifier: Apache-2.0

package scheduler

import (
	"fmt"
	"hash"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/cicadamq/cicada/broker"
	sink "github.com/cicadamq/cicada/broker/memory"
	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/internal/sim/disk"
	"github.com/cicadamq/cicada/localstore"
	"github.com/cicadamq/cicada/scheduler/calendar"
	"github.com/cicadamq/cicada/tiered"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// year is a shard that is driven through a long time by hand, with crashes, lost disks and pauses.
type year struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	start time.Time
	boot  time.Duration

	disk   *disk.Disk
	bucket *memory.Bucket
	sink   *sink.Sink
	s      *Stepped
	store  *localstore.Store
	tier   *tiered.Tier

	settled, flushed delay.Due // when nothing was left to be done, and to be uploaded
	quiet            delay.Due // until then nothing is claimed after a takeover (R11)
	schedules        []*annual
	restarts, losses int
	idle             int // how often there was nothing to do for who waits
	trace            hash.Hash64
	often            bool // more restarts
}

// annual is one schedule and what is known of it.
type annual struct {
	draft  delay.Draft
	start  delay.Due
	offset time.Duration // of its jitter
	paused int           // the gap of the pause under way, from 1
	gaps   []gap
}

// gap is a time, of which neither end belongs to it, in which instants were missed. Those up to
// maybe may have fired all the same.
type gap struct{ from, maybe, to delay.Due }

func (y *year) now() delay.Due     { return delay.InstantOf(y.wall()) }
func (y *year) wall() time.Time    { return y.start.Add(y.boot) }
func (y *year) chance(n int) bool  { return y.rng.IntN(n) == 0 }
func (y *year) do(k TaskKind)      { require.NoError(y.t, y.s.Do(y.t.Context(), Task{Kind: k})) }
func (y *year) take(n int) (k int) { return y.rng.IntN(n) }

// task does one thing that waits to be done in the foreground, and reports whether there was one.
func (y *year) task() bool {
	var tasks []Task
	for _, task := range y.s.Tasks(nil) {
		if task.Kind <= TaskTimers {
			tasks = append(tasks, task)
		}
	}
	if len(tasks) == 0 {
		return false
	}
	task := tasks[y.take(len(tasks))]
	y.note("%v of %v", task, tasks)
	switch task.Kind {
	case TaskCommit:
		y.disk.Hold()
	case TaskSync:
		y.settleDisk()
	}
	require.NoError(y.t, y.s.Do(y.t.Context(), task))
	return true
}

// note adds to what two runs of one seed have in common.
func (y *year) note(format string, args ...any) {
	fmt.Fprintf(y.trace, format+" at %d\n", append(args, y.boot)...)
}

// settleDisk makes everything that was applied durable: how far Pebble has come with that by itself
// is a matter of luck, so the disk holds it back until it is asked for.
func (y *year) settleDisk() {
	if !y.disk.Held() {
		return
	}
	require.NoError(y.t, y.disk.Release())
	b := y.store.NewBatch()
	b.PutCursor("year", []byte{1, 0}) // anything whose sync can be waited for
	pending, err := y.store.Apply(b)
	require.NoError(y.t, err)
	_, err = pending.Wait()
	require.NoError(y.t, err)
}

// settle does everything that can be done now, and commits what came of it (S6).
func (y *year) settle() {
	for range 2 {
		for y.task() {
		}
		y.boot += 100 * time.Millisecond
	}
	if y.now() >= y.quiet {
		y.settled = y.now()
	}
}

// upkeep does what the loops of the tier do every hour.
func (y *year) upkeep() {
	for y.store.Meta().Boundary.Due < y.now().Add(24*time.Hour) {
		y.do(TaskHydrate)
		y.settle()
	}
	y.do(TaskDrop)
	if y.chance(3) {
		y.flush()
	}
	if y.chance(20) {
		y.do(TaskCompact)
		y.do(TaskCollect)
	}
}

func (y *year) flush() {
	y.settle()
	_, err := y.s.flushOnce(y.t.Context(), false)
	require.NoError(y.t, err)
	y.settle()
	y.flushed = y.now()
}

func (y *year) open() {
	store, err := localstore.Open(y.disk, "store", localstore.Options{
		Simulated: true, Logger: zap.NewNop(),
		MemTableBytes: 64 << 20, // what the background flushes would survive a crash, or not
	})
	require.NoError(y.t, err)
	m := store.Meta()
	y.store = store
	y.tier, err = tiered.Open(y.t.Context(), y.bucket, tiered.Options{
		Known: m.ManifestVersion > 0, ClusterID: m.ClusterID, Logger: zap.NewNop(), Now: y.wall,
		Rand: rand.New(rand.NewPCG(y.seed, uint64(y.boot))),
	})
	require.NoError(y.t, err)
	y.s, err = OpenStepped(y.t.Context(), Parts{
		Store: store, Tier: y.tier, Logger: zap.NewNop(), Now: y.wall,
		Boot:  func() time.Duration { return y.boot },
		Sinks: func(delay.Target) broker.Sink { return y.sink },
	}, Options{
		FlushInterval: time.Minute, Horizon: 48 * time.Hour, DropLag: time.Hour,
		HotWindow: 2 * time.Hour, DedupeWindow: 400 * 24 * time.Hour,
	}, y.seed, func() {
		if y.idle++; y.task() {
			y.idle = 0
		}
		require.Less(y.t, y.idle, 1000, "nothing to do, and no answer")
	})
	require.NoError(y.t, err)
	y.do(TaskIDs)
	y.settle()
	y.upkeep()
}

// restart ends the process at some step of its work, and sometimes its disk, and comes back later.
func (y *year) restart() {
	for range y.take(60) {
		if !y.task() {
			break
		}
	}
	from, maybe, lost := y.settled, y.now(), false
	y.restarts++
	if y.chance(2) {
		y.settleDisk() // the process dies alone, and its machine writes what it was given
	}
	image := disk.New(y.disk.Image())
	require.NoError(y.t, y.disk.Release())
	require.NoError(y.t, y.store.Close())
	require.NoError(y.t, y.tier.Close())
	if y.disk = image; y.chance(5) {
		y.disk, from = disk.New(vfs.NewCrashableMem()), min(y.flushed, y.settled)
		y.losses++
		lost = true
	}
	y.boot += time.Duration(y.take(1+y.take(200))) * time.Hour / 4
	for _, a := range y.schedules {
		a.gaps = append(a.gaps, gap{from, maybe, y.now()})
	}
	if lost {
		y.quiet = y.now().Add(4 * time.Minute)
	}
	y.open()
	y.settle()
}

// toggle pauses or resumes a schedule.
func (y *year) toggle(a *annual) {
	y.settle()
	change := PauseSchedule
	if a.paused > 0 {
		change = ResumeSchedule
		a.gaps[a.paused-1].to, a.paused = y.now(), 0
	} else {
		a.gaps = append(a.gaps, gap{y.settled, y.settled, delay.MaxDue})
		a.paused = len(a.gaps)
	}
	var r [1]ChangeResult
	require.NoError(y.t, y.s.Change(y.t.Context(), []ChangeRequest{{ID: a.draft.ID, Change: change}}, r[:]))
	require.NoError(y.t, r[0].Err)
	y.flush()
}

// yearly are schedules of all kinds, in zones whose clocks change.
func yearly() (all []*annual) {
	for i, expr := range []string{
		"@hourly", "@daily", "@weekly", "@monthly", "30 2 * * *", "0 9 * * MON", "0 0 31 * *",
		"@every 7h", "*/20 3-5 * * *", "15 30 12 * * *", "0 0 1 1 *", "59 23 28-31 * *",
	} {
		for j, policy := range []delay.Misfire{delay.FireOnce, delay.FireAll, delay.SkipMissed} {
			zones := []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "UTC"}
			c := &delay.Recurrence{Expr: expr, Zone: zones[(i+j)%len(zones)], Misfire: policy}
			if policy == delay.FireAll {
				c.MisfireLimit = delay.MaxMisfireLimit
			}
			if (i+j)%3 == 0 {
				c.Jitter = 10 * time.Minute
			}
			all = append(all, &annual{draft: delay.Draft{Message: delay.Message{
				ID: delay.ID(fmt.Sprintf("s%d-%s", i, policy)), Target: "log:", Recurrence: c,
			}}})
		}
	}
	return all
}

func (y *year) run(length time.Duration) {
	y.open()
	drafts, receipts := make([]delay.Draft, len(y.schedules)), make([]Receipt, len(y.schedules))
	for i, a := range y.schedules {
		drafts[i] = a.draft
		c := *a.draft.Recurrence
		drafts[i].Recurrence = &c
	}
	require.NoError(y.t, y.s.Accept(y.t.Context(), drafts, receipts))
	for i, a := range y.schedules {
		require.NoError(y.t, receipts[i].Err)
		a.start = drafts[i].Recurrence.Start
		a.offset = drafts[i].Due.Sub(drafts[i].Recurrence.Next)
	}
	y.flush()
	for y.boot < length {
		before := y.now() / 3_600_000
		y.boot += y.step()
		switch {
		case y.chance(400), y.often && y.chance(20):
			y.restart()
		case y.chance(300):
			y.toggle(y.schedules[y.take(len(y.schedules))])
		}
		y.settle()
		if y.now()/3_600_000 != before {
			y.upkeep()
		}
	}
	for _, a := range y.schedules {
		if a.paused > 0 {
			y.toggle(a)
		}
	}
	y.boot += 5 * time.Minute
	y.settle()
	require.NoError(y.t, y.store.Close())
	require.NoError(y.t, y.tier.Close())
}

// step is how long to wait: often exactly until the core has something to do.
func (y *year) step() time.Duration {
	d := time.Duration(1+y.take(60)) * time.Minute
	if wake := y.s.NextWake().Sub(y.now()); y.chance(2) && wake > 0 && wake < d {
		return wake
	}
	return d
}

// A year and more with restarts, lost disks, pauses and changes of clocks: every instant of every
// schedule fires exactly once, or is missed as its policy says. Only what was delivered since the
// last upload before a disk was lost may come twice (S6, R20). CICADA_YEARS is the number of years,
// each with a seed of its own; without it, it is two months.
func TestYear(t *testing.T) {
	seeds, _ := strconv.Atoi(os.Getenv("CICADA_YEARS"))
	length := 366 * 24 * time.Hour
	if seeds == 0 {
		length /= 6
	}
	if testing.Short() {
		length /= 2
	}
	for seed := range max(seeds, 1) {
		t.Run(fmt.Sprintf("seed%d", seed), func(t *testing.T) {
			y := newYear(t, uint64(seed))
			y.run(length)
			y.check()
		})
	}
}

func newYear(t *testing.T, seed uint64) *year {
	y := &year{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 3)),
		start: time.Date(2027, 12, 15, 0, 0, 0, 0, time.UTC),
		disk:  disk.New(vfs.NewCrashableMem()), schedules: yearly(), trace: fnv.New64a(),
	}
	y.bucket = memory.New(memory.Options{Now: y.wall})
	y.sink = sink.New(sink.Options{Now: y.wall})
	return y
}

// A seed that does not bring its year back is of no use to whoever looks for what broke it: whatever
// draws in the order of a map, or depends on how far the disk has come, shows here.
func TestYearRepeatsItsSeed(t *testing.T) {
	var first uint64
	for i := range 3 {
		y := newYear(t, 7)
		y.often = true
		y.run(6 * 24 * time.Hour)
		require.GreaterOrEqual(t, y.restarts, 3)
		for _, a := range y.sink.Attempts() {
			y.note("%s %d %v", a.ID, a.Attempt, a.At)
		}
		if i == 0 {
			first = y.trace.Sum64()
		}
		require.Equal(t, first, y.trace.Sum64())
	}
}

// check compares what the sink got with the calendars.
func (y *year) check() {
	zones, err := calendar.NewZones()
	require.NoError(y.t, err)
	got := map[delay.ID][]delay.Due{} // when
	for _, a := range y.sink.Attempts() {
		require.GreaterOrEqual(y.t, a.At, a.Due, "%s came early", a.ID)
		got[a.ID] = append(got[a.ID], a.At)
	}
	instants, fired := 0, 0
	for _, a := range y.schedules {
		rule, err := zones.Parse(a.draft.Recurrence.Expr, a.draft.Recurrence.Zone)
		require.NoError(y.t, err)
		var dues []delay.Due
		for f, ok := rule.Next(a.start, a.start); ok; f, ok = rule.Next(f.At, a.start) {
			due := f.At.Add(a.offset)
			if due > y.now() {
				break
			}
			dues = append(dues, due)
		}
		for i, due := range dues {
			id := delay.FiringID(a.draft.ID, due)
			never, must := a.expect(dues, i)
			n := len(got[id])
			require.True(y.t, !(never && n > 0) && !(must && n == 0) && a.repeatable(got[id]),
				"seed %d: %s (%v) fired at %d; never %v, must %v; gaps %v", y.seed, id, due, got[id],
				never, must, a.gaps)
			instants++
			fired += min(n, 1)
			delete(got, id)
		}
	}
	require.Empty(y.t, got, "firings at no instant of a calendar")
	y.t.Logf("%d instants, %d fired, %d restarts, %d disks lost", instants, fired, y.restarts,
		y.losses)
}

// expect tells whether the ith instant may never fire, or must.
func (a *annual) expect(dues []delay.Due, i int) (never, must bool) {
	due := dues[i]
	for _, g := range a.merged() {
		if due <= g.from || due >= g.to {
			continue
		}
		within := func(n int) bool { return i+n >= len(dues) || dues[i+n] >= g.to } // the last n
		c := a.draft.Recurrence
		made := c.Misfire == delay.FireAll && within(int(c.MisfireLimit)) ||
			c.Misfire == delay.FireOnce && within(1)
		return !made && due > g.maybe, made
	}
	return false, true
}

// repeatable reports whether each attempt but the first follows a crash that can have lost what came
// of the one before (S6).
func (a *annual) repeatable(at []delay.Due) bool {
	for k := 1; k < len(at); k++ {
		if !slices.ContainsFunc(a.gaps, func(g gap) bool {
			return at[k-1] > g.from && at[k-1] <= g.maybe && at[k] >= g.maybe
		}) {
			return false
		}
	}
	return true
}

// merged joins gaps that overlap: what is missed in both is made up for at the end of the later. One
// that lost a disk may reach back over several others, to the last upload.
func (a *annual) merged() (out []gap) {
	for _, g := range a.gaps {
		for n := len(out); n > 0 && g.from < out[n-1].to; n-- {
			last := out[n-1]
			if g.to <= last.to { // within a pause
				g = last
			} else {
				g.from = min(g.from, last.from)
			}
			out = out[:n-1]
		}
		out = append(out, g)
	}
	return out
}
