// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// lies are what a store can answer with status 200.
var lies = []struct {
	name string
	tell func(l *liar, key string, body []byte, whole bool) []byte
}{
	{"truncated", func(l *liar, _ string, body []byte, _ bool) []byte {
		return body[:l.rng.IntN(max(len(body), 1))]
	}},
	{"longer", func(l *liar, _ string, body []byte, _ bool) []byte {
		return append(slices.Clone(body), make([]byte, 1+l.rng.IntN(5000))...)
	}},
	{"a bit", func(l *liar, _ string, body []byte, _ bool) []byte {
		body = slices.Clone(body)
		body[l.rng.IntN(len(body))] ^= 1 << l.rng.IntN(8)
		return body
	}},
	{"a run of bytes", func(l *liar, _ string, body []byte, _ bool) []byte {
		body = slices.Clone(body)
		at := l.rng.IntN(len(body))
		for i := at; i < min(at+64, len(body)); i++ {
			body[i] = ^body[i]
		}
		return body
	}},
	{"zeros", func(_ *liar, _ string, body []byte, _ bool) []byte { return make([]byte, len(body)) }},
	{"swapped object", (*liar).swapped},
	{"another range", func(l *liar, key string, body []byte, whole bool) []byte {
		object := l.objects[key]
		if whole || len(body) == len(object) {
			return l.swapped(key, body, whole)
		}
		for {
			at := l.rng.IntN(len(object) - len(body) + 1)
			if other := object[at : at+len(body)]; string(other) != string(body) {
				return slices.Clone(other)
			}
		}
	}},
}

// swapped answers with the bytes of another object.
func (l *liar) swapped(key string, body []byte, whole bool) []byte {
	others := []string{}
	for k, b := range l.objects {
		if k != key && (whole || len(b) >= len(body)) {
			others = append(others, k)
		}
	}
	slices.Sort(others)
	other := l.objects[others[l.rng.IntN(len(others))]]
	if whole {
		return slices.Clone(other)
	}
	at := l.rng.IntN(len(other) - len(body) + 1)
	return slices.Clone(other[at : at+len(body)])
}

// liar answers the reads from the given one on with a lie, for ever or once. What it says of the
// size agrees with the lie, as a Content-Length made by a proxy does, or does not.
type liar struct {
	objstore.Bucket
	objects map[string][]byte
	tell    func(l *liar, key string, body []byte, whole bool) []byte
	agrees  bool
	forever bool

	mu   sync.Mutex
	rng  *rand.Rand
	left int // reads before the first lie
	told atomic.Int64
}

func (l *liar) lie(key string, body []byte, whole bool) ([]byte, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.left--
	if l.left >= 0 || len(body) == 0 || !l.forever && l.told.Load() > 0 {
		return body, false
	}
	l.told.Add(1)
	return l.tell(l, key, body, whole), true
}

func (l *liar) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	body, info, err := l.Bucket.Get(ctx, key)
	if err != nil {
		return nil, info, err
	}
	body, lied := l.lie(key, body, true)
	if lied && l.agrees {
		info.Size = int64(len(body))
	}
	return body, info, nil
}

func (l *liar) GetRange(ctx context.Context, key string, from, n int64) ([]byte, error) {
	body, err := l.Bucket.GetRange(ctx, key, from, n)
	if err != nil {
		return nil, err
	}
	body, _ = l.lie(key, body, false)
	return body, nil
}

// reading is one way to read a tier; what it gives stands for all that was read.
type reading struct {
	name string
	do   func(ctx context.Context, r *Tier) (string, error)
}

func readings() []reading {
	fetched := []delay.Key{key(3), key(77), key(150), key(401)}
	return []reading{
		{"manifest", func(ctx context.Context, r *Tier) (string, error) {
			s, err := r.Load(ctx)
			return fmt.Sprintf("%+v", s), err
		}},
		{"scan", func(ctx context.Context, r *Tier) (string, error) {
			var b strings.Builder
			err := r.Scan(ctx, delay.Key{}, delay.MaxKey, func(k delay.Key, rec []byte) bool {
				fmt.Fprintf(&b, "%s %x\n", k, rec)
				return true
			})
			return b.String(), err
		}},
		{"fetch", func(ctx context.Context, r *Tier) (string, error) {
			out := make([]string, len(fetched))
			var failed error
			err := r.Fetch(ctx, fetched, func(i int, rec []byte, err error) {
				if err != nil {
					failed = err
				}
				out[i] = fmt.Sprintf("%x", rec)
			})
			if err == nil {
				err = failed
			}
			return strings.Join(out, "\n"), err
		}},
		{"kept", func(ctx context.Context, r *Tier) (string, error) {
			var b strings.Builder
			err := r.ScanKept(ctx, func(k delay.Kept) bool {
				fmt.Fprintf(&b, "%+v\n", k)
				return true
			})
			return b.String(), err
		}},
		{"marks", func(ctx context.Context, r *Tier) (string, error) {
			var b strings.Builder
			err := r.ScanMarks(ctx, func(m delay.Mark) bool {
				fmt.Fprintf(&b, "%+v\n", m)
				return true
			})
			return b.String(), err
		}},
		{"ids", func(ctx context.Context, r *Tier) (string, error) {
			var b strings.Builder
			err := r.ScanIDs(ctx, func(id string, ident delay.Identity) bool {
				fmt.Fprintf(&b, "%s %+v\n", id, ident)
				return true
			})
			return b.String(), err
		}},
		{"id", func(ctx context.Context, r *Tier) (string, error) {
			ident, ok, err := r.FindID(ctx, "client-63")
			return fmt.Sprintf("%+v %v", ident, ok), err
		}},
		{"verify", func(ctx context.Context, r *Tier) (string, error) {
			report, err := r.Verify(ctx, nil)
			if err == nil && len(report.Problems) > 0 {
				err = report.Problems[0].Err
			}
			return fmt.Sprintf("%+v", report), err
		}},
	}
}

// Whatever wrong bytes a store gives with its 200, to whichever read, once or for ever: what comes
// out is exactly what was stored, after another attempt, or an error; never other messages, marks,
// ids or lists (objstore O3, T5).
func TestLyingStore(t *testing.T) {
	const want = 10_000
	w := newWorld(t, Options{})
	w.commit(Cut{Rows: rowsOf(0, 200), Kept: []delay.Kept{keptOf(400, 1)},
		Marks: []delay.Mark{markOf(5)}})
	w.commit(Cut{Rows: rowsOf(200, 300), Kept: []delay.Kept{keptOf(401, 2), keptOf(402, 1)},
		Marks: []delay.Mark{markOf(6), markOf(7)}})
	objects := map[string][]byte{}
	require.NoError(t, w.bucket.List(t.Context(), "", func(i objstore.Info) bool {
		body, _, err := w.bucket.Get(t.Context(), i.Key)
		require.NoError(t, err)
		objects[i.Key] = body
		return true
	}))
	truth := map[string]string{}
	for _, read := range readings() {
		r := w.open(w.bucket, Options{ReadOnly: true})
		_, err := r.Load(t.Context())
		require.NoError(t, err)
		truth[read.name], err = read.do(t.Context(), r)
		require.NoError(t, err, read.name)
		require.NotEmpty(t, truth[read.name])
	}
	var injected, failed, again int64
	for seed := uint64(0); injected < want; seed++ {
		rng := rand.New(rand.NewPCG(seed, 5))
		how, read := lies[rng.IntN(len(lies))], readings()[rng.IntN(len(readings()))]
		l := &liar{Bucket: w.bucket, objects: objects, tell: how.tell, rng: rng,
			left: rng.IntN(8), agrees: rng.IntN(2) == 0, forever: rng.IntN(2) == 0}
		what := fmt.Sprintf("seed %d: %s, %s, from read %d, agrees %v, forever %v", seed, read.name,
			how.name, l.left, l.agrees, l.forever)
		r := w.open(l, Options{
			ReadOnly: true, Known: true, ClusterID: w.tier.ClusterID(), Attempts: 3,
		})
		if read.name == "manifest" {
			l.left %= 2
		} else {
			l.left += 2 // the format and the manifest
		}
		var got string
		_, err := r.Load(t.Context())
		if err == nil || read.name == "manifest" {
			got, err = read.do(t.Context(), r)
		}
		told := l.told.Load()
		injected += told
		if err != nil {
			require.Positive(t, told, "%s: %v", what, err)
			failed++
			continue
		}
		require.Equal(t, truth[read.name], got, what)
		if told > 0 {
			again++
			require.False(t, l.forever, "a lie was believed: %s", what)
		}
	}
	t.Logf("%d lies: %d reads failed, %d were made again", injected, failed, again)
	require.Positive(t, failed)
	require.Positive(t, again)
}

// staleTags answers conditional writes with a tag that is none of the object, and reads with what
// was there before the last write, when told to.
type staleTags struct {
	objstore.Bucket
	wrongTag, old bool
	before        []byte
	beforeInfo    objstore.Info
}

func (s *staleTags) Put(
	ctx context.Context, key string, body []byte, cond objstore.Condition,
) (string, error) {
	if strings.HasSuffix(key, manifestKey) && !s.old {
		s.before, s.beforeInfo, _ = s.Bucket.Get(ctx, key)
	}
	tag, err := s.Bucket.Put(ctx, key, body, cond)
	if s.wrongTag && err == nil {
		tag = "of-another-time"
	}
	return tag, err
}

func (s *staleTags) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	if s.old && strings.HasSuffix(key, manifestKey) {
		return slices.Clone(s.before), s.beforeInfo, nil
	}
	return s.Bucket.Get(ctx, key)
}

// A tag that is not the object's must cost a request and not the ownership; a manifest older than
// what was committed must never be taken for the truth.
func TestStaleTags(t *testing.T) {
	w := newWorld(t, Options{})
	s := &staleTags{Bucket: w.bucket}
	owner := w.open(s, Options{})
	_, err := owner.Load(t.Context())
	require.NoError(t, err)
	_, err = owner.Take(t.Context(), [16]byte{2}, false)
	require.NoError(t, err)
	s.wrongTag = true
	for i := range 5 {
		state, err := owner.Commit(t.Context(), Cut{Rows: rowsOf(i, i+1)})
		require.NoError(t, err)
		require.Len(t, state.Segments, i+1)
	}
	require.NoError(t, owner.Check(t.Context()))
	s.wrongTag = false
	_, err = owner.Commit(t.Context(), Cut{Rows: rowsOf(9, 10)})
	require.NoError(t, err)
	s.old = true
	err = owner.Check(t.Context())
	require.ErrorIs(t, err, delay.ErrCorrupt)
	require.ErrorContains(t, err, "went back in time")
	require.Len(t, owner.State().Segments, 6)
	s.old = false
	require.NoError(t, owner.Check(t.Context()))
}

// An object in the place of another one of the same size and shape, with all checksums right, must
// be found out by what it says of itself: its messages are not those that the manifest means.
func TestTwinObject(t *testing.T) {
	w := newWorld(t, Options{})
	var s State
	for i := range 40 {
		s = w.commit(Cut{Rows: rowsOf(100+i, 101+i)})
	}
	swapped := 0
	for i := range s.Segments {
		for j := range s.Segments[:i] {
			a, b := s.Segments[i], s.Segments[j]
			if a.Stored != b.Stored || a.TailOffset != b.TailOffset || swapped == 5 {
				continue
			}
			swapped++
			twin, _, err := w.bucket.Get(t.Context(), w.tier.Prefix()+b.Name)
			require.NoError(t, err)
			var own []byte
			w.spoil(a.Name, func(body []byte) []byte {
				own = body
				return slices.Clone(twin)
			})
			r := w.open(w.bucket, Options{ReadOnly: true})
			_, err = r.Load(t.Context())
			require.NoError(t, err)
			err = r.Scan(t.Context(), delay.Key{}, delay.MaxKey,
				func(delay.Key, []byte) bool { return true })
			require.ErrorIs(t, err, delay.ErrCorrupt)
			require.ErrorContains(t, err, "it is another object")
			require.ErrorContains(t, err, a.Name)
			w.spoil(a.Name, func([]byte) []byte { return own })
		}
	}
	require.Equal(t, 5, swapped)
}
