// SPDX-License-Identifier: Apache-2.0

package localstore

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
)

const (
	benchRows     = 1000 // rows of a batch
	benchInFlight = 8    // batches whose sync is not awaited yet
	benchSpan     = 24 * 3_600_000
)

func benchStore(b *testing.B) *Store {
	s, err := Open(vfs.Default, b.TempDir(), Options{})
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, s.Close()) })
	return s
}

// benchRecord is a record of 200 bytes in all.
func benchRecord() []byte {
	body := make([]byte, 165)
	for i := range body {
		body[i] = "0123456789abcdef"[rand.IntN(16)]
	}
	return delay.AppendRecord(nil, &delay.Message{
		Target: "pull:orders", Due: 1_800_000_000_000, AcceptedAt: 1_799_990_000_000, Body: body,
	})
}

func perRow(b *testing.B) {
	b.ReportMetric(float64(b.N)*benchRows/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRawPebble is what the disk and Pebble give: batches of 1,000 rows in random order, eight
// in flight. BenchmarkBatch is the same through the store.
func BenchmarkRawPebble(b *testing.B) {
	s := benchStore(b)
	rec := benchRecord()
	flight := make(chan *pebble.Batch, benchInFlight)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for pb := range flight {
			if err := pb.SyncWait(); err != nil {
				b.Error(err)
			}
			_ = pb.Close()
		}
	}()
	n := uint64(0)
	for b.Loop() {
		pb := s.db.NewBatch(pebble.WithMaxRetainedSizeBytes(retainedBatchBytes))
		for range benchRows {
			n++
			op := pb.SetDeferred(rowKeyLen, len(rec))
			putRowKey(op.Key, spaceRow, 0, key(delay.Due(1_800_000_000_000+rand.Int64N(benchSpan)), n))
			copy(op.Value, rec)
			_ = op.Finish()
		}
		require.NoError(b, s.db.ApplyNoSyncWait(pb, pebble.Sync))
		flight <- pb
	}
	close(flight)
	<-done
	perRow(b)
}

func BenchmarkBatch(b *testing.B) {
	s := benchStore(b)
	rec := benchRecord()
	flight := make(chan Pending, benchInFlight)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range flight {
			if _, err := p.Wait(); err != nil {
				b.Error(err)
			}
		}
	}()
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		batch := s.NewBatch()
		for range benchRows {
			n++
			batch.PutRow(key(delay.Due(1_800_000_000_000+rand.Int64N(benchSpan)), n), rec)
		}
		batch.SetBooks(delay.Books{Accepted: int64(n)})
		p, err := s.Apply(batch)
		require.NoError(b, err)
		flight <- p
	}
	close(flight)
	<-done
	perRow(b)
}

// BenchmarkFill is only the building of a batch: what a message costs the committer.
func BenchmarkFill(b *testing.B) {
	s := benchStore(b)
	rec := benchRecord()
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		batch := s.NewBatch()
		for range benchRows {
			n++
			batch.PutRow(key(delay.Due(1_800_000_000_000+rand.Int64N(benchSpan)), n), rec)
		}
		batch.Discard()
	}
	perRow(b)
}

func BenchmarkLookupFreshID(b *testing.B) {
	s := benchStore(b)
	putIDs(b, s, "id-", 0, 100_000)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("fresh-order-", rand.Uint64())
	}
	for i := 0; b.Loop(); i++ {
		if _, _, err := s.LookupID(ids[i%len(ids)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLookupKnownID(b *testing.B) {
	s := benchStore(b)
	putIDs(b, s, "id-", 0, 100_000)
	ids := make([]string, 1000)
	for i := range ids {
		ids[i] = fmt.Sprint("id-", rand.IntN(100_000))
	}
	for i := 0; b.Loop(); i++ {
		if _, _, err := s.LookupID(ids[i%len(ids)]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadRows(b *testing.B) {
	s := benchStore(b)
	rec := benchRecord()
	const rows = 200_000
	var keys []delay.Key
	for at := uint64(0); at < rows; at += benchRows {
		commit(b, s, func(batch *Batch) {
			for i := at; i < at+benchRows; i++ {
				k := key(delay.Due(1_800_000_000_000+i*20), i+1)
				batch.PutRow(k, rec)
				keys = append(keys, k)
			}
		})
	}
	require.NoError(b, s.db.Flush())
	for b.Loop() {
		at := rand.IntN(rows - benchRows)
		n := 0
		err := s.ReadRows(keys[at:at+benchRows], func(_ int, rec []byte) {
			if rec != nil {
				n++
			}
		})
		if err != nil || n != benchRows {
			b.Fatal(n, err)
		}
	}
	perRow(b)
}
