// SPDX-License-Identifier: Apache-2.0

// Package crowd knows how full the seconds to come are of targets that have a limit: how many
// messages are due in a second, and whether the limit lets one more through. It advises; what is
// accepted all the same waits in its lane.
//
//	Accept --Load--> a count for each second asked for <--rows of the local store
//	                    ^    |         |
//	  committer --Add, Drop  Room?     Search: a later second with room
//
// A limit of less than one a second has windows of several seconds, of one message each.
//
// # Invariants
//
//	Q1  What goes to a target without a limit is looked up in one map, and in none while no target
//	    has a limit.
//	Q2  Bounded: maxCounts counts are kept, and one request reads about scanRows rows. What does not
//	    fit is not known, and what is not known has room.
//	Q3  A count holds the rows up to the seq at which it began, as read, and those above as the
//	    committer stores them: no row is in it twice, however the two race.
//
// # Concurrency
//
// A Book is safe for concurrent use. No lock is held while rows are read; who needs a count that is
// being read waits for it.
//
// # Failure
//
// Nothing is stored: after a crash the counts begin again with the rows. A row that another batch
// than that of a request was writing while the count began may be missing from it, and so are
// messages that only the bucket holds.
package crowd

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cicadamq/cicada/delay"
)

// Bounds (Q2).
const (
	maxCounts = 1 << 16
	scanRows  = 20_000
	seekRows  = 10 // what a seek costs, in rows
	// LookAhead is how many windows after a full one are searched for room.
	LookAhead = 60
)

// Config is what a Book looks at. All fields must be set.
type Config struct {
	Now      func() delay.Due // asked for limited targets alone: the look costs as much as a message
	Last     func() delay.Seq // the highest seq handed out
	Boundary func() delay.Key // from it on rows may be missing (rule R1)
	Rows     func(from, to delay.Key, fn func(key delay.Key, record []byte) bool) error
	Limits   []delay.TargetLimit // in force
}

// Book counts what is due in the seconds of limited targets. The nil *Book knows of no limit.
type Book struct {
	c      Config
	limits atomic.Pointer[map[delay.Target]window] // never nil, never changed

	mu     sync.Mutex
	counts map[place]*count
}

// window is the span in which a limit lets a number of messages through.
type window struct {
	ms   delay.Due
	most int64
}

// windowOf is the shortest span of whole seconds with room for a message.
func windowOf(l delay.Limit) window {
	const hour = 3600
	seconds := int64(1)
	if l.PerHour < hour {
		seconds = (hour + int64(l.PerHour) - 1) / int64(l.PerHour)
	}
	return window{delay.Due(seconds * 1000), int64(l.PerHour) * seconds / hour}
}

// place is a window of a target: that which begins at number spans.
type place struct {
	target delay.Target
	number delay.Due
}

// count is what is known of a place.
type count struct {
	n      int64
	since  delay.Seq     // rows up to it are read, those above are told (Q3)
	whole  bool          // every row was local
	loaded chan struct{} // closed once the rows were read
}

// New makes a book.
func New(c Config) *Book {
	b := &Book{c: c, counts: make(map[place]*count)}
	limits := make(map[delay.Target]window, len(c.Limits))
	for _, l := range c.Limits {
		limits[l.Target] = windowOf(l.Limit)
	}
	b.limits.Store(&limits)
	return b
}

// Limit sets or, with the zero value, removes the limit of a target.
func (b *Book) Limit(target delay.Target, l delay.Limit) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := *b.limits.Load()
	limits := make(map[delay.Target]window, len(old)+1)
	for t, w := range old {
		if t != target {
			limits[t] = w
		}
	}
	if !l.IsZero() {
		limits[target] = windowOf(l)
	}
	if limits[target].ms != old[target].ms { // places are numbered otherwise
		for p := range b.counts {
			if p.target == target {
				delete(b.counts, p)
			}
		}
	}
	b.limits.Store(&limits)
}

// limited is the window of a target's limit (Q1).
func (b *Book) limited(t delay.Target) (window, bool) {
	if b.idle() {
		return window{}, false
	}
	w, ok := (*b.limits.Load())[t]
	return w, ok
}

// idle reports whether no target has a limit (Q1).
func (b *Book) idle() bool { return b == nil || len(*b.limits.Load()) == 0 }

// Load reads what is due in the windows of drafts, so that Room knows.
func (b *Book) Load(drafts []delay.Draft) {
	if b.idle() {
		return
	}
	left, now := scanRows, b.c.Now()
	for i := range drafts {
		lane := drafts[i].Lane()
		if w, ok := b.limited(lane); ok {
			left = b.load(place{lane, max(drafts[i].Due, now) / w.ms}, w, left)
		}
	}
}

// load makes sure that p is counted, unless it takes more than left rows, and returns what is left
// of them.
func (b *Book) load(p place, w window, left int) int {
	from, to := delay.Key{Due: p.number * w.ms}, delay.Key{Due: (p.number + 1) * w.ms}
	whole := !b.c.Boundary().Less(to)
	b.mu.Lock()
	c := b.counts[p]
	if c != nil && (c.whole || !whole) {
		b.mu.Unlock()
		<-c.loaded
		return left
	}
	if left <= 0 {
		b.mu.Unlock()
		return left
	}
	if len(b.counts) >= maxCounts {
		clear(b.counts)
	}
	p.target = delay.Target(strings.Clone(string(p.target))) // a draft's aliases its request
	c = &count{since: b.c.Last(), whole: whole, loaded: make(chan struct{})}
	b.counts[p] = c
	b.mu.Unlock()

	left -= seekRows
	n := int64(0)
	// What cannot be read is not known, as the rows of the bucket are not.
	_ = b.c.Rows(from, to, func(key delay.Key, rec []byte) bool {
		if target, _, err := delay.RecordTarget(rec); err == nil && target == p.target &&
			key.Seq <= c.since {
			n++
		}
		left--
		return left > 0
	})
	b.mu.Lock()
	c.n += n
	b.mu.Unlock()
	close(c.loaded)
	return left
}

// at is the window of a due for a target, if it is counted. The lock is held.
func (b *Book) at(t delay.Target, w window, due, now delay.Due) *count {
	return b.counts[place{t, max(due, now) / w.ms}]
}

// Add counts a row that is stored from now on.
func (b *Book) Add(lane delay.Target, key delay.Key) {
	w, ok := b.limited(lane)
	if !ok {
		return
	}
	now := b.c.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.at(lane, w, key.Due, now); c != nil && key.Seq > c.since {
		c.n++
	}
}

// Drop takes back a row that was withdrawn before it was handed out.
func (b *Book) Drop(lane delay.Target, key delay.Key) {
	w, ok := b.limited(lane)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.at(lane, w, key.Due, 0); c != nil && c.n > 0 {
		c.n--
	}
}

// Room reports whether the limit of its target lets m through in its second, as far as is known.
// replaced is the due of a message that m takes the place of, or 0.
func (b *Book) Room(m *delay.Message, replaced delay.Due) bool {
	if b.idle() {
		return true
	}
	lane := m.Lane()
	w, ok := b.limited(lane)
	if !ok {
		return true
	}
	now := b.c.Now()
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.at(lane, w, m.Due, now)
	if c == nil {
		return true
	}
	n := c.n
	if replaced > 0 && b.at(lane, w, replaced, now) == c {
		n--
	}
	return n < w.most
}

// Search finds later seconds with room for the messages of one request, each its own. It is
// confined to one goroutine.
type Search struct {
	book  *Book
	now   delay.Due
	left  int
	taken map[place]int64     // suggested already
	next  map[place]delay.Due // the window to look at first, after a full one
}

// Search begins a search.
func (b *Book) Search() *Search {
	return &Search{book: b, now: b.c.Now(), left: scanRows}
}

// After is the beginning of the first window with room after that of due, or 0 when none is known
// to have any.
func (s *Search) After(lane delay.Target, due delay.Due) delay.Due {
	w, ok := s.book.limited(lane)
	if !ok {
		return 0
	}
	if s.taken == nil {
		s.taken, s.next = make(map[place]int64), make(map[place]delay.Due)
	}
	full := place{lane, max(due, s.now) / w.ms}
	last := min(full.number+LookAhead, delay.MaxDue/w.ms)
	at := max(s.next[full], full.number+1)
	for ; at <= last; at++ {
		p := place{lane, at}
		s.left = s.book.load(p, w, s.left)
		s.book.mu.Lock()
		c := s.book.counts[p]
		room := c != nil && c.n+s.taken[p] < w.most
		s.book.mu.Unlock()
		if room {
			s.taken[p]++
			break
		}
	}
	s.next[full] = at
	if at > last {
		return 0
	}
	return at * w.ms
}
