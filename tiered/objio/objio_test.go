// SPDX-License-Identifier: Apache-2.0

package objio

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
)

// stub answers every call with the next error of a list; nil after its end.
type stub struct {
	errs  []error
	calls int
	hang  bool // wait for ctx instead
	short bool // give fewer bytes than asked for
	keys  [][]string
	list  []string
}

func (s *stub) next(ctx context.Context) error {
	s.calls++
	if s.hang {
		<-ctx.Done()
		return ctx.Err()
	}
	if len(s.errs) == 0 {
		return nil
	}
	err := s.errs[0]
	s.errs = s.errs[1:]
	return err
}

func (s *stub) Put(
	ctx context.Context, _ string, _ []byte, _ objstore.Condition,
) (string, error) {
	return "tag", s.next(ctx)
}

func (s *stub) Get(ctx context.Context, key string) ([]byte, objstore.Info, error) {
	info := objstore.Info{Key: key, Size: 3}
	if s.short {
		return []byte("ab"), info, s.next(ctx)
	}
	return []byte("abc"), info, s.next(ctx)
}

func (s *stub) GetRange(ctx context.Context, _ string, _, n int64) ([]byte, error) {
	if s.short {
		n--
	}
	return make([]byte, n), s.next(ctx)
}

func (s *stub) Delete(ctx context.Context, keys ...string) error {
	s.keys = append(s.keys, keys)
	return s.next(ctx)
}

func (s *stub) List(ctx context.Context, _ string, fn func(objstore.Info) bool) error {
	for _, key := range s.list {
		fn(objstore.Info{Key: key})
	}
	return s.next(ctx)
}

func (s *stub) Close() error { return nil }

var errLost = errors.New("connection reset")

func client(b objstore.Bucket, p Policy) *Client {
	var mu sync.Mutex
	rng := rand.New(rand.NewPCG(1, 1))
	p.Now, p.Jitter = time.Now, func() float64 {
		mu.Lock()
		defer mu.Unlock()
		return rng.Float64()
	}
	return New(b, p)
}

// Repeating the wrong calls loses or doubles data; not repeating the right ones makes every hiccup
// an outage. Cites I1 and I2.
func TestWhatIsRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx := t.Context()
		calls := map[string]func(c *Client) error{
			"put":       func(c *Client) error { return put(ctx, c) },
			"get":       func(c *Client) error { _, _, err := c.Get(ctx, "k", 3); return err },
			"get_range": func(c *Client) error { _, err := c.GetRange(ctx, "k", 0, 5); return err },
			"delete":    func(c *Client) error { return c.Delete(ctx, "k") },
			"list":      func(c *Client) error { _, err := c.List(ctx, "k"); return err },
			"put_if": func(c *Client) error {
				_, err := c.PutIf(ctx, "k", nil, objstore.Condition{Absent: true})
				return err
			},
		}
		for op, call := range calls {
			s := &stub{errs: []error{errLost, objstore.ErrThrottled}}
			err := call(client(s, Policy{}))
			if op == "put_if" {
				require.ErrorIs(t, err, errLost)
				require.Equal(t, 1, s.calls)
			} else {
				require.NoError(t, err, op)
				require.Equal(t, 3, s.calls, op)
			}
			for _, certain := range []error{objstore.ErrNotFound, objstore.ErrRefused,
				objstore.ErrPrecondition} {
				s := &stub{errs: []error{certain}}
				require.ErrorIs(t, call(client(s, Policy{})), certain)
				require.Equal(t, 1, s.calls, op)
			}
		}
	})
}

// A store that never answers must not hold a caller for ever, and the error must say what kind it
// is and why. Cites I3.
func TestGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &stub{hang: true}
		start := time.Now()
		_, err := client(s, Policy{Attempts: 3}).GetRange(t.Context(), "k", 0, 1<<20)
		require.ErrorIs(t, err, delay.ErrUnavailable)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.Equal(t, 3, s.calls)
		took := time.Since(start) // 3 s, then twice 6 s, and two pauses
		require.GreaterOrEqual(t, took, 15*time.Second)
		require.Less(t, took, 16*time.Second)

		s = &stub{short: true}
		_, err = client(s, Policy{}).GetRange(t.Context(), "k", 0, 10)
		require.ErrorIs(t, err, delay.ErrUnavailable)
		require.ErrorContains(t, err, "got 9 of 10 bytes")
		_, _, err = client(s, Policy{}).Get(t.Context(), "k", 10)
		require.ErrorContains(t, err, "got 2 of 3 bytes")
	})
}

// The caller's own patience comes first and keeps its cause.
func TestCallerGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		err := client(&stub{hang: true}, Policy{}).Delete(ctx, "k")
		require.ErrorIs(t, err, why)
		require.NotErrorIs(t, err, delay.ErrUnavailable)
	})
}

// Pauses must grow, stay below their limit and be random; a negative Base means none.
func TestPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := client(&stub{}, Policy{Base: time.Second, Max: 5 * time.Second})
		for n, most := range map[int]int{1: 1, 2: 2, 3: 4, 4: 5, 60: 5} {
			var sum time.Duration
			for range 100 {
				c.gate.lanes[Read].budget = retryCost
				start := time.Now()
				require.NoError(t, c.Pause(t.Context(), n))
				took := time.Since(start)
				require.LessOrEqual(t, took, time.Duration(most)*time.Second)
				sum += took
			}
			require.InDelta(t, float64(most)*50, sum.Seconds(), float64(most)*15)
		}
		start := time.Now()
		require.NoError(t, client(&stub{}, Policy{Base: -1}).Pause(t.Context(), 9))
		require.Zero(t, time.Since(start))
	})
}

// Deletes must be cut into batches a store takes, and a list that broke off must not leave its
// beginning in the result.
func TestBatches(t *testing.T) {
	s := &stub{list: []string{"a", "b"}, errs: []error{errLost}}
	infos, err := client(s, Policy{Base: -1}).List(t.Context(), "")
	require.NoError(t, err)
	require.Len(t, infos, 2)
	require.NoError(t, client(s, Policy{}).Delete(t.Context(), make([]string, 2500)...))
	require.Len(t, s.keys, 3)
	require.Len(t, s.keys[2], 500)
}

// prover is a bucket whose store proves what it has stored, or not.
type prover struct {
	stub
	proved bool
}

func (p *prover) PutProved(ctx context.Context, _ string, _ []byte) (bool, error) {
	return p.proved, p.next(ctx)
}

// Only a store's own word spares the reading back, and not the word of an attempt that failed.
func TestProof(t *testing.T) {
	for _, proved := range []bool{false, true} {
		p := &prover{proved: proved, stub: stub{errs: []error{errLost}}}
		got, err := client(p, Policy{Base: -1}).Put(t.Context(), "k", []byte("abc"))
		require.NoError(t, err)
		require.Equal(t, proved, got)
		require.Equal(t, 2, p.calls)
	}
	p := &prover{proved: true, stub: stub{errs: []error{objstore.ErrRefused}}}
	got, err := client(p, Policy{Base: -1}).Put(t.Context(), "k", nil)
	require.ErrorIs(t, err, objstore.ErrRefused)
	require.False(t, got)
	got, err = client(&stub{}, Policy{Base: -1}).Put(t.Context(), "k", nil)
	require.NoError(t, err)
	require.False(t, got)
}

// Metrics must name every outcome and count bytes only of what succeeded.
func TestObserve(t *testing.T) {
	s := &stub{errs: []error{objstore.ErrThrottled, context.Canceled, errLost, nil,
		objstore.ErrNotFound, objstore.ErrRefused}}
	var codes []string
	var bytes int64
	c := client(s, Policy{Base: -1, Observe: func(op, code string, _ time.Duration, n int64) {
		codes = append(codes, op+"/"+code)
		bytes += n
	}})
	_, err := c.GetRange(t.Context(), "k", 0, 7)
	require.NoError(t, err)
	require.Error(t, put(t.Context(), c))
	require.Error(t, put(t.Context(), c))
	require.Equal(t, []string{"get_range/throttled", "get_range/canceled", "get_range/unknown",
		"get_range/ok", "put/not_found", "put/refused"}, codes)
	require.EqualValues(t, 7, bytes)
}
