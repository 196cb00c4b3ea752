// SPDX-License-Identifier: Apache-2.0

//go:build unix

package scheduler

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/localstore/codec"
)

// holesOf is how many messages TestHolesOverRestart has; CICADA_HOLES sets another number.
func holesOf(t *testing.T) int {
	n := 20_000
	if text := os.Getenv("CICADA_HOLES"); text != "" {
		var err error
		n, err = strconv.Atoi(text)
		require.NoError(t, err)
	}
	return n
}

// cpu is what the process has worked so far: in a bubble no clock tells how long something takes.
func cpu(t *testing.T) time.Duration {
	var u syscall.Rusage
	require.NoError(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// Every second one of very many leased messages is acked; then the power fails. None that was
// acked may come back, none that is leased before its lease is over, and then exactly those, once.
// Nothing here may grow with the number of holes but the rows that are left.
func TestHolesOverRestart(t *testing.T) {
	inWorld(t, Options{}, func(w *world) {
		n := holesOf(t)
		var last Lease
		leased := make(map[delay.ID]bool, n/2)
		for sent := 0; sent < n; sent += 1000 {
			w.sendAll(1000, "pull:q", 0)
			for left := 1000; left > 0; {
				got := w.pullFor(left, time.Hour)
				require.NotEmpty(t, got)
				var done []Lease
				for i, l := range got {
					if i%2 == 1 {
						done = append(done, l)
						continue
					}
					leased[l.ID], last = true, l
				}
				require.Equal(t, each(Acked, len(done)), w.ack(done...))
				left -= len(got)
			}
		}
		w.pass(time.Second)
		w.crash()
		start := cpu(t)
		w.open()
		took := cpu(t) - start
		records, bytes := w.leaseRecords(), 0
		for i := range records {
			bytes += len(codec.AppendLease(nil, &records[i]))
		}
		t.Logf("%d messages, %d leased: opened in %v of CPU time, %d lease records of %d bytes",
			n, len(leased), took.Round(time.Millisecond), len(records), bytes)
		require.LessOrEqual(t, len(records), n/1000*2)
		require.LessOrEqual(t, bytes, 24*n)
		require.Empty(t, w.pullFor(1000, time.Minute))
		require.EqualValues(t, len(leased), w.books().Pending)
		require.Equal(t, []SettleResult{Acked}, w.ack(last), "receipts survive")
		delete(leased, last.ID)
		w.pass(59 * time.Minute)
		require.Empty(t, w.pullFor(1000, time.Minute))
		w.pass(time.Minute)
		back := w.drainQueue(time.Second)
		require.Len(t, back, len(leased))
		for id, times := range back {
			require.True(t, leased[id])
			require.Equal(t, 1, times)
		}
		require.Empty(t, w.leaseRecords())
		require.Equal(t, delay.Books{Accepted: int64(n), Delivered: int64(n)}, w.books())
	})
}
