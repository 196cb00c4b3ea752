// SPDX-License-Identifier: Apache-2.0

package tiered

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/objstore"
	"github.com/cicadamq/cicada/tiered/objstore/s3/s3test"
)

// A store that refuses in the middle of the work, because a key expired, its rights were taken, or
// a clock went wrong, is not a store that is away and not a broken one: nothing is paused, no
// object is called damaged, nobody is fenced, nothing is lost, and the first flush after it works.
// The reason is in the status; a wrong clock is called a wrong clock.
func TestRefusedMidFlight(t *testing.T) {
	for _, c := range []struct {
		status     int
		code, says string
		is         error
	}{
		{403, "ExpiredToken", "ExpiredToken", objstore.ErrRefused},
		{403, "InvalidAccessKeyId", "InvalidAccessKeyId", objstore.ErrRefused},
		{403, "AccessDenied", "AccessDenied", objstore.ErrRefused},
		{400, "ExpiredToken", "ExpiredToken", objstore.ErrRefused},
		{403, "RequestTimeTooSkewed", "clock is 16m", objstore.ErrSkewed},
	} {
		t.Run(fmt.Sprint(c.status, c.code), func(t *testing.T) {
			w := newWire(t)
			_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(0, 10)})
			require.NoError(t, err)
			refuse := func(rw http.ResponseWriter, _ s3test.Request) bool {
				at := time.Now().Add(-16 * time.Minute).UTC()
				rw.Header().Set("Date", at.Format(http.TimeFormat))
				s3test.Fail(rw, c.status, c.code, "")
				return true
			}
			w.before.Store(&refuse)
			sent := len(w.server.Requests())
			cut := Cut{Rows: rowsOf(10, 20), Marks: []delay.Mark{markOf(3)}}
			const flushes = 4 // the client waits after some of the codes
			for range flushes {
				_, err = w.tier.Commit(t.Context(), cut)
				require.ErrorIs(t, err, c.is)
				require.NotErrorIs(t, err, delay.ErrUnavailable)
				require.NotErrorIs(t, err, delay.ErrFenced)
				require.ErrorIs(t, w.tier.Check(t.Context()), c.is)
			}
			require.LessOrEqual(t, len(w.server.Requests())-sent, 4*flushes, "asked in vain")
			stats := w.tier.Stats()
			require.Contains(t, stats.LastCommitError, c.says)
			for _, h := range stats.Health {
				require.False(t, h.Paused, "a refusal is not an outage")
			}
			err = w.tier.Scan(t.Context(), delay.Key{}, delay.MaxKey,
				func(delay.Key, []byte) bool { return true })
			require.ErrorIs(t, err, delay.ErrUnavailable)
			require.ErrorIs(t, err, c.is)
			require.NotErrorIs(t, err, delay.ErrCorrupt)

			w.before.Store(nil)
			_, err = w.tier.Commit(t.Context(), cut)
			require.NoError(t, err)
			require.Empty(t, w.tier.Stats().LastCommitError)
			report, err := w.tier.Verify(t.Context(), nil)
			require.NoError(t, err)
			require.Empty(t, report.Problems)
			require.EqualValues(t, 20, report.Messages)
		})
	}
}

// What S3 says of two writes at the same moment (409), and of an own write that was sent again by
// something in between (412 after it was done), must never be taken for another owner.
func TestConflictsOfOwnWrites(t *testing.T) {
	w := newWire(t)
	for _, times := range []int{1, 2, 4} {
		left := times
		conflict := func(rw http.ResponseWriter, r s3test.Request) bool {
			if r.Method != http.MethodPut || !strings.HasSuffix(r.Path, "/manifest") || left == 0 {
				return false
			}
			left--
			s3test.Fail(rw, http.StatusConflict, "ConditionalRequestConflict", "")
			return true
		}
		w.before.Store(&conflict)
		_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(times*10, times*10+5)})
		require.NoError(t, err)
		require.Zero(t, left)
	}
	w.before.Store(nil)
	version := w.tier.State().Version
	done := 0
	after := func(rw http.ResponseWriter, r s3test.Request) bool {
		if r.Method != http.MethodPut || !strings.HasSuffix(r.Path, "/manifest") {
			return false
		}
		done++
		s3test.Fail(rw, http.StatusPreconditionFailed, "PreconditionFailed", "")
		return true
	}
	w.after.Store(&after)
	for i := range 3 {
		_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(100+i, 101+i)})
		require.NoError(t, err)
	}
	require.Equal(t, 3, done)
	require.Equal(t, version+3, w.tier.State().Version)
	require.NoError(t, w.tier.Check(t.Context()))
}

// A listed object that somebody deleted, or a lifecycle rule, must cost its own messages and no
// others, and be named by a verify: the shard goes on.
func TestObjectDeletedByHand(t *testing.T) {
	w := newWire(t)
	for i := range 4 {
		_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(i*10, i*10+10)})
		require.NoError(t, err)
	}
	lost := w.tier.State().Segments[1]
	require.NoError(t, w.bucket.Delete(t.Context(), w.tier.Prefix()+lost.Name))
	keys := []delay.Key{key(2), key(12), key(25), key(19), key(38)}
	got := make([]error, len(keys))
	require.NoError(t, w.tier.Fetch(t.Context(), keys, func(i int, _ []byte, err error) {
		got[i] = err
	}))
	for i, k := range keys {
		if lost.MayHold(k) {
			require.ErrorIs(t, got[i], delay.ErrCorrupt)
			require.ErrorContains(t, got[i], lost.Name)
			require.NotErrorIs(t, got[i], delay.ErrNotFound)
		} else {
			require.NoError(t, got[i])
		}
	}
	_, err := w.tier.Commit(t.Context(), Cut{Rows: rowsOf(50, 60)})
	require.NoError(t, err)
	n := 0
	require.NoError(t, w.tier.Scan(t.Context(), key(20), key(99),
		func(delay.Key, []byte) bool { n++; return true }))
	require.Equal(t, 30, n)
	report, err := w.tier.Verify(t.Context(), nil)
	require.NoError(t, err)
	require.Len(t, report.Problems, 1)
	require.Equal(t, lost.Name, report.Problems[0].Name)
}
