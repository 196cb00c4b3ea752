// SPDX-License-Identifier: Apache-2.0

package timewheel

import "math/bits"

const (
	chunkBits = 11
	// chunkSize is the number of nodes that are allocated, and released, together: about 100 KB
	// for entries of 24 bytes. Fixed chunks instead of one slice that doubles, so that growing
	// copies nothing and a drained burst gives its memory back (W7).
	chunkSize = 1 << chunkBits
	chunkMask = chunkSize - 1

	none = ^uint32(0) // the index of no node

	sizeBits = 30
	sizeMask = 1<<sizeBits - 1
)

// Where a node is linked; kept in the two bits above its size.
const (
	inWheel = iota << sizeBits // where place would put it
	inReady
	inLate
)

// node is an entry. Links are indices, not pointers: half the size, and the garbage collector need
// not look into a slab whose T holds no pointers.
type node[T any] struct {
	at         int64
	v          T
	next, prev uint32
	gen        uint32 // raised whenever the node is freed (W5)
	size       uint32 // place in the top bits
}

func (n *node[T]) bytes() int64      { return int64(n.size & sizeMask) }
func (n *node[T]) place() uint32     { return n.size &^ sizeMask }
func (n *node[T]) setPlace(p uint32) { n.size = n.size&sizeMask | p }

// chunk is a block of nodes; nodes is nil while it is released.
type chunk[T any] struct {
	nodes    *[chunkSize]node[T]
	freeList uint32 // linked by next
	fresh    uint32 // nodes from here on were never used
	live     uint32
	gen      uint32 // the first generation of fresh nodes: above all that ever were
	top      uint32 // the highest generation in the chunk
}

func (c *chunk[T]) full() bool { return c.freeList == none && c.fresh == chunkSize }

// slab allocates nodes. Nodes come from the active chunk until it is full, then from the lowest
// chunk with room, so that the higher ones run empty.
type slab[T any] struct {
	chunks []chunk[T]
	room   []uint64 // bit i: chunks[i] is allocated and not full
	active int
	spare  int // an empty chunk kept to avoid allocating it again at once, or -1
}

func (s *slab[T]) init() { s.active, s.spare = -1, -1 }

// node is the node at index i, which must be allocated.
func (s *slab[T]) node(i uint32) *node[T] { return &s.chunks[i>>chunkBits].nodes[i&chunkMask] }

// lookup is the node of h, or nil when h is stale (W5).
func (s *slab[T]) lookup(h Handle) *node[T] {
	k := int(h.index >> chunkBits)
	if h.gen == 0 || k >= len(s.chunks) || s.chunks[k].nodes == nil {
		return nil
	}
	n := s.node(h.index)
	if n.gen != h.gen {
		return nil
	}
	return n
}

// alloc takes a node. Its entry is the caller's to fill.
func (s *slab[T]) alloc() (uint32, *node[T]) {
	if s.active < 0 || s.chunks[s.active].full() {
		s.active = s.pick()
		if s.active == s.spare {
			s.spare = -1
		}
	}
	c := &s.chunks[s.active]
	var at uint32
	if c.freeList != none {
		at = c.freeList
		c.freeList = c.nodes[at].next
	} else {
		at = c.fresh
		c.nodes[at].gen = c.gen
		c.fresh++
	}
	c.live++
	if c.full() {
		s.room[s.active>>6] &^= 1 << (s.active & 63)
	}
	return uint32(s.active)<<chunkBits | at, &c.nodes[at]
}

// pick is a chunk with room: the lowest one, else one that was released, else a new one.
func (s *slab[T]) pick() int {
	for i, word := range s.room {
		if word != 0 {
			return i<<6 | bits.TrailingZeros64(word)
		}
	}
	at := len(s.chunks)
	for i := range s.chunks {
		if s.chunks[i].nodes == nil {
			at = i
			break
		}
	}
	if at == len(s.chunks) {
		s.chunks = append(s.chunks, chunk[T]{gen: 1, top: 1})
		if at>>6 == len(s.room) {
			s.room = append(s.room, 0)
		}
	}
	c := &s.chunks[at]
	c.nodes, c.freeList, c.fresh = new([chunkSize]node[T]), none, 0
	s.room[at>>6] |= 1 << (at & 63)
	return at
}

// free gives a node back and forgets its entry.
func (s *slab[T]) free(i uint32, n *node[T]) {
	var zero T
	n.v = zero
	n.gen++
	if n.gen == 0 { // 0 is the generation of no handle
		n.gen = 1
	}
	k := int(i >> chunkBits)
	c := &s.chunks[k]
	c.top = max(c.top, n.gen)
	n.next = c.freeList
	c.freeList = i & chunkMask
	c.live--
	s.room[k>>6] |= 1 << (k & 63)
	if c.live > 0 || k == s.active {
		return
	}
	if s.spare < 0 {
		s.spare = k
		return
	}
	s.release(k)
}

// release gives the memory of an empty chunk back.
func (s *slab[T]) release(k int) {
	c := &s.chunks[k]
	c.nodes = nil
	c.gen = max(c.top, 1) // top is the generation of a node that was free: no handle has it
	s.room[k>>6] &^= 1 << (k & 63)
}

// list is a doubly linked list of nodes with its books.
type list struct {
	head, tail uint32
	count      int
	bytes      int64
}

var emptyList = list{head: none, tail: none}

// push links a node to the end of l.
func (s *slab[T]) push(l *list, i uint32, n *node[T]) {
	n.next, n.prev = none, l.tail
	if l.tail == none {
		l.head = i
	} else {
		s.node(l.tail).next = i
	}
	l.tail = i
	l.count++
	l.bytes += n.bytes()
}

// unlink takes a node out of l.
func (s *slab[T]) unlink(l *list, n *node[T]) {
	if n.prev == none {
		l.head = n.next
	} else {
		s.node(n.prev).next = n.next
	}
	if n.next == none {
		l.tail = n.prev
	} else {
		s.node(n.next).prev = n.prev
	}
	l.count--
	l.bytes -= n.bytes()
}
