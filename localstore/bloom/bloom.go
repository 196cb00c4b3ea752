// SPDX-License-Identifier: Apache-2.0

// Package bloom is a growing filter over strings that can be saved: it never denies what was added,
// and may doubt what was not.
package bloom

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// A bloom filter of blocks: an id sets one bit in each of the 8 words of one block, which is one
// cache line. At 20 bits an id about one in 4,000 unknown ids looks known: each costs a read of the
// store, as much as storing ten messages.
const (
	blockWords    = 8
	bitsPerID     = 20
	idsPerBlock   = blockWords * 64 / bitsPerID
	firstLayerIDs = 1 << 16
)

type bloom struct {
	words    []atomic.Uint64
	capacity int64 // ids it is meant for
	ids      int64 // distinct ones added, as far as it can tell
}

func newBloom(capacity int64) *bloom {
	blocks := max(capacity/idsPerBlock, 1)
	return &bloom{words: make([]atomic.Uint64, blocks*blockWords), capacity: capacity}
}

// place is the first word of the block of h, and the bits within it.
func (b *bloom) place(h uint64) (first uint64, sel uint64) {
	blocks := uint64(len(b.words) / blockWords)
	block, _ := bits.Mul64(h, blocks)
	return block * blockWords, h * 0x9e3779b97f4a7c15
}

// wordBit is the bit of the ith word: six bits of sel for each word.
func wordBit(sel uint64, i uint64) uint64 { return 1 << (sel >> (i * 6) & 63) }

// add reports whether h was new.
func (b *bloom) add(h uint64) bool {
	first, sel := b.place(h)
	fresh := false
	for i := range uint64(blockWords) {
		bit := wordBit(sel, i)
		if w := &b.words[first+i]; w.Load()&bit == 0 {
			w.Or(bit)
			fresh = true
		}
	}
	return fresh
}

func (b *bloom) has(h uint64) bool {
	first, sel := b.place(h)
	for i := range uint64(blockWords) {
		if b.words[first+i].Load()&wordBit(sel, i) == 0 {
			return false
		}
	}
	return true
}

// Set is a filter that grows: each layer doubles what all before it hold. It is safe for concurrent
// use; adding takes a lock, asking does not.
type Set struct {
	layers    atomic.Pointer[[]*bloom]
	mu        sync.Mutex
	ids       atomic.Int64
	forgotten atomic.Int64
}

// New is an empty set that expects so many ids.
func New(capacity int64) *Set {
	set := &Set{}
	set.layers.Store(&[]*bloom{newBloom(max(capacity, firstLayerIDs))})
	return set
}

// Add adds hashes of ids.
func (set *Set) Add(hashes []uint64) {
	set.mu.Lock()
	defer set.mu.Unlock()
	layers := *set.layers.Load()
	last := layers[len(layers)-1]
	for _, h := range hashes {
		// What an older layer already claims needs no more bits.
		if anyHas(layers[:len(layers)-1], h) || !last.add(h) {
			continue
		}
		set.ids.Add(1)
		if last.ids++; last.ids < last.capacity {
			continue
		}
		grown := int64(0)
		for _, l := range layers {
			grown += l.capacity
		}
		last = newBloom(grown)
		layers = append(slices.Clip(layers), last)
		set.layers.Store(&layers)
	}
}

// Has is false only when h was never added.
func (set *Set) Has(h uint64) bool {
	return anyHas(*set.layers.Load(), h)
}

// anyHas looks in the newest layer first: it is the largest.
func anyHas(layers []*bloom, h uint64) bool {
	for _, l := range slices.Backward(layers) {
		if l.has(h) {
			return true
		}
	}
	return false
}

// IDs is how many distinct ids were added, as far as the set can tell.
func (set *Set) IDs() int64 { return set.ids.Load() }

// Forget notes that n ids were deleted, which the set cannot unlearn.
func (set *Set) Forget(n int) { set.forgotten.Add(int64(n)) }

// Left is how many ids are in the set and not deleted.
func (set *Set) Left() int64 { return max(set.ids.Load()-set.forgotten.Load(), 0) }

// Stale reports whether so much was deleted that a new set pays.
func (set *Set) Stale() bool {
	gone := set.forgotten.Load()
	return gone >= firstLayerIDs && gone >= set.ids.Load()/2
}

// Bytes is the memory of the set.
func (set *Set) Bytes() int64 {
	n := int64(0)
	for _, l := range *set.layers.Load() {
		n += int64(len(l.words)) * 8
	}
	return n
}

// The multipliers of Hash: odd, with as many ones as zeros.
const (
	hashSalt  = 0xa0761d6478bd642f
	hashSalt2 = 0xe7037ed1a0b428db
)

// Hash mixes an id eight bytes at a time. It is part of the format of the filter's file.
func Hash(id string) uint64 {
	h := uint64(len(id)) ^ hashSalt
	for len(id) >= 8 {
		h = mix(h^word(id), hashSalt2)
		id = id[8:]
	}
	var tail [8]byte
	copy(tail[:], id)
	return mix(mix(h^binary.LittleEndian.Uint64(tail[:]), hashSalt2), hashSalt)
}

func word(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a, b)
	return hi ^ lo
}
