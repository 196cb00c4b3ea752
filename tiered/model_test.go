// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/objio"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/faulty"
	"github.com/cicadamq/cicada/tiered/objstore/memory"
)

// -model.seeds=1000 looks further; a failing seed is in the name of its subtest.
var modelSeeds = flag.Uint64("model.seeds", 16, "how many histories TestModel runs")

const (
	modelSteps  = 200
	modelWindow = 12 * time.Hour
)

// content is what the tier holds after a cut, as the model sees it.
type content struct {
	rows      map[delay.Key][]byte
	kept      map[delay.Key]delay.Kept // unfinished, the newest upload
	marks     map[delay.Key]delay.Mark
	watermark delay.Key
}

// mayLack reports whether nothing can ask for the message any more: it is finished, and its id, if
// it has one, need not be found.
func (c content) mayLack(k delay.Key, now delay.Due) bool {
	named := k.Seq.Counter()%3 == 0 // see record
	if k.Less(c.watermark) && (!named || k.Due.Add(modelWindow) < now) {
		return true
	}
	mark, ok := c.marks[k]
	return ok && (!named || mark.ID != "" || mark.At.Add(modelWindow) < now)
}

func (c content) clone() content {
	c.rows, c.kept, c.marks = maps.Clone(c.rows), maps.Clone(c.kept), maps.Clone(c.marks)
	return c
}

// model drives tiers over one bucket, with faults and crashes, against maps.
//
// Each cut has a number, which its cursor carries: the cursor of the manifest tells which cut was
// the last, and so what the tier must hold, all of it (T1).
type model struct {
	t     *testing.T
	rng   *rand.Rand
	now   time.Time
	inner objstore.Bucket

	bucket *faulty.Bucket
	crash  atomic.Int64 // steps until the process dies; 0 or less: not planned, or dead
	died   atomic.Bool
	tier   *Tier
	zombie *Tier // an owner that was replaced
	nonce  byte
	seq    uint64

	cuts  map[uint64]content // by number
	acked uint64             // the last cut that was said to be committed
	tried uint64             // the last number used
	// What the next cut brings: everything since the last acked one.
	pending Cut
	live    map[delay.Key][]byte // accepted, neither finished nor kept
	all     content              // the content after the pending cut
	jobs    map[string]int       // compactions done, by what they were for
}

var errCrash = errors.New("the process died")

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, rng: rand.New(rand.NewPCG(seed, seed)), now: time.UnixMilli(1_800_000_000_000),
		cuts: make(map[uint64]content), live: make(map[delay.Key][]byte),
		jobs: make(map[string]int),
		all: content{
			rows: map[delay.Key][]byte{}, kept: map[delay.Key]delay.Kept{},
			marks: map[delay.Key]delay.Mark{},
		},
	}
	m.inner = memory.New(memory.Options{Now: func() time.Time { return m.now }})
	m.cuts[0] = m.all.clone()
	return m
}

// start is a process coming up: it opens the tier, takes the shard and resolves the last cut.
func (m *model) start() {
	if m.tier != nil && m.rng.IntN(3) == 0 {
		m.zombie = m.tier
	}
	rng := rand.New(rand.NewPCG(m.rng.Uint64(), 1))
	m.bucket = faulty.New(m.inner, rng, faulty.Options{
		FailBefore: .03, FailAfter: .03, Throttle: .02, Truncate: .02, FlipBit: .02, StaleList: .2,
		Before: func(context.Context, faulty.Call) error { return m.step() },
		After: func(_ context.Context, _ faulty.Call, err error) error {
			return errors.Join(err, m.step())
		},
	})
	m.crash.Store(0)
	m.died.Store(false)
	m.tier = nil
	for m.tier == nil {
		tier, err := Open(m.t.Context(), m.bucket, Options{
			SegmentBytes: 2 << 10, RetryBase: -1, Attempts: 4,
			Now: func() time.Time { return m.now }, Rand: rand.New(rand.NewPCG(m.rng.Uint64(), 2)),
		})
		if err != nil {
			continue
		}
		state, err := tier.Load(m.t.Context())
		if err != nil {
			continue
		}
		m.nonce++
		if _, err := tier.Take(m.t.Context(), [16]byte{m.nonce}, state == nil); err == nil {
			m.tier = tier
		}
	}
	m.resolve()
	if m.rng.IntN(5) != 0 {
		m.crash.Store(1 + m.rng.Int64N(250))
	}
}

// step counts down to the crash. A dead process gets no answers and does nothing.
func (m *model) step() error {
	if m.crash.Load() <= 0 || m.crash.Add(-1) != 0 {
		return nil
	}
	m.bucket.SetDown(true)
	m.died.Store(true)
	return errCrash
}

// resolve finds out which cut the manifest holds and forgets what was not committed, as a process
// does that lost its disk.
func (m *model) resolve() {
	n := m.number()
	m.acked, m.all = n, m.cuts[n].clone()
	m.pending = Cut{}
	m.live = make(map[delay.Key][]byte)
	for k, rec := range m.all.rows {
		_, kept := m.all.kept[k]
		if _, marked := m.all.marks[k]; !kept && !marked && !k.Less(m.all.watermark) {
			m.live[k] = rec
		}
	}
}

// number reads which cut the manifest holds. It is never older than the last acked one, and never
// one that was not tried.
func (m *model) number() uint64 {
	var n uint64
	if b := m.tier.State().Cursors["cut"]; b != nil {
		n = binary.BigEndian.Uint64(b)
	}
	require.GreaterOrEqual(m.t, n, m.acked, "a committed cut was lost")
	require.LessOrEqual(m.t, n, m.tried)
	return n
}

// accept makes messages due within days, finishes some, and moves the watermark to the clock.
func (m *model) work() {
	for range m.rng.IntN(12) {
		m.seq++
		k := delay.Key{
			Due: delay.InstantOf(m.now).Add(time.Duration(1+m.rng.IntN(60)) * time.Hour),
			Seq: delay.MakeSeq(m.tier.State().Epoch, m.seq),
		}
		rec := record(int(m.seq))
		m.live[k], m.all.rows[k] = rec, rec
		m.pending.Rows = append(m.pending.Rows, Row{Key: k, Record: rec})
	}
	for _, k := range slices.SortedFunc(maps.Keys(m.live), delay.Key.Compare) {
		if m.rng.IntN(20) == 0 { // cancelled
			m.finish(k)
		}
	}
	for _, k := range slices.SortedFunc(maps.Keys(m.all.kept), delay.Key.Compare) {
		switch m.rng.IntN(6) {
		case 0:
			m.finish(k)
		case 1:
			m.keep(k, m.all.rows[k])
		}
	}
	if m.rng.IntN(3) != 0 {
		return
	}
	m.all.watermark = delay.Key{Due: delay.InstantOf(m.now)}
	for _, k := range slices.SortedFunc(maps.Keys(m.live), delay.Key.Compare) {
		switch {
		case !k.Less(m.all.watermark):
		case m.rng.IntN(3) == 0:
			m.keep(k, m.live[k])
		case m.rng.IntN(2) == 0:
			m.finish(k)
		default: // delivered below the watermark: no mark needed
			delete(m.live, k)
		}
	}
}

func (m *model) finish(k delay.Key) {
	mark := delay.Mark{Key: k, State: delay.Cancelled, At: delay.InstantOf(m.now)}
	if n := k.Seq.Counter(); n%6 == 0 {
		mark.ID = fmt.Sprintf("client-%d", n)
		mark.Identity = delay.Identity{Key: k, Generation: 1}
	}
	m.pending.Marks = append(m.pending.Marks, mark)
	m.all.marks[k] = mark
	delete(m.live, k)
	delete(m.all.kept, k)
}

func (m *model) keep(k delay.Key, rec []byte) {
	kept := delay.Kept{Key: k, Record: rec, Progress: delay.Progress{
		Attempts: m.all.kept[k].Progress.Attempts + 1, State: delay.Claimed,
	}}
	m.all.kept[k] = kept
	m.pending.Kept = append(m.pending.Kept, kept)
	delete(m.live, k)
}

// commit tries to commit what is pending. It stays pending, and grows, until it is acked.
func (m *model) commit() {
	m.tried++
	m.cuts[m.tried] = m.all.clone()
	cut := m.pending
	byKey := func(a, b delay.Kept) int { return a.Key.Compare(b.Key) }
	slices.SortFunc(cut.Rows, func(a, b Row) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(cut.Marks, func(a, b delay.Mark) int { return a.Key.Compare(b.Key) })
	cut.Kept = slices.SortedStableFunc(slices.Values(cut.Kept), byKey)
	cut.Kept = slices.CompactFunc(cut.Kept, func(a, b delay.Kept) bool { return a.Key == b.Key })
	for i := range cut.Kept { // of several the newest; finished ones stay as they were
		if k, ok := m.all.kept[cut.Kept[i].Key]; ok {
			cut.Kept[i] = k
		}
	}
	cut.Watermark, cut.Uploaded = m.all.watermark, delay.MakeSeq(m.tier.State().Epoch, m.seq)
	cut.Cursors = map[string][]byte{"cut": binary.BigEndian.AppendUint64(nil, m.tried)}
	_, err := m.tier.Commit(m.t.Context(), cut)
	require.NotErrorIs(m.t, err, delay.ErrFenced, "fenced without another owner")
	require.NotErrorIs(m.t, err, delay.ErrInvalid)
	if err == nil {
		m.acked, m.pending = m.tried, Cut{}
		require.Equal(m.t, m.acked, m.number())
	}
}

// check compares everything that can be read with the model.
func (m *model) check() {
	m.bucket.SetQuiet(true)
	defer m.bucket.SetQuiet(false)
	ctx, t := m.t.Context(), m.t
	if m.tier.Check(ctx) != nil {
		return // crashed meanwhile
	}
	want := m.cuts[m.number()]
	now := delay.InstantOf(m.now)
	rows := make(map[delay.Key][]byte)
	var last delay.Key
	err := m.tier.Scan(ctx, delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
		require.True(t, last.Less(k), "%s after %s (T6)", k, last)
		last, rows[k] = k, bytes.Clone(rec)
		return true
	})
	marks := make(map[delay.Key]delay.Mark)
	err = errors.Join(err, m.tier.ScanMarks(ctx, func(mark delay.Mark) bool {
		marks[mark.Key] = mark
		return true
	}))
	kept := make(map[delay.Key]delay.Kept)
	err = errors.Join(err, m.tier.ScanKept(ctx, func(k delay.Kept) bool {
		k.Record = bytes.Clone(k.Record)
		kept[k.Key] = k
		return true
	}))
	if m.died.Load() {
		return
	}
	require.NoError(t, err)
	for k, rec := range want.rows {
		if got, ok := rows[k]; ok {
			require.Equal(t, rec, got)
		} else {
			require.True(t, want.mayLack(k, now), "%s is lost", k)
		}
	}
	for k := range rows {
		require.Contains(t, want.rows, k, "%s came from nowhere", k)
		m.checkMark(k, want, marks)
	}
	for k, p := range want.kept {
		require.Equal(t, p, kept[k], "%s is lost or old", k)
	}
	for k := range kept {
		if _, ok := want.kept[k]; !ok {
			m.checkMark(k, want, marks)
		}
	}
	m.checkFetch(rows, kept)
}

// checkMark: a message that can still be read and was marked has its mark (T7).
func (m *model) checkMark(k delay.Key, want content, marks map[delay.Key]delay.Mark) {
	if mark, ok := want.marks[k]; ok {
		require.Equal(m.t, mark, marks[k], "the mark of %s is lost", k)
	}
}

func (m *model) checkFetch(rows map[delay.Key][]byte, kept map[delay.Key]delay.Kept) {
	keys := slices.SortedFunc(maps.Keys(rows), delay.Key.Compare)
	m.rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for k := range kept {
		if _, ok := rows[k]; !ok {
			keys, rows[k] = append(keys, k), kept[k].Record
		}
	}
	keys = append(keys, delay.Key{Due: 1, Seq: 1})
	err := m.tier.Fetch(m.t.Context(), keys, func(i int, rec []byte, err error) {
		if i == len(keys)-1 {
			require.ErrorIs(m.t, err, delay.ErrNotFound)
			return
		}
		if !m.died.Load() {
			require.NoError(m.t, err)
			require.Equal(m.t, rows[keys[i]], rec)
		}
	})
	require.NoError(m.t, err)
}

// checkBucket: what the manifest lists exists, whatever crashed (T2).
func (m *model) checkBucket() {
	reader, err := Open(m.t.Context(), m.inner, Options{
		ReadOnly: true, Now: func() time.Time { return m.now },
	})
	require.NoError(m.t, err)
	state, err := reader.Load(m.t.Context())
	require.NoError(m.t, err)
	have := make(map[string]bool)
	require.NoError(m.t, m.inner.List(m.t.Context(), reader.prefix, func(i objstore.Info) bool {
		have[i.Key] = true
		return true
	}))
	listed := state.Names(false)
	for name := range listed {
		require.True(m.t, have[reader.prefix+name], "%s is listed and missing", name)
	}
	for _, d := range state.Deletes {
		require.False(m.t, listed[d.Name], "%s is listed and pending", d.Name)
	}
	report, err := reader.Verify(m.t.Context(), nil)
	require.NoError(m.t, err)
	require.Empty(m.t, report.Problems)
}

// haunt: an owner that was replaced must not commit, collect or pass a check (T3).
func (m *model) haunt() {
	if m.zombie == nil {
		return
	}
	// Its network is back, and it works.
	z := m.zombie
	z.client = objio.New(m.inner, objio.Policy{Base: -1, Jitter: z.jitter.float, Now: z.opts.Now})
	z.store = manifest.NewStore(z.client, z.z, z.prefix+manifestKey)
	cut := Cut{
		Watermark: delay.MaxKey, Cursors: map[string][]byte{"cut": make([]byte, 8)},
		Rows: []Row{{Key: delay.Key{Due: 7, Seq: 7}, Record: record(7)}},
	}
	_, err := z.Sweep(m.t.Context(), upkeepAt(delay.MaxDue, 0))
	require.ErrorIs(m.t, err, delay.ErrFenced)
	z.fenced.Store(nil)
	// What it may delete is listed by nobody; what it would commit is refused.
	c, err := z.Collect(m.t.Context(), upkeepAt(delay.MaxDue, 0))
	if len(c.Deleted)+len(c.Segments)+len(c.Kept)+len(c.Marks) > 0 {
		require.ErrorIs(m.t, err, delay.ErrFenced)
	}
	z.fenced.Store(nil)
	u := upkeepAt(delay.MaxDue, 0)
	u.Limits = modelLimits
	done, err := z.Compact(m.t.Context(), u)
	require.True(m.t, err != nil || done.Job == "none", "a replaced owner compacted")
	z.fenced.Store(nil) // each on its own
	_, err = z.Commit(m.t.Context(), cut)
	require.ErrorIs(m.t, err, delay.ErrFenced)
	z.fenced.Store(nil)
	require.ErrorIs(m.t, z.Check(m.t.Context()), delay.ErrFenced)
	_, err = z.Commit(m.t.Context(), cut)
	require.ErrorIs(m.t, err, delay.ErrFenced)
	m.zombie = nil
}

// modelLimits make every kind of compaction happen soon.
var modelLimits = CompactLimits{
	Objects: 3, Overlap: 2, InputBytes: 12 << 10, TargetBytes: 3 << 10, LeastBytes: 1 << 10,
}

// keepUp compacts, collects or sweeps. While a compaction is under way others commit: before its
// own commit, which must not undo theirs.
func (m *model) keepUp() {
	ctx := m.t.Context()
	u := upkeepAt(delay.InstantOf(m.now), modelWindow)
	u.DryRun, u.Limits = m.rng.IntN(4) == 0, modelLimits
	u.Around = func(ctx context.Context, do func(context.Context) error) error {
		for range m.rng.IntN(3) {
			m.work()
			m.commit()
		}
		if m.rng.IntN(3) == 0 {
			in := upkeepAt(delay.InstantOf(m.now), modelWindow)
			in.Limits = modelLimits
			_, err := m.tier.Collect(ctx, in)
			require.NotErrorIs(m.t, err, delay.ErrFenced)
		}
		if m.died.Load() {
			return errCrash
		}
		return do(ctx)
	}
	var err error
	switch m.rng.IntN(4) {
	case 0:
		_, err = m.tier.Collect(ctx, u)
	case 1:
		_, err = m.tier.Sweep(ctx, u)
	default:
		var c Compacted
		c, err = m.tier.Compact(ctx, u)
		m.jobs[c.Job]++
	}
	require.NotErrorIs(m.t, err, delay.ErrFenced)
	if !errors.Is(err, delay.ErrCorrupt) { // an answer may be spoilt twice
		require.NotErrorIs(m.t, err, delay.ErrInvalid)
	}
}

func (m *model) run() {
	m.start()
	for range modelSteps {
		switch m.rng.IntN(8) {
		case 0, 1, 2:
			m.work()
		case 3, 4:
			m.commit()
		case 5:
			m.keepUp()
		case 6:
			m.now = m.now.Add(time.Duration(m.rng.IntN(30*60)) * time.Minute)
		case 7:
			m.haunt()
			m.check()
		}
		if m.died.Load() {
			m.start()
			m.checkBucket()
		}
	}
	m.crash.Store(0)
	m.check()
	m.checkBucket()
	if testing.Verbose() {
		m.t.Log(m.jobs)
	}
}

// Whatever fails, and wherever a process dies: what was acked is there, nothing else is, all of a
// cut or none of it, and nothing that is needed is ever deleted.
func TestModel(t *testing.T) {
	for seed := range *modelSeeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			newModel(t, seed).run()
		})
	}
}
