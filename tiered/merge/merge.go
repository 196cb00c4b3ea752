// SPDX-License-Identifier: Apache-2.0

// Package merge gives the items of several segments in the order of their keys, and reads ahead.
package merge

import (
	"context"
	"slices"
	"sync"

	"github.com/cicadamq/cicada/delay"
	"github.com/cicadamq/cicada/tiered/manifest"
	"github.com/cicadamq/cicada/tiered/segment"
)

const (
	// spanBytes is how much one read of a scan fetches at most.
	spanBytes = 1 << 20
	// minSpanBytes is the least one read fetches, even when there are very many segments.
	minSpanBytes = 64 << 10
	// checkItems is how many items may pass between two looks at ctx.
	checkItems = 256
	// readers is how many reads are under way at once.
	readers = 8
)

// Pages reads segments. It is used from several goroutines.
type Pages interface {
	// Index gives the index of a segment.
	Index(ctx context.Context, info *manifest.SegmentInfo) (*segment.Index, error)
	// Span reads the stored bytes of some blocks.
	Span(ctx context.Context, info *manifest.SegmentInfo, span segment.Span) ([]byte, error)
	// Block decodes the stored bytes of block i, or reads them again when they are spoilt. scratch
	// may be used for the result.
	Block(ctx context.Context, info *manifest.SegmentInfo, x *segment.Index, i int,
		stored, scratch []byte) ([]byte, error)
}

// merge gives the items of several segments in key order, each key once (T6): of equal keys the one
// of the segment that comes last in the list. Readers fetch ahead: the next span of every segment
// that is open, and the first of the next few.
type merge struct {
	pages        Pages
	ctx          context.Context
	lower, upper delay.Key
	span         int64

	sources []*source // by the key they may begin with
	opened  int       // sources before this one are open or done
	asked   int       // sources before this one have been asked for
	heap    []*source // open, the least item first
	work    chan *source
}

// source is one segment of a merge.
type source struct {
	info  *manifest.SegmentInfo
	rank  int // place in the manifest's list: newer is higher
	start delay.Key

	// Of the reader that has the source, until it sends to ready; of the merge afterwards.
	x     *segment.Index
	spans []segment.Span
	next  int // the span to read

	ready   chan loaded
	now     loaded
	block   int
	scratch []byte
	it      segment.Iter
	item    segment.Item
}

// loaded is a span that was read.
type loaded struct {
	span segment.Span
	data []byte
	last bool // no span follows
	err  error
}

// Scan calls fn for the items of list with a key in [lower, upper), in key order, each key once: of
// equal keys the item of the segment that comes last in list. It ends when fn returns false. The
// item is valid until fn returns. Reads go on while fn runs, and hold about budget bytes in all.
func Scan(
	ctx context.Context, pages Pages, budget int64, list []manifest.SegmentInfo,
	lower, upper delay.Key, fn func(*segment.Item) bool,
) error {
	m := merge{pages: pages, lower: lower, upper: upper}
	for i := range list {
		info := &list[i]
		if lower.Less(upper) && info.Overlaps(lower, upper) {
			start := lower
			if start.Less(info.First) {
				start = info.First
			}
			m.sources = append(m.sources, &source{
				info: info, rank: i, start: start, ready: make(chan loaded, 1),
			})
		}
	}
	n := len(m.sources)
	if n == 0 {
		return ctx.Err()
	}
	slices.SortStableFunc(m.sources, func(a, b *source) int { return a.start.Compare(b.start) })
	m.span = max(minSpanBytes, min(spanBytes, budget/int64(2*n)))
	m.work = make(chan *source, n) // a source is in it at most once
	ctx, cancel := context.WithCancel(ctx)
	m.ctx = ctx
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for range min(readers, n) {
		wg.Go(m.read)
	}
	return m.run(fn)
}

// read serves sources until the merge ends.
func (m *merge) read() {
	for {
		select {
		case s := <-m.work:
			s.ready <- m.load(s)
		case <-m.ctx.Done():
			return
		}
	}
}

// load reads the next span of s, and its index first.
func (m *merge) load(s *source) loaded {
	if s.x == nil {
		x, err := m.pages.Index(m.ctx, s.info)
		if err != nil {
			return loaded{err: err}
		}
		from, to := x.Find(m.lower, m.upper)
		s.x, s.spans = x, x.Spans(from, to, m.span)
	}
	if s.next >= len(s.spans) {
		return loaded{last: true}
	}
	span := s.spans[s.next]
	s.next++
	l := loaded{span: span, last: s.next == len(s.spans)}
	l.data, l.err = m.pages.Span(m.ctx, s.info, span)
	return l
}

func (m *merge) run(fn func(*segment.Item) bool) error {
	var last delay.Key
	given := false
	for n := 0; ; n++ {
		if n%checkItems == 0 && m.ctx.Err() != nil {
			return context.Cause(m.ctx)
		}
		if err := m.open(); err != nil {
			return err
		}
		if len(m.heap) == 0 {
			return nil
		}
		s := m.heap[0]
		if !given || s.item.Key != last {
			given, last = true, s.item.Key
			if !fn(&s.item) {
				return nil
			}
		}
		more, err := m.advance(s)
		if err != nil {
			return err
		}
		if !more {
			end := len(m.heap) - 1
			m.heap[0] = m.heap[end]
			m.heap = m.heap[:end]
		}
		m.sink(0)
	}
}

// open opens every source that may hold the next key.
func (m *merge) open() error {
	for m.opened < len(m.sources) {
		s := m.sources[m.opened]
		if len(m.heap) > 0 && m.heap[0].item.Key.Less(s.start) {
			return nil
		}
		for m.asked < min(m.opened+readers, len(m.sources)) {
			m.work <- m.sources[m.asked]
			m.asked++
		}
		m.opened++
		more, err := m.fetched(s)
		if err == nil && more {
			more, err = m.advance(s)
		}
		if err != nil {
			return err
		}
		if more {
			m.heap = append(m.heap, s)
			m.lift(len(m.heap) - 1)
		}
	}
	return nil
}

// fetched waits for the span that was asked for and asks for the next one. False: none came.
func (m *merge) fetched(s *source) (bool, error) {
	select {
	case s.now = <-s.ready:
	case <-m.ctx.Done():
		return false, context.Cause(m.ctx)
	}
	if s.now.err != nil || s.now.data == nil {
		return false, s.now.err
	}
	if !s.now.last {
		m.work <- s
	}
	s.block = s.now.span.From - 1
	s.it = segment.Iter{}
	return true, nil
}

// advance moves s to its next item within the bounds. False: it has no more.
func (m *merge) advance(s *source) (bool, error) {
	for {
		item, ok := s.it.Next()
		if !ok {
			if more, err := m.nextBlock(s); err != nil || !more {
				return false, err
			}
			continue
		}
		if item.Key.Less(m.lower) {
			continue
		}
		s.item = item
		return item.Key.Less(m.upper), nil
	}
}

// nextBlock decodes the block after the current one.
func (m *merge) nextBlock(s *source) (bool, error) {
	if err := s.it.Err(); err != nil {
		return false, err
	}
	if s.block++; s.block >= s.now.span.To {
		if s.now.last {
			return false, nil
		}
		if more, err := m.fetched(s); err != nil || !more {
			return false, err
		}
		s.block++
	}
	x := s.x
	raw, err := m.pages.Block(m.ctx, s.info, x, s.block, x.In(s.now.span, s.now.data, s.block),
		s.scratch)
	if err != nil {
		return false, err
	}
	if len(raw) != int(x.Blocks[s.block].Stored) {
		s.scratch = raw
	}
	s.it = x.Items(s.block, raw)
	return true, nil
}

// before orders the heap: by key, and of equal keys the newest segment first.
func (m *merge) before(i, j int) bool {
	a, b := m.heap[i], m.heap[j]
	if a.item.Key != b.item.Key {
		return a.item.Key.Less(b.item.Key)
	}
	return a.rank > b.rank
}

func (m *merge) lift(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !m.before(i, parent) {
			return
		}
		m.heap[i], m.heap[parent] = m.heap[parent], m.heap[i]
		i = parent
	}
}

func (m *merge) sink(i int) {
	for {
		least := 2*i + 1
		if least >= len(m.heap) {
			return
		}
		if r := least + 1; r < len(m.heap) && m.before(r, least) {
			least = r
		}
		if !m.before(least, i) {
			return
		}
		m.heap[i], m.heap[least] = m.heap[least], m.heap[i]
		i = least
	}
}
