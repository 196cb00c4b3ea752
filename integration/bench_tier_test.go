// SPDX-License-Identifier: Apache-2.0

package integration

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/minio/minio-go/v7"
	"github.com/stretchr/testify/require"
)

// BenchmarkTier measures the cold tier of the real program on a real store, each figure beside what
// a plain loop of the store's own client reaches in the same run:
//
//	make bench-tier                                    a quarter of a million messages
//	CICADA_BENCH_MESSAGES=10000000 make bench-tier     as many as wanted
//	CICADA_TEST_STORE=versitygw make bench-tier        another store
//
// The parts build on each other: run them together, and once (-benchtime 1x).
func BenchmarkTier(b *testing.B) {
	s := minioStore
	if os.Getenv("CICADA_TEST_STORE") == gatewayStore.name {
		s = gatewayStore
	}
	t := &tierBench{place: need(b, s).bucket(), n: benchMessages(b)}
	t.d = newDaemon(b, "--bucket", t.place.url(), "--tier-flush-interval", "1s", "--tier-min-wait",
		"1s")
	b.Cleanup(t.d.kill)
	b.Run("backlog", t.backlog)
	b.Run("offload", t.offload)
	b.Run("cold-read", t.coldRead)
	b.Run("restore", t.restore)
	b.Run("hydrate", t.hydrate)
	b.Run("json-bytes", t.jsonBytes)
	b.Run("requests", t.requests)
}

// tierBench is one bucket with n messages of 200 bytes that are due on one day.
type tierBench struct {
	place place
	n     int
	d     *daemon
	ids   []string
}

const (
	benchBody = 200
	// The day on which everything is due, from the start of the load: beyond the horizon of 24 h.
	benchDay = "26h..49h"
)

func benchMessages(b *testing.B) int {
	b.Helper()
	v := os.Getenv("CICADA_BENCH_MESSAGES")
	if v == "" {
		return 250_000
	}
	n, err := strconv.Atoi(v)
	require.NoError(b, err)
	return n
}

// uploaded waits until n messages are in segments, and says how many bytes they take.
func uploaded(b *testing.B, d *daemon, n int) (bytes int64) {
	b.Helper()
	for deadline := time.Now().Add(10 * time.Minute); time.Now().Before(deadline); {
		r := cliRun{env: []string{"CICADA_SERVER=" + strings.TrimPrefix(*d.base.Load(), "http://")}}.
			run(b, "tier", "status", "-o", "json")
		require.Equal(b, 0, r.code, "%s", r)
		var status struct {
			Levels []struct {
				Kind   string
				Items  int
				Stored int64 `json:"stored_bytes"`
			}
		}
		require.NoError(b, json.Unmarshal([]byte(r.out), &status))
		items := 0
		bytes = 0
		for _, l := range status.Levels {
			if l.Kind == "segment" {
				items, bytes = items+l.Items, bytes+l.Stored
			}
		}
		if items >= n {
			return bytes
		}
		time.Sleep(20 * time.Millisecond)
	}
	require.FailNow(b, "not uploaded in time", "%s", tail(d.logFrom(0)))
	return 0
}

// segments are the bucket's segments, with their bodies.
func (p place) segments(b *testing.B) (bodies [][]byte) {
	b.Helper()
	c := p.client(b)
	for _, key := range p.keys(b) {
		if !strings.HasSuffix(key, ".seg") {
			continue
		}
		o, err := c.GetObject(b.Context(), p.bucket, key, minio.GetObjectOptions{})
		require.NoError(b, err)
		body, err := io.ReadAll(o)
		require.NoError(b, err)
		require.NoError(b, o.Close())
		bodies = append(bodies, body)
	}
	return bodies
}

func size(bodies [][]byte) (n int64) {
	for _, body := range bodies {
		n += int64(len(body))
	}
	return n
}

// putAll is the plain loop of uploads: one at a time, unsigned payload, as fast as the client can.
func (p place) putAll(b *testing.B, prefix string, bodies [][]byte) time.Duration {
	b.Helper()
	c := p.client(b)
	began := time.Now()
	for i, body := range bodies {
		_, err := c.PutObject(b.Context(), p.bucket, fmt.Sprintf("%s%06d", prefix, i),
			bytes.NewReader(body), int64(len(body)),
			minio.PutObjectOptions{DisableMultipart: true, DisableContentSha256: true})
		require.NoError(b, err)
	}
	return time.Since(began)
}

// load sends the n messages as fast as the daemon takes them.
func (t *tierBench) load(b *testing.B, d *daemon) {
	b.Helper()
	r := cliRun{}.run(b, "bench", "--server", strings.TrimPrefix(*d.base.Load(), "http://"),
		"--messages", strconv.Itoa(t.n), "--size", strconv.Itoa(benchBody), "--batch", "1000", "--due",
		benchDay, "--json")
	require.Equal(b, 0, r.code, "%s", r)
}

// backlog: messages and bytes a second into the bucket when n are waiting and none come, beside a
// loop that puts the same objects.
func (t *tierBench) backlog(b *testing.B) {
	for range b.N {
		p := t.place.store.bucket()
		d := serve(b, "--bucket", p.url(), "--tier-flush-interval", "1h")
		t.load(b, d)
		began := time.Now()
		d.send(obj{"target": "pull:q", "delay": "30h", "durability": "tier"}) // flushes all
		stored := uploaded(b, d, t.n)
		took := time.Since(began)
		d.kill()
		bodies := p.segments(b)
		plain := p.putAll(b, "plain/", bodies)
		ours, loop := float64(stored)/took.Seconds(), float64(size(bodies))/plain.Seconds()
		b.ReportMetric(float64(t.n)/took.Seconds(), "uploaded/s")
		b.ReportMetric(ours/1e6, "MB/s")
		b.ReportMetric(loop/1e6, "plain-MB/s")
		b.ReportMetric(100*ours/loop, "%-of-plain")
		b.ReportMetric(0, "ns/op")
	}
}

// offload: messages and bytes a second into the bucket while as many are accepted as the daemon
// takes, beside a loop that puts the same objects.
func (t *tierBench) offload(b *testing.B) {
	t.d.t = b
	for range b.N {
		t.d.start()
		began := time.Now()
		t.load(b, t.d)
		accepted := time.Since(began)
		stored := uploaded(b, t.d, t.n)
		took := time.Since(began)
		bodies := t.place.segments(b)
		plain := t.place.putAll(b, "plain/", bodies)
		ours, loop := float64(stored)/took.Seconds(), float64(size(bodies))/plain.Seconds()
		b.ReportMetric(float64(t.n)/took.Seconds(), "uploaded/s")
		b.ReportMetric(float64(t.n)/accepted.Seconds(), "accepted/s")
		b.ReportMetric(ours/1e6, "MB/s")
		b.ReportMetric(loop/1e6, "plain-MB/s")
		b.ReportMetric(100*ours/loop, "%-of-plain")
		b.ReportMetric(float64(len(bodies)), "objects")
		b.ReportMetric(0, "ns/op")
	}
}

func quantiles(times []time.Duration) (p50, p99 time.Duration) {
	slices.Sort(times)
	return times[len(times)/2], times[len(times)*99/100]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// coldRead: one message by its id that is only in the bucket, beside a ranged GET of a block.
func (t *tierBench) coldRead(b *testing.B) {
	const reads = 500
	t.d.t = b
	for range b.N {
		t.d.kill()
		net := proxyTo(b, t.place.endpoint, 1) // only counts
		require.NoError(b, os.RemoveAll(t.d.data))
		t.d.args[1] = t.place.through(net.URL()).url()
		t.d.start()
		t.findIDs(b)
		t.d.kill() // its caches with it
		t.d.start()
		rng := rand.New(rand.NewPCG(1, 2))
		before := net.Counts()["GET"]
		read := func(n int) (times []time.Duration) {
			for _, i := range rng.Perm(len(t.ids))[:min(n, len(t.ids))] {
				began := time.Now()
				r := t.d.call("GET", path(t.ids[i])+"?body=true", nil)
				times = append(times, time.Since(began))
				require.Equal(b, "cold", r.ok(b)["tier"])
			}
			return times
		}
		counted := len(read(reads))
		gets := net.Counts()["GET"] - before
		t.d.kill()
		t.d.args[1] = t.place.url()
		t.d.start()
		p50, p99 := quantiles(read(reads))
		plain50, plain99 := t.rangedGets(b, reads)
		b.ReportMetric(ms(p50), "p50-ms")
		b.ReportMetric(ms(p99), "p99-ms")
		b.ReportMetric(ms(plain50), "plain-p50-ms")
		b.ReportMetric(ms(plain99), "plain-p99-ms")
		b.ReportMetric(float64(gets)/float64(counted), "GETs/read")
		b.ReportMetric(0, "ns/op")
	}
}

// findIDs takes ids from all over the day, so that few lie in one block.
func (t *tierBench) findIDs(b *testing.B) {
	b.Helper()
	const parts = 300
	first := time.Now().Add(26 * time.Hour)
	for i := range parts {
		from := first.Add(time.Duration(i) * 22 * time.Hour / parts).UnixMilli()
		r := t.d.call("GET", fmt.Sprintf("/v1/messages?due_from=%d&due_to=%d&limit=1", from,
			from+600_000), nil).ok(b)
		for _, m := range list(b, r, "messages") {
			t.ids = append(t.ids, text(m, "id"))
		}
	}
	require.NotEmpty(b, t.ids)
}

func (t *tierBench) rangedGets(b *testing.B, n int) (p50, p99 time.Duration) {
	b.Helper()
	const block = 16 << 10 // about what a block of 64 KiB is stored in
	core := minio.Core{Client: t.place.client(b)}
	rng := rand.New(rand.NewPCG(1, 2))
	var large []minio.ObjectInfo
	for o := range core.Client.ListObjects(b.Context(), t.place.bucket,
		minio.ListObjectsOptions{Recursive: true}) {
		require.NoError(b, o.Err)
		if o.Size > block && strings.HasSuffix(o.Key, ".seg") {
			large = append(large, o)
		}
	}
	var times []time.Duration
	for range n {
		o := large[rng.IntN(len(large))]
		from := rng.Int64N(o.Size - block)
		opts := minio.GetObjectOptions{}
		require.NoError(b, opts.SetRange(from, from+block-1))
		began := time.Now()
		body, _, _, err := core.GetObject(b.Context(), t.place.bucket, o.Key, opts)
		require.NoError(b, err)
		_, err = io.Copy(io.Discard, body)
		require.NoError(b, err)
		times = append(times, time.Since(began))
		body.Close()
	}
	return quantiles(times)
}

// restore: from an empty data directory to ready.
func (t *tierBench) restore(b *testing.B) {
	t.d.t = b
	for range b.N {
		t.d.kill()
		require.NoError(b, os.RemoveAll(t.d.data))
		began := time.Now()
		t.d.start()
		b.ReportMetric(time.Since(began).Seconds(), "s-to-ready")
		b.ReportMetric(float64(t.d.books()["pending"]), "pending")
		require.EqualValues(b, t.n, t.d.books()["pending"])
		b.ReportMetric(0, "ns/op")
	}
}

// hydrate: the whole day from the bucket into the local store, beside a loop that gets as many
// bytes, decodes them and ingests them into Pebble in order.
func (t *tierBench) hydrate(b *testing.B) {
	t.d.t = b
	for range b.N {
		t.d.kill()
		began := time.Now()
		t.d.start("--local-horizon", "72h")
		ready := time.Since(began)
		for deadline := time.Now().Add(10 * time.Minute); ; time.Sleep(pollEvery) {
			tiers := sub(b, t.d.call("GET", "/v1/status", nil).ok(b), "tiers")
			if num(b, sub(b, tiers, "cold"), "messages") == 0 {
				break
			}
			require.True(b, time.Now().Before(deadline), "not hydrated: %v", tiers)
		}
		took := time.Since(began) - ready
		plain := t.plainHydrate(b)
		b.ReportMetric(took.Seconds(), "s")
		b.ReportMetric(plain.Seconds(), "plain-s")
		b.ReportMetric(100*plain.Seconds()/took.Seconds(), "%-of-plain")
		b.ReportMetric(float64(t.n)/took.Seconds(), "messages/s")
		b.ReportMetric(t.d.tierRequests(b)*1000/float64(t.n), "requests/1000")
		b.ReportMetric(0, "ns/op")
	}
	t.d.kill()
}

// tierRequests is how many requests the daemon's tier has made since its start.
func (d *daemon) tierRequests(b *testing.B) (sum float64) {
	b.Helper()
	for line := range strings.Lines(string(d.call("GET", "/metrics", nil).body)) {
		if rest, ok := strings.CutPrefix(line, "cicada_tier_requests_total{"); ok {
			_, value, _ := strings.Cut(rest, "} ")
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			require.NoError(b, err)
			sum += n
		}
	}
	return sum
}

// plainHydrate writes objects of 8 MiB that hold records of the same size, compressed in blocks of
// 64 KiB, and measures the loop that reads them back.
func (t *tierBench) plainHydrate(b *testing.B) time.Duration {
	b.Helper()
	const record, object = 8 + 8 + 2 + benchBody + 40, 8 << 20 // a key, a length, a body and a head
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	require.NoError(b, err)
	rng := rand.New(rand.NewPCG(3, 4))
	var bodies [][]byte
	var body, raw []byte
	for i := range t.n {
		raw = binary.BigEndian.AppendUint64(raw, uint64(i))
		for len(raw)%record != 0 {
			raw = append(raw, "0123456789abcdef"[rng.IntN(16)])
		}
		if len(raw) > 64<<10-record || i == t.n-1 {
			block := enc.EncodeAll(raw, nil)
			body = append(binary.BigEndian.AppendUint32(body, uint32(len(block))), block...)
			raw = raw[:0]
		}
		if len(body) > object || i == t.n-1 {
			bodies = append(bodies, body)
			body = nil
		}
	}
	t.place.putAll(b, "plain-day/", bodies)
	db, err := pebble.Open(filepath.Join(b.TempDir(), "db"), &pebble.Options{
		MemTableSize: 32 << 20, FormatMajorVersion: pebble.FormatNewest, Logger: quietLogger{},
	})
	require.NoError(b, err)
	defer db.Close()
	dec, err := zstd.NewReader(nil)
	require.NoError(b, err)
	defer dec.Close()
	c := t.place.client(b)
	began := time.Now()
	for i := range bodies {
		o, err := c.GetObject(b.Context(), t.place.bucket, fmt.Sprintf("plain-day/%06d", i),
			minio.GetObjectOptions{})
		require.NoError(b, err)
		body, err := io.ReadAll(o)
		require.NoError(b, err)
		batch := db.NewBatch()
		for len(body) > 0 {
			n := binary.BigEndian.Uint32(body)
			raw, err = dec.DecodeAll(body[4:4+n], raw[:0])
			require.NoError(b, err)
			body = body[4+n:]
			for at := 0; at < len(raw); at += record {
				require.NoError(b, batch.Set(raw[at:at+16], raw[at+16:at+record], nil))
			}
		}
		require.NoError(b, batch.Commit(pebble.Sync))
	}
	return time.Since(began)
}

type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// jsonLike is a body as shops send them.
func jsonLike(rng *rand.Rand, i int) string {
	return fmt.Sprintf(`{"order_id":"%d","customer":"c-%06d","state":"%s","total":"%d.%02d","currency":`+
		`"EUR","items":[{"sku":"SKU-%05d","quantity":%d}],"created_at":"2026-11-%02dT%02d:%02d:%02dZ"}`,
		1_000_000+i, rng.IntN(1e6), []string{"waiting", "paid", "reminded"}[rng.IntN(3)], rng.IntN(500),
		rng.IntN(100), rng.IntN(1e5), 1+rng.IntN(5), 1+rng.IntN(28), rng.IntN(24), rng.IntN(60),
		rng.IntN(60))
}

// jsonBytes: bytes in the bucket for each byte of a JSON-like body.
func (t *tierBench) jsonBytes(b *testing.B) {
	for range b.N {
		p := t.place.store.bucket()
		d := serve(b, "--bucket", p.url(), "--tier-flush-interval", "2s", "--tier-min-wait", "1s")
		rng := rand.New(rand.NewPCG(5, 6))
		const n = 50_000
		sent := 0
		var batch []obj
		for i := range n {
			body := jsonLike(rng, i)
			sent += len(body)
			batch = append(batch, obj{
				"target": "pull:orders", "delay": 7_200_000 + rng.IntN(86_400_000*30), "body": body,
			})
			if len(batch) == 5000 {
				d.call("POST", "/v1/messages", obj{"messages": batch}).ok(b)
				batch = batch[:0]
			}
		}
		stored := uploaded(b, d, n)
		b.ReportMetric(float64(stored)/float64(sent), "stored/body-byte")
		b.ReportMetric(float64(sent)/n, "body-bytes")
		b.ReportMetric(0, "ns/op")
		d.kill()
	}
}

// requests: how many it takes for 1,000 messages over their whole life, at 500 messages a second.
// Shortened: messages wait for 25 to 35 s, and are uploaded if they wait for more than 5 s, so that
// their life ends within the run; flush interval and horizon are the defaults. What reading them
// back takes is with the figures of hydrate.
func (t *tierBench) requests(b *testing.B) {
	for range b.N {
		length := 30 * time.Second
		if v := os.Getenv("CICADA_BENCH_REQUESTS_FOR"); v != "" {
			var err error
			length, err = time.ParseDuration(v)
			require.NoError(b, err)
		}
		net := proxyTo(b, t.place.endpoint, 1)
		d := serve(b, "--bucket", t.place.store.bucket().through(net.URL()).url(),
			"--tier-min-wait", "5s")
		start := net.Counts()
		ctx, cancel := context.WithCancel(b.Context())
		defer cancel()
		n := 0
		rng := rand.New(rand.NewPCG(7, 8))
		tick := time.NewTicker(100 * time.Millisecond)
		for deadline := time.Now().Add(length); time.Now().Before(deadline) && ctx.Err() == nil; <-tick.C {
			var batch []obj
			for range 50 {
				batch = append(batch, obj{
					"target": "pull:q", "delay": 25_000 + rng.IntN(10_000), "body": jsonLike(rng, n),
				})
				n++
			}
			d.call("POST", "/v1/messages", obj{"messages": batch}).ok(b)
		}
		tick.Stop()
		for got := 0; got < n; {
			batch := d.pull("q", obj{"wait": "40s", "max": 1000})
			require.NotEmpty(b, batch, "%d of %d", got, n)
			var receipts []string
			for _, m := range batch {
				receipts = append(receipts, text(m, "receipt"))
			}
			d.ack("q", receipts...)
			got += len(batch)
		}
		sum := 0
		for method, count := range net.Counts() {
			sum += count - start[method]
			b.ReportMetric(float64(count-start[method])*1000/float64(n), method+"/1000")
		}
		b.ReportMetric(float64(sum)*1000/float64(n), "requests/1000")
		b.ReportMetric(0, "ns/op")
		d.kill()
	}
}
