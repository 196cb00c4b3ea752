// SPDX-License-Identifier: Apache-2.0

package segment

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/codec"
)

var update = flag.Bool("update", false, "rewrite the golden files")

var zstd = codec.NewZstd()

// message is the i-th test message: JSON-like, of about size bytes, every third with an id.
func message(rng *rand.Rand, i, size int) []byte {
	m := delay.Message{
		Target: "pull:orders", Due: delay.Due(1_800_000_000_000 + i), AcceptedAt: 1_790_000_000_000,
		Body: fmt.Appendf(nil, `{"order":%d,"customer":"%08x","state":"waiting"`, i, rng.Uint32()),
	}
	for len(m.Body) < size {
		m.Body = fmt.Appendf(m.Body, `,"item-%d":%d`, len(m.Body), rng.Uint32N(10000))
	}
	if i%3 == 0 {
		m.ID = delay.ID(fmt.Sprintf("client-%06d", (i*7919)%1000000))
	}
	return delay.AppendRecord(nil, &m)
}

// messages makes n items whose keys span days, in order, some at one instant.
func messages(seed uint64, n, size int) []delay.Kept {
	rng := rand.New(rand.NewPCG(seed, seed))
	items := make([]delay.Kept, n)
	due := delay.Due(1_800_000_000_000)
	for i := range items {
		due += delay.Due(rng.Uint32N(3)) * delay.Due(rng.Uint32N(200_000))
		items[i] = delay.Kept{
			Key:    delay.Key{Due: due, Seq: delay.MakeSeq(3, uint64(i)*1000+uint64(rng.Uint32N(1000)))},
			Record: message(rng, i, size),
			Progress: delay.Progress{
				State: delay.Claimed, Attempts: rng.Uint32N(9), NextAt: due + 10,
				LastError: "status 503", Reason: "refused",
			},
		}
	}
	return items
}

func write(t testing.TB, items []delay.Kept, kept bool) ([]byte, *Index) {
	t.Helper()
	w := NewWriter(zstd)
	return writeWith(t, w, items, kept)
}

func writeWith(t testing.TB, w *Writer, items []delay.Kept, kept bool) ([]byte, *Index) {
	t.Helper()
	w.Reset(Meta{Cluster: 0x1122334455667788, Shard: 7, Epoch: 3, ID: [16]byte{1, 2, 3}, Kept: kept})
	for i := range items {
		if kept {
			require.NoError(t, w.AddKept(&items[i]))
		} else {
			require.NoError(t, w.Add(items[i].Key, items[i].Record))
		}
	}
	body, x, err := w.Finish()
	require.NoError(t, err)
	return body, x
}

func open(t testing.TB, body []byte) *Reader {
	t.Helper()
	r, err := Open(context.Background(), zstd, sliceReader(body), int64(len(body)), 0)
	require.NoError(t, err)
	return r
}

// What is written must be read back, by whole and partial scans, by key and by id; sizes from one
// item to many blocks, with and without progress. Cites G1, G4.
func TestRoundTrip(t *testing.T) {
	for _, c := range []struct{ n, size int }{{1, 10}, {2, 70_000}, {3000, 200}, {10, 300_000}} {
		for _, kept := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d of %d kept %v", c.n, c.size, kept), func(t *testing.T) {
				items := messages(uint64(c.n), c.n, c.size)
				body, x := write(t, items, kept)
				got, err := Verify(t.Context(), zstd, body)
				require.NoError(t, err)
				require.Equal(t, x, got)
				require.Equal(t, kept, x.Kept)
				require.EqualValues(t, 7, x.Shard)
				require.EqualValues(t, c.n, x.Count)
				checkScan(t, body, items, kept)
				checkIDs(t, body, items)
			})
		}
	}
}

func checkScan(t *testing.T, body []byte, items []delay.Kept, kept bool) {
	r := open(t, body)
	rng := rand.New(rand.NewPCG(5, 5))
	for range 50 {
		from, to := rng.IntN(len(items)), rng.IntN(len(items)+1)
		lower, upper := items[from].Key, delay.MaxKey
		if to < len(items) {
			upper = items[to].Key
		}
		i := from
		require.NoError(t, r.Scan(t.Context(), lower, upper, func(it Item) bool {
			require.Equal(t, items[i].Key, it.Key)
			require.True(t, bytes.Equal(items[i].Record, it.Record))
			if kept {
				k, err := it.Kept()
				require.NoError(t, err)
				require.Equal(t, items[i].Progress, k.Progress)
			}
			i++
			return true
		}))
		require.Equal(t, max(from, to), i)
	}
	for i := range items {
		if i%17 != 0 {
			continue
		}
		it, ok, err := r.Get(t.Context(), items[i].Key)
		require.NoError(t, err)
		require.True(t, ok)
		require.True(t, bytes.Equal(items[i].Record, it.Record))
		_, ok, err = r.Get(t.Context(), items[i].Key.Next())
		require.NoError(t, err)
		require.False(t, ok)
	}
}

func checkIDs(t *testing.T, body []byte, items []delay.Kept) {
	r := open(t, body)
	want := make(map[string]delay.Identity)
	for i := range items {
		m, err := delay.DecodeRecord(items[i].Record)
		require.NoError(t, err)
		if m.ID != "" {
			want[string(m.ID)] = delay.IdentityOf(items[i].Key, &m)
		}
	}
	last := ""
	got := make(map[string]delay.Identity)
	require.NoError(t, r.IDs(t.Context(), func(id string, ident delay.Identity) bool {
		require.LessOrEqual(t, last, id)
		last = id
		got[id] = ident
		return true
	}))
	require.Equal(t, want, got)
	false1 := 0
	for id, ident := range want {
		found, ok, err := r.FindID(t.Context(), id)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, ident, found)
		if r.Index().MayHaveID("no-" + id) {
			false1++
		}
	}
	require.LessOrEqual(t, false1, 2+len(want)/25, "the filter passes too much")
}

// The same id twice (a message and its replacement) must give the newer one.
func TestFindIDNewest(t *testing.T) {
	m := delay.Message{ID: "twice", Target: "log:", Due: 10, AcceptedAt: 1}
	items := []delay.Kept{
		{Key: delay.Key{Due: 10, Seq: 9}, Record: delay.AppendRecord(nil, &m)},
		{Key: delay.Key{Due: 20, Seq: 5}, Record: delay.AppendRecord(nil, &m)},
	}
	body, _ := write(t, items, false)
	ident, ok, err := open(t, body).FindID(t.Context(), "twice")
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, items[0].Key, ident.Key)
}

// The directory must add up and its blocks must hold the day, also where days share a block.
func TestDirectory(t *testing.T) {
	items := messages(9, 5000, 100)
	_, x := write(t, items, false)
	require.Greater(t, len(x.Days), 3)
	counts := make(map[int64]int64)
	for i := range items {
		counts[int64(items[i].Key.Due)/DayMillis]++
	}
	for _, d := range x.Days {
		require.Equal(t, counts[d.Day], d.Count)
		from, to := x.Find(delay.Key{Due: delay.Due(d.Day * DayMillis)},
			delay.Key{Due: delay.Due((d.Day + 1) * DayMillis)})
		require.LessOrEqual(t, from, d.First)
		require.Equal(t, d.Last+1, to)
	}
}

// A writer reused for the next segment must not carry anything over (G5).
func TestWriterReuse(t *testing.T) {
	w := NewWriter(zstd)
	items := messages(1, 2000, 150)
	first, _ := writeWith(t, w, items, false)
	first = slices.Clone(first)
	writeWith(t, w, messages(2, 700, 400), true)
	again, _ := writeWith(t, w, items, false)
	require.True(t, bytes.Equal(first, again))
}

// What cannot be stored must be refused when it is added, not found when it is read.
func TestWriterRefuses(t *testing.T) {
	w := NewWriter(zstd)
	w.Reset(Meta{})
	_, _, err := w.Finish()
	require.ErrorIs(t, err, delay.ErrInvalid)
	items := messages(1, 2, 100)
	w.Reset(Meta{})
	require.NoError(t, w.Add(items[1].Key, items[1].Record))
	require.ErrorIs(t, w.Add(items[1].Key, items[1].Record), delay.ErrInvalid)
	require.ErrorIs(t, w.Add(items[0].Key, items[0].Record), delay.ErrInvalid)
	require.ErrorIs(t, w.Add(delay.MaxKey, []byte("no record")), delay.ErrCorrupt)
	big := append(bytes.Clone(items[0].Record), make([]byte, MaxBlockBytes)...)
	require.ErrorIs(t, w.Add(delay.MaxKey, big), delay.ErrInvalid)
}

// Any flipped bit must be found by Verify, wherever it is (G2): in blocks, index, header, padding.
func TestEveryBitCounts(t *testing.T) {
	for _, kept := range []bool{false, true} {
		body, _ := write(t, messages(4, 8, 40), kept)
		for i := range body {
			for bit := range 8 {
				body[i] ^= 1 << bit
				_, err := Verify(t.Context(), zstd, body)
				require.ErrorIs(t, err, delay.ErrCorrupt, "byte %d bit %d of %d", i, bit, len(body))
				body[i] ^= 1 << bit
			}
		}
		_, err := Verify(t.Context(), zstd, body)
		require.NoError(t, err)
	}
}

// A reader of one block must find a flipped bit without reading anything else, and a cut object
// must be refused at any length.
func TestReadFindsDamage(t *testing.T) {
	items := messages(4, 3000, 200)
	body, x := write(t, items, false)
	for i := range x.Blocks {
		b := x.Blocks[i]
		bad := slices.Clone(body)
		bad[b.Offset+int64(b.Stored)/2] ^= 1
		err := open(t, bad).Scan(t.Context(), b.First, b.First.Next(), func(Item) bool { return true })
		require.ErrorIs(t, err, delay.ErrCorrupt)
		require.ErrorContains(t, err, fmt.Sprintf("block %d of %d", i, len(x.Blocks)))
	}
	for _, n := range []int{0, 1, FooterSize - 1, FooterSize, len(body) / 2, len(body) - 1} {
		_, err := Open(t.Context(), zstd, sliceReader(body[:n]), int64(n), 0)
		require.ErrorIs(t, err, delay.ErrCorrupt)
	}
}

// A tail larger than the first guess, and a known place of the tail, must both work.
func TestOpenTail(t *testing.T) {
	var items []delay.Kept
	for i := range 60_000 {
		m := delay.Message{ID: delay.ID(fmt.Sprintf("id-%d", i)), Target: "log:", Due: 10}
		items = append(items, delay.Kept{Key: delay.Key{Due: 10, Seq: delay.Seq(i + 1)},
			Record: delay.AppendRecord(nil, &m)})
	}
	body, x := write(t, items, false)
	require.Greater(t, x.Size-x.TailOffset, int64(tailGuess))
	reads := 0
	read := func(ctx context.Context, offset, length int64) ([]byte, error) {
		reads++
		return sliceReader(body)(ctx, offset, length)
	}
	got, err := ReadIndex(t.Context(), read, x.Size, 0)
	require.NoError(t, err)
	require.Equal(t, x, got)
	require.Equal(t, 2, reads)
	got, err = ReadIndex(t.Context(), read, x.Size, x.TailOffset)
	require.NoError(t, err)
	require.Equal(t, x, got)
	require.Equal(t, 3, reads)
}

// The bytes on disk must stay readable by later versions; -update writes them anew after a change
// of the format or of the zstd library.
func TestGolden(t *testing.T) {
	items := messages(11, 120, 80)
	for _, kept := range []bool{false, true} {
		body, _ := write(t, items, kept)
		golden(t, fmt.Sprintf("kept-%v.seg", kept), body)
		stored := readGolden(t, fmt.Sprintf("kept-%v.seg", kept))
		_, err := Verify(t.Context(), zstd, stored)
		require.NoError(t, err)
		checkScan(t, stored, items, kept)
		checkIDs(t, stored, items)
	}
	marks := testMarks(100)
	body, _, err := EncodeMarks(zstd, Meta{Cluster: 5, Shard: 1, Epoch: 2, ID: [16]byte{9}}, marks)
	require.NoError(t, err)
	golden(t, "marks.mrk", body)
	var got []delay.Mark
	_, err = DecodeMarks(zstd, readGolden(t, "marks.mrk"), func(m delay.Mark) bool {
		got = append(got, m)
		return true
	})
	require.NoError(t, err)
	require.Equal(t, marks, got)
}

func golden(t *testing.T, name string, body []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, body, 0o644))
	}
	require.True(t, bytes.Equal(readGolden(t, name), body), "%s: the format changed", name)
}

func readGolden(t *testing.T, name string) []byte {
	t.Helper()
	body, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return body
}

func testMarks(n int) []delay.Mark {
	marks := []delay.Mark{{State: delay.Delivered, At: 77, ID: "alone", Attempts: 1}}
	for i := range n {
		m := delay.Mark{
			Key: delay.Key{Due: delay.Due(1000 + i/3), Seq: delay.Seq(i + 1)}, At: delay.Due(i),
			State: delay.State(i) % (delay.Dead + 1),
		}
		if m.State == delay.Scheduled {
			m.Forward = delay.Key{Due: 5000, Seq: delay.Seq(i + 1000)}
		}
		if i%4 == 0 {
			m.ID, m.Attempts = fmt.Sprintf("mark-%d", i), uint32(i)
			m.Identity = delay.Identity{Key: m.Key, Generation: 2, Digest: 99, Given: 1}
		}
		marks = append(marks, m)
	}
	return marks
}

// Marks must come back in order with what the manifest wants to know of them, and every flipped bit
// must be found.
func TestMarks(t *testing.T) {
	marks := testMarks(5000)
	meta := Meta{Cluster: 5, Shard: 1, Epoch: 2, ID: [16]byte{9}}
	body, info, err := EncodeMarks(zstd, meta, marks)
	require.NoError(t, err)
	require.EqualValues(t, 1000, info.First.Due)
	require.EqualValues(t, 5000, info.MaxSeq)
	require.EqualValues(t, 1251, info.IDs)
	require.EqualValues(t, 4996, info.LastID)
	var got []delay.Mark
	decoded, err := DecodeMarks(zstd, body, func(m delay.Mark) bool {
		got = append(got, m)
		return true
	})
	require.NoError(t, err)
	require.Equal(t, info, decoded)
	require.Equal(t, marks, got)
	n := 0
	_, err = DecodeMarks(zstd, body, func(delay.Mark) bool { n++; return n < 10 })
	require.NoError(t, err)
	require.Equal(t, 10, n)
	_, _, err = EncodeMarks(zstd, meta, []delay.Mark{marks[9], marks[3]})
	require.ErrorIs(t, err, delay.ErrInvalid)

	body, _, err = EncodeMarks(zstd, meta, testMarks(20))
	require.NoError(t, err)
	for i := range body {
		for bit := range 8 {
			body[i] ^= 1 << bit
			_, err := DecodeMarks(zstd, body, func(delay.Mark) bool { return true })
			require.ErrorIs(t, err, delay.ErrCorrupt, "byte %d bit %d", i, bit)
			body[i] ^= 1 << bit
		}
	}
}

// fixFooter makes the checksum of the footer right again, so that fuzzing gets past it.
func fixFooter(body []byte) {
	if len(body) < FooterSize {
		return
	}
	foot := body[len(body)-FooterSize:]
	copy(foot[FooterSize-8:], tailMagic)
	sum := codec.CRC(foot[:FooterSize-12])
	for i := range 4 {
		foot[FooterSize-12+i] = byte(sum >> (24 - 8*i))
	}
}

// No input may make a reader panic, hang or allocate without bound; what it accepts must scan.
func FuzzSegment(f *testing.F) {
	for _, kept := range []bool{false, true} {
		body, _ := write(f, messages(3, 30, 50), kept)
		f.Add(body)
		f.Add(body[len(body)-FooterSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		fixFooter(body)
		_, _ = Verify(t.Context(), zstd, body)
		x, err := ReadIndex(t.Context(), sliceReader(body), int64(len(body)), 0)
		if err != nil {
			return
		}
		r := NewReader(zstd, x, sliceReader(body))
		_ = r.Scan(t.Context(), delay.Key{}, delay.MaxKey, func(it Item) bool {
			_, _ = it.Kept()
			return true
		})
		_, _, _ = r.FindID(t.Context(), "client-000001")
	})
}

// The blocks' content is behind a checksum that a fuzzer cannot guess: feed it directly.
func FuzzBlock(f *testing.F) {
	body, x := write(f, messages(3, 30, 50), true)
	raw, err := x.Decode(zstd, 0, x.In(x.Spans(0, 1, 0)[0], body[HeaderSize:], 0), nil)
	require.NoError(f, err)
	f.Add(raw, uint32(30), true)
	f.Fuzz(func(t *testing.T, raw []byte, count uint32, kept bool) {
		x := Index{Footer: Footer{Meta: Meta{Kept: kept}}, Blocks: []Block{{Count: count}}}
		it := x.Items(0, raw)
		n := 0
		for item, ok := it.Next(); ok; item, ok = it.Next() {
			_, _ = item.Kept()
			n++
		}
		require.LessOrEqual(t, n, len(raw)+1)
		_ = it.Err()
		_, _ = walkIDs(raw, count, func(string, delay.Identity) bool { return true })
		_, _ = parseIndex(raw, &Footer{IDsOffset: 1 << 20, Count: 30})
		_, _ = parseDirectory(raw, &Footer{Count: 30}, 10)
		_, _ = parseIDIndex(raw, &Footer{TailOffset: 1 << 20, IDs: 30})
	})
}

func FuzzMarks(f *testing.F) {
	body, _, err := EncodeMarks(zstd, Meta{}, testMarks(30))
	require.NoError(f, err)
	f.Add(body)
	f.Fuzz(func(t *testing.T, body []byte) {
		if end := len(body) - MarksFooterSize; end > 0 {
			sum := codec.CRC(body[:end])
			for i := range 4 {
				body[end+i] = byte(sum >> (24 - 8*i))
			}
		}
		_, _ = DecodeMarks(zstd, body, func(delay.Mark) bool { return true })
	})
}

func BenchmarkWrite(b *testing.B) {
	items := messages(1, 40_000, 200)
	for i := range items { // without ids: the common case
		m, err := delay.DecodeRecord(items[i].Record)
		require.NoError(b, err)
		m.ID = ""
		items[i].Record = delay.AppendRecord(nil, &m)
	}
	w := NewWriter(zstd)
	_, x := writeWith(b, w, items, false)
	b.SetBytes(x.RawBytes)
	b.ReportMetric(float64(x.RawBytes)/float64(x.Size), "ratio")
	b.ReportAllocs()
	for b.Loop() {
		writeWith(b, w, items, false)
	}
}

func BenchmarkScan(b *testing.B) {
	body, x := write(b, messages(1, 40_000, 200), false)
	r := NewReader(zstd, x, sliceReader(body))
	b.SetBytes(x.RawBytes)
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		require.NoError(b, r.Scan(b.Context(), delay.Key{}, delay.MaxKey, func(Item) bool {
			n++
			return true
		}))
		require.Equal(b, 40_000, n)
	}
}
